"""Which deployments a name stands for, as the environment sets them up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Final

from paracle_domain.errors import InvalidInput, NotFound, quote
from paracle_domain.inference.request import Complete
from paracle_domain.inference.response import ModelInfo, ModelList
from paracle_provider_gateway.plans import Deployment, Plan, Route, Tier, Timeouts
from paracle_provider_gateway.ports import Prices, Provider
from paracle_provider_gateway.retries import RetryPolicy

DEFAULT: Final = "default"

HOW_TO_SET_UP: Final[Mapping[str, str]] = {
    "openai": "OPENAI_API_KEY",
    "anthropic": "ANTHROPIC_API_KEY",
    "openai-compatible": "PARACLE_OPENAI_BASE_URL",
}
"""The variable that sets up each provider which is not always there."""

_PLANS_KEPT: Final = 1024


class EnvironmentCatalog:
    """The providers that are set up, in order of preference, for all tenants; the sandbox comes last.

    `default` is the model that `default` stands for; absent: the first provider's own default. Every name has one route
    with these `timeouts`, tried as `retry` says.
    """

    def __init__(
        self,
        providers: Sequence[Provider],
        prices: Prices,
        default: str | None = None,
        *,
        retry: RetryPolicy,
        timeouts: Timeouts,
    ) -> None:
        self._providers = tuple(providers)
        self._by_name = {provider.name: provider for provider in providers}
        self._prices = prices
        self._default = default
        self._retry = retry
        self._timeouts = timeouts
        self._plans: dict[str, Plan] = {}

    async def plan(self, _tenant: str, request: Complete) -> Plan:
        full = await self._default_name() if request.model == DEFAULT else request.model
        return self._plans.get(full) or self._made(full)

    async def models(self, _tenant: str) -> ModelList:
        default = await self._default_name()
        names = [f"{provider.name}/{model}" for provider in self._providers for model in provider.listed_models]
        shown = names if default in names else [default, *names]
        return ModelList(models=tuple(self._info(name, default) for name in shown), default=default)

    async def _default_name(self) -> str:
        if self._default is not None:
            return self._default
        first = self._providers[0]
        return f"{first.name}/{await first.default_model()}"

    def _info(self, name: str, default: str) -> ModelInfo:
        deployment = self._deployment(name)
        rates = self._prices.rates(deployment.provider.name, deployment.model)
        return ModelInfo(
            name=name,
            provider=deployment.provider.name,
            sandbox=deployment.provider.sandbox,
            default=name == default,
            input_usd_per_mtok=None if rates is None else Decimal(str(rates.input)),
            output_usd_per_mtok=None if rates is None else Decimal(str(rates.output)),
        )

    def _made(self, full: str) -> Plan:
        plan = Plan(full, (Tier((Route(self._deployment(full)),)),), self._retry)
        if len(self._plans) >= _PLANS_KEPT:  # callers name them, so they are no bounded set
            self._plans.clear()
        self._plans[full] = plan
        return plan

    def _deployment(self, full: str) -> Deployment:
        provider, slash, model = full.partition("/")
        if not slash or not model:
            raise InvalidInput(
                f"model {quote(full)} names no provider; write provider/model, such as openai/gpt-5-mini or "
                f"sandbox/rules, or {DEFAULT!r}",
                path="model",
            )
        if provider not in self._by_name:
            raise self._missing(provider, full)
        return Deployment(self._by_name[provider], model, timeouts=self._timeouts)

    def _missing(self, provider: str, full: str) -> NotFound:
        variable = HOW_TO_SET_UP.get(provider)
        if variable is not None:
            what = f"provider {provider!r} is not set up; set {variable} for the provider gateway"
        else:
            known = ", ".join(sorted({*HOW_TO_SET_UP, *self._by_name}))
            what = f"provider {quote(provider)} is unknown; known are {known}"
        return NotFound(f"model {quote(full)}: {what}", path="model")
