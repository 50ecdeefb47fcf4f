"""Which deployments a name stands for: as the environment sets them up, and as tenants do over that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Final

from paracle_domain.errors import InvalidInput, NotFound, ParacleError, quote
from paracle_domain.inference.embedding import Embed, ModelCall
from paracle_domain.inference.response import ModelInfo, ModelList
from paracle_domain.provider.spec import BUILTIN, DEFAULT, DEFAULT_EMBEDDING, provider_of
from paracle_provider_gateway.builtin_model import way_out
from paracle_provider_gateway.capabilities import fitting, known_of
from paracle_provider_gateway.deployments import Found
from paracle_provider_gateway.following import Following
from paracle_provider_gateway.health import Health
from paracle_provider_gateway.plans import Deployment, Plan, Route, Tier, Timeouts
from paracle_provider_gateway.ports import Embedder, Prices, Provider, Speaker
from paracle_provider_gateway.pricing import FREE
from paracle_provider_gateway.retries import RetryPolicy
from paracle_provider_gateway.setups import Setup

HOW_TO_SET_UP: Final[Mapping[str, str]] = {
    "openai": "OPENAI_API_KEY",
    "anthropic": "ANTHROPIC_API_KEY",
    "openai-compatible": "PARACLE_OPENAI_BASE_URL",
}
"""The variable that sets up each provider which is not always there."""

_PLANS_KEPT: Final = 1024


class EnvironmentCatalog:
    """The providers that are set up, in order of preference, for all tenants.

    `default` is the model that `default` stands for, `default_embedding` the one where embeddings are asked for;
    absent: that of the first provider which has one. Every name has one route with these `timeouts`, tried as `retry`
    says.
    """

    def __init__(
        self,
        providers: Sequence[Provider],
        prices: Prices,
        health: Health,
        default: str | None = None,
        default_embedding: str | None = None,
        *,
        retry: RetryPolicy,
        timeouts: Timeouts,
    ) -> None:
        self._providers = tuple(providers)
        self._by_name = {provider.name: provider for provider in providers}
        self._prices = prices
        self._health = health
        self._default = default
        self._default_embedding = default_embedding
        self._retry = retry
        self._timeouts = timeouts
        self._plans: dict[str, Plan] = {}

    async def plan(self, _tenant: str, request: ModelCall) -> Plan:
        full = request.model
        if full == DEFAULT:
            full = self.embedding_name() if isinstance(request, Embed) else await self.default_name()
        return fitting(self._plans.get(full) or self._made(full), request)

    async def models(self, _tenant: str) -> ModelList:
        default = await self.default_name()
        models = tuple(self._info(name, default) for name in await self.names())
        return ModelList(models=models, default=default, default_embedding=self._embedding())

    async def names(self) -> list[str]:
        """Of the deployments that providers show, and the default one."""
        default = await self.default_name()
        names = [f"{provider.name}/{model}" for provider in self._providers for model in provider.listed_models]
        return names if default in names else [default, *names]

    async def default_name(self) -> str:
        """The full name that `default` stands for."""
        if self._default is not None:
            return self._default
        found = ((one.name, one) for one in self._providers if isinstance(one, Speaker))
        name, first = next(found)  # the sandbox is always there
        return f"{name}/{await first.default_model()}"

    def embedding_name(self) -> str:
        """The full name that `default` stands for where embeddings are asked for.

        Raises
        ------
        NotFound
            If no provider is known to have such a model.
        """
        if (found := self._embedding()) is None:
            what = "no model for embeddings is set up; set PARACLE_DEFAULT_EMBEDDING_MODEL for the provider gateway"
            raise NotFound(f"{what}, or: {way_out()}", path="model")
        return found

    def _embedding(self) -> str | None:
        if self._default_embedding is not None:
            return self._default_embedding
        for provider in self._providers:
            if isinstance(provider, Embedder) and provider.embedding_model is not None:
                return f"{provider.name}/{provider.embedding_model}"
        return None

    def _info(self, name: str, default: str) -> ModelInfo:
        return info_of(self.deployment(name), self._prices, self._health).model_copy(
            update={"default": name == default}
        )

    def _made(self, full: str) -> Plan:
        plan = Plan(full, (Tier((Route(self.deployment(full)),)),), self._retry)
        if len(self._plans) >= _PLANS_KEPT:  # callers name them, so they are no bounded set
            self._plans.clear()
        self._plans[full] = plan
        return plan

    def deployment(self, full: str) -> Deployment:
        """The deployment that is called `provider/model`.

        Raises
        ------
        InvalidInput
            If it is no such name.
        NotFound
            If there is no such provider; the message names the variable that sets it up.
        """
        provider, slash, model = full.partition("/")
        if not slash or not model:
            raise InvalidInput(
                f"model {quote(full)} names no provider; write provider/model, such as openai/gpt-5-mini or "
                f"sandbox/rules, or {DEFAULT!r}",
                path="model",
            )
        if provider not in self._by_name:
            raise self._missing(provider, full)
        price = FREE if provider == BUILTIN else None
        found = self._by_name[provider]
        return Deployment(found, model, timeouts=self._timeouts, capabilities=known_of(model), price=price)

    def _missing(self, provider: str, full: str) -> NotFound:
        variable = HOW_TO_SET_UP.get(provider)
        if provider == BUILTIN:
            what = way_out()
        elif variable is not None:
            what = f"provider {provider!r} is not set up; set {variable} for the provider gateway"
        else:
            known = ", ".join(sorted({*HOW_TO_SET_UP, *self._by_name}))
            what = f"provider {quote(provider)} is unknown; apply a manifest of kind Provider, or use one of {known}"
        return NotFound(f"model {quote(full)}: {what}", path="model")


class TenantCatalog:
    """What each tenant set up, over what the environment sets up for all: `Catalog`."""

    def __init__(self, operator: EnvironmentCatalog, following: Following, prices: Prices, health: Health) -> None:
        self._operator = operator
        self._following = following
        self._prices = prices
        self._health = health

    async def plan(self, tenant: str, request: ModelCall) -> Plan:
        setup = await self._following.setup(tenant)
        name = request.model
        if name == DEFAULT and isinstance(request, Embed):
            name = DEFAULT_EMBEDDING if DEFAULT_EMBEDDING in setup.models else self._operator.embedding_name()
        default = await self._operator.default_name() if setup.leads_to_default(name) else None
        return fitting(setup.plan(name, default), request)

    async def models(self, tenant: str) -> ModelList:
        """Models of the tenant by name, what its providers show, then what the operator's do."""
        setup = await self._following.setup(tenant)
        operators = await self._operator.models(tenant)
        default, embedding = operators.default, operators.default_embedding
        if DEFAULT in setup.models:
            default = self._alias(DEFAULT, setup, default).routes[0]
        if DEFAULT_EMBEDDING in setup.models:
            embedding = self._alias(DEFAULT_EMBEDDING, setup, default).routes[0]
        names = [f"{provider}/{model}" for provider, offer in setup.providers.items() for model in offer.shown]
        own = [self._alias(name, setup, operators.default) for name in sorted(setup.models)]
        shown = [info_of(setup.deployment(name), self._prices, self._health) for name in names]
        others = [info for info in operators.models if info.provider not in setup.providers]
        every = [info.model_copy(update={"default": info.name == default}) for info in (*own, *shown, *others)]
        return ModelList(models=tuple(every), default=default, default_embedding=embedding)

    async def deployments(self, tenant: str) -> dict[str, Found]:
        """Those that models of the tenant lead to, that providers show, and that the tenant's callers asked of late."""
        setup = await self._following.setup(tenant)
        names = dict.fromkeys((*setup.named, *setup.asked, *await self._operator.names()))
        return {name: _found(setup, name) for name in names}

    async def deployment(self, tenant: str, name: str) -> Deployment:
        """The one that is called `provider/model`, whether somebody shows it or not."""
        return (await self._following.setup(tenant)).deployment(name)

    def _alias(self, name: str, setup: Setup, default: str) -> ModelInfo:
        """A model of the tenant's; of one that leads nowhere just now: why."""
        try:
            plan = setup.plan(name, default)
        except ParacleError as problem:
            written = tuple(route.model for route in setup.models[name].routes)
            return ModelInfo(name=name, provider=provider_of(written[0]), routes=written, trouble=problem.message)
        first = next(plan.deployments)
        routes = tuple(dict.fromkeys(deployment.name for deployment in plan.deployments))
        return info_of(first, self._prices, self._health).model_copy(update={"name": name, "routes": routes})


def _found(setup: Setup, name: str) -> Found:
    try:
        return setup.deployment(name)
    except ParacleError as problem:
        return problem


def info_of(deployment: Deployment, prices: Prices, health: Health) -> ModelInfo:
    """What to show of a deployment."""
    breaker, rests_s, trouble = health.state(deployment)
    provider, can = deployment.provider, deployment.capabilities
    rates = prices.rates(deployment)
    return ModelInfo(
        name=deployment.name,
        provider=provider.name,
        sandbox=provider.sandbox,
        input_usd_per_mtok=None if rates is None else Decimal(str(rates.input)),
        output_usd_per_mtok=None if rates is None else Decimal(str(rates.output)),
        context_tokens=can.context_tokens,
        capabilities=tuple(name for name, value in can if value is True),
        breaker=breaker,
        rests_s=rests_s,
        trouble=None if trouble is None else trouble.message,
    )
