"""What a model's name stands for: the deployments that can answer a call, and in which order they are asked. Pure.

A *deployment* is one model at one provider. A *plan* is a list of tiers: the routes of one tier are ordered by its
strategy, and the next tier is a fallback for when all of them have failed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from paracle_domain.inference.embedding import ModelCall
from paracle_domain.inference.response import ModelList
from paracle_domain.provider.spec import Capabilities, DeploymentLimits, Price, Strategy
from paracle_provider_gateway.ports import Provider
from paracle_provider_gateway.retries import RetryPolicy


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds that one attempt may take: to connect, to the first piece, from each piece to the next, and in all.

    `total_s` absent: as long as the call may take.
    """

    connect_s: float = 10.0
    first_token_s: float = 120.0
    between_tokens_s: float = 60.0
    total_s: float | None = None


type DeploymentKey = tuple[str, str]
"""Whose deployment it is (nothing: everybody's), and its name."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """One model at one provider.

    Attributes
    ----------
    provider, model
        The adapter, and what it calls the model.
    tenant
        Whose manifest set the provider up; `None` for the operator's own, which are everybody's.
    price
        What the manifest says it costs; `None`: the list price, if there is one.
    price_url
        Base URL of a provider whose name does not tell whose list prices hold.
    """

    provider: Provider
    model: str
    tenant: str | None = None
    timeouts: Timeouts = Timeouts()
    limits: DeploymentLimits = field(default_factory=DeploymentLimits)
    capabilities: Capabilities = field(default_factory=Capabilities)
    price: Price | None = None
    price_url: str | None = None

    @property
    def name(self) -> str:
        """`provider/model`."""
        return f"{self.provider.name}/{self.model}"

    @property
    def key(self) -> DeploymentKey:
        """What tells it from all others (breakers, latencies, shared limits): its tenant, or nothing, and its name."""
        return self.tenant or "", self.name

    @property
    def load(self) -> str | None:
        """Key of what all replicas together ask of it; none if nothing of that is limited."""
        limits = self.limits
        if limits.concurrency is limits.requests_per_minute is limits.tokens_per_minute is None:
            return None
        return " ".join(self.key)


@dataclass(frozen=True, slots=True)
class Route:
    """A deployment within a tier. `weight` counts where the strategy draws."""

    deployment: Deployment
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Tier:
    """Routes that stand for each other."""

    routes: tuple[Route, ...]
    strategy: Strategy = Strategy.PRIORITY


@dataclass(frozen=True, slots=True)
class Plan:
    """Who is asked for the model `name`.

    Attributes
    ----------
    tiers
        Never empty, nor is any of them; the later are the fallbacks of the earlier.
    retry
        How often, and after which waits, a call is tried again.
    hedge_after_s
        Seconds without an answer after which the next route is asked besides; absent: never.
    """

    name: str
    tiers: tuple[Tier, ...]
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    hedge_after_s: float | None = None

    @property
    def only(self) -> Deployment | None:
        """The one deployment, where there is no other."""
        first = self.tiers[0].routes
        return first[0].deployment if len(self.tiers) == len(first) == 1 else None

    @property
    def deployments(self) -> Iterator[Deployment]:
        """All of them, as they are written."""
        return (route.deployment for tier in self.tiers for route in tier.routes)


class Catalog(Protocol):
    """Knows what names stand for, tenant by tenant. It may know otherwise at the next call; a plan stays as it is."""

    async def plan(self, tenant: str, request: ModelCall) -> Plan:
        """Who can answer `request`: every deployment of the plan can do what it asks for.

        Raises
        ------
        NotFound
            If its model is unknown to the tenant, or not set up; the message says how to set it up.
        InvalidInput
            If no deployment can do what it asks for; the message names the field and the model.
        """

    async def models(self, tenant: str) -> ModelList:
        """The names that the tenant can ask for."""
