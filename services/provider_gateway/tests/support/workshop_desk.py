"""A gateway over what tenants apply to a registry in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from memory_registry import MemoryRegistry, MemorySetups
from provider_gateway_samples import CANARY, CONTEXT, Gateway, ask, gateway

from paracle_domain.inference.response import Completion
from paracle_provider_gateway.adapters.sandbox import SandboxProvider
from paracle_provider_gateway.adapters.workshop import Workshop
from paracle_provider_gateway.breaker import BreakerRules
from paracle_provider_gateway.catalog import EnvironmentCatalog, TenantCatalog
from paracle_provider_gateway.following import Following
from paracle_provider_gateway.health import Health
from paracle_provider_gateway.hosts import HostRules
from paracle_provider_gateway.keys import KeyRing
from paracle_provider_gateway.plans import Deployment, Timeouts
from paracle_provider_gateway.ports import Provider
from paracle_provider_gateway.pricing import ListPrices
from paracle_provider_gateway.retries import RetryPolicy
from paracle_provider_gateway.telemetry import Telemetry


@dataclass
class Shop:
    """A gateway over what tenants apply to a registry in memory."""

    workshop: Workshop
    registry: MemoryRegistry
    following: Following
    catalog: TenantCatalog
    gateway: Gateway
    clock: list[float]

    async def deployment(self, name: str) -> Deployment:
        self.following.doubt()
        return next((await self.catalog.plan("acme", ask(model=name))).deployments)

    async def ask(self, name: str, **more: Any) -> Completion:
        self.following.doubt()
        return await self.gateway.completions.complete(ask(model=name, **more), CONTEXT)


def shop(keys: KeyRing | None = None, hosts: HostRules | None = None) -> Shop:
    prices, registry, clock = ListPrices("sandbox"), MemoryRegistry(), [0.0]
    retry, timeouts = RetryPolicy(attempts=2), Timeouts(first_token_s=5)
    health = Health(BreakerRules(), Telemetry().health)
    operator = EnvironmentCatalog([SandboxProvider()], prices, health, retry=retry, timeouts=timeouts)
    rules = hosts or HostRules(["127.0.0.1"], {"MINE": ["127.0.0.1"]})

    def retire(provider: Provider) -> None:
        served.health.retire(provider)

    made = Workshop(
        operator.deployment,
        keys or KeyRing({"MINE": CANARY}),
        rules,
        retire,
        retry=retry,
        timeouts=timeouts,
        clock=lambda: clock[0],
    )
    following = Following(registry, made.build, made.forget, MemorySetups())
    catalog = TenantCatalog(operator, following, prices, health)
    served = gateway(catalog=catalog)
    return Shop(made, registry, following, catalog, served, clock)
