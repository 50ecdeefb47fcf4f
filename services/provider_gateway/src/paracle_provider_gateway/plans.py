"""What a model's name stands for: the deployments that can answer a call, and in which order they are asked. Pure.

A *deployment* is one model at one provider. A *plan* is a list of tiers: the routes of one tier are ordered by its
strategy, and the next tier is a fallback for when all of them have failed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import Protocol

from paracle_domain.inference.request import Complete
from paracle_domain.inference.response import ModelList
from paracle_provider_gateway.ports import Provider
from paracle_provider_gateway.retries import RetryPolicy


class Strategy(StrEnum):
    """How the routes of a tier are ordered for one call.

    `priority`: as they are written. `weighted`: drawn, by weight. `lowest_latency`: the quickest of late first.
    `lowest_cost`: the cheapest for this call first; those without a known price last.
    """

    PRIORITY = "priority"
    WEIGHTED = "weighted"
    LOWEST_LATENCY = "lowest_latency"
    LOWEST_COST = "lowest_cost"


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds that one attempt may take: to connect, to the first piece, from each piece to the next, and in all.

    `total_s` absent: as long as the call may take.
    """

    connect_s: float = 10.0
    first_token_s: float = 120.0
    between_tokens_s: float = 60.0
    total_s: float | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """What a deployment may be asked by all replicas together; absent: as much as comes."""

    concurrency: int | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None


@dataclass(frozen=True, slots=True)
class Price:
    """USD per million tokens, as a manifest sets it. Kinds without their own cost what all input or output does."""

    input: Decimal
    output: Decimal
    cached: Decimal | None = None
    cache_write: Decimal | None = None
    reasoning: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a model can do; `None` where nobody knows, which refuses nothing."""

    tools: bool | None = None
    vision: bool | None = None
    json_schema: bool | None = None
    thinking: bool | None = None
    embeddings: bool | None = None
    context_tokens: int | None = None
    max_output_tokens: int | None = None


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
        Base URL of the provider, for the list prices of providers whose name does not tell.
    """

    provider: Provider
    model: str
    tenant: str | None = None
    timeouts: Timeouts = Timeouts()
    limits: Limits = Limits()
    capabilities: Capabilities = Capabilities()
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

    async def plan(self, tenant: str, request: Complete) -> Plan:
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
