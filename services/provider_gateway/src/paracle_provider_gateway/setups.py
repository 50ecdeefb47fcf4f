"""What a tenant set up: providers and models, as its manifests say, over those of the operator. Pure.

Names are looked up from the tenant outwards: a model of its own, then a provider of its own, then the operator's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from paracle_domain.errors import NotFound, ParacleError, quote
from paracle_domain.names import suggest
from paracle_domain.provider.spec import DEFAULT, ModelSpec, RouteSpec, is_deployment
from paracle_provider_gateway.plans import Deployment, Plan, Route, Tier
from paracle_provider_gateway.retries import RetryPolicy

_PLANS_KEPT: Final = 1_024

log = logging.getLogger(__name__)

type Deploy = Callable[[str], Deployment]
"""Makes the deployment of a model, or raises why there is none."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A provider of the tenant: its deployments, the models that it shows, and those that it has if that is said."""

    deploy: Deploy
    shown: tuple[str, ...] = ()
    listed: frozenset[str] | None = None

    def deployment(self, provider: str, model: str) -> Deployment:
        """Its deployment of `model`."""
        if self.listed is not None and model not in self.listed:
            near = suggest(model, self.listed)
            raise NotFound(f"provider {provider!r} has no model {quote(model)}{near}", path="model")
        return self.deploy(model)


@dataclass(frozen=True)
class Setup:
    """All that a tenant set up, at one version of its manifests; immutable, so plans are made once.

    Attributes
    ----------
    operators
        Makes deployments (by `provider/model`) of what is the operator's.
    retry
        Of names whose manifest says nothing of it.
    """

    operators: Deploy
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    providers: Mapping[str, Offer] = field(default_factory=dict[str, Offer])
    models: Mapping[str, ModelSpec] = field(default_factory=dict[str, ModelSpec])
    _plans: dict[tuple[str, str | None], Plan] = field(default_factory=dict[tuple[str, str | None], Plan], repr=False)

    @property
    def asked(self) -> Iterator[str]:
        """Deployments that callers named of late, whether they are listed anywhere or not."""
        return (name for name, _ in self._plans if name not in self.models and is_deployment(name))

    def leads_to_default(self, name: str) -> bool:
        """Whether it must be known what the operator's `default` is, to say what `name` stands for."""
        if name not in self.models:
            return name == DEFAULT
        return DEFAULT not in self.models and DEFAULT in self._line(name)

    def plan(self, name: str, default: str | None = None) -> Plan:
        """What `name` stands for; `default` is the operator's, if it leads there.

        Raises
        ------
        NotFound
            If it stands for nothing; the message says what to do.
        """
        key = (name, default)
        if (kept := self._plans.get(key)) is not None:
            return kept
        made = self._made(name, default)
        if len(self._plans) >= _PLANS_KEPT:  # callers name them, so they are no bounded set
            self._plans.clear()
        self._plans[key] = made
        return made

    @property
    def named(self) -> Iterator[str]:
        """Of the deployments that manifests name; they may be named again and again."""
        for model in self.models.values():
            yield from filter(is_deployment, (*(route.model for route in model.routes), *model.fallbacks))
        for provider, offer in self.providers.items():
            yield from (f"{provider}/{model}" for model in offer.shown)

    def deployment(self, full: str) -> Deployment:
        """The deployment that is called `provider/model`."""
        provider, _, model = full.partition("/")
        offer = self.providers.get(provider)
        if offer is None or not model:
            return self.operators(full)
        return offer.deployment(provider, model)

    def _made(self, name: str, default: str | None) -> Plan:
        model = self.models.get(name)
        if model is None:
            return Plan(name, (Tier((Route(self.deployment(self._full(name, default))),)),), self.retry)
        tiers = self._tiers(name, default)
        hedge = model.hedge.after_s if model.hedge is not None else None
        return Plan(name, tiers, self._retry_of(model), hedge)

    def _retry_of(self, model: ModelSpec) -> RetryPolicy:
        said = model.retry
        return self.retry if said is None else RetryPolicy(said.attempts, said.base_s, said.cap_s)

    def _line(self, name: str) -> Iterable[str]:
        """`name`, its fallbacks, and theirs in turn, each once."""
        found: dict[str, None] = {}
        ahead = [name]
        while ahead:
            each = ahead.pop(0)
            if each not in found:
                found[each] = None
                ahead = [*(self.models[each].fallbacks if each in self.models else ()), *ahead]
        return found

    def _tiers(self, name: str, default: str | None) -> tuple[Tier, ...]:
        """Those of a model and its fallbacks. A way that is not open is left out, unless no other is left."""
        problems: list[ParacleError] = []
        tiers = tuple(tier for each in self._line(name) if (tier := self._tier(each, default, problems)).routes)
        if not tiers:
            raise problems[0]
        for problem in problems:
            log.warning("a route is left out", extra={"model": name, "error": problem.message})
        return tiers

    def _tier(self, name: str, default: str | None, problems: list[ParacleError]) -> Tier:
        model = self.models.get(name)
        routes = (RouteSpec(model=self._full(name, default)),) if model is None else model.routes
        found: list[Route] = []
        for route in routes:
            try:
                found.append(Route(self.deployment(route.model), route.weight))
            except ParacleError as problem:
                problems.append(problem)
        return Tier(tuple(found)) if model is None else Tier(tuple(found), model.strategy)

    def _full(self, name: str, default: str | None) -> str:
        """The `provider/model` that `name`, which is no model of the tenant, stands for."""
        if name == DEFAULT and default is not None:
            return default
        if is_deployment(name):
            return name
        near = suggest(name, {*self.models, DEFAULT})
        what = f"there is no model {quote(name)}{near}; apply a manifest of kind Model, or write provider/model"
        raise NotFound(what, path="model")
