"""In which order the deployments of a plan are asked. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import assert_never

from paracle_domain.provider.spec import Strategy
from paracle_provider_gateway.plans import Deployment, DeploymentKey, Plan, Route, Tier

type Measure = Callable[[Deployment], float | None]
"""How much of something a deployment takes; `None` if nobody knows."""


def ordered(plan: Plan, *, latency: Measure, cost: Measure, draw: Callable[[], float]) -> tuple[Deployment, ...]:
    """The deployments of `plan`, each once: tier by tier, each tier by its strategy.

    `draw` gives numbers from [0, 1).
    """
    found: dict[DeploymentKey, Deployment] = {}
    for tier in plan.tiers:
        for route in _tier(tier, latency, cost, draw):
            found.setdefault(route.deployment.key, route.deployment)
    return tuple(found.values())


def _tier(tier: Tier, latency: Measure, cost: Measure, draw: Callable[[], float]) -> tuple[Route, ...]:
    if len(tier.routes) == 1:
        return tier.routes
    match tier.strategy:
        case Strategy.PRIORITY:
            return tier.routes
        case Strategy.WEIGHTED:
            return _by(lambda route: _race(route.weight, draw()), tier)
        case Strategy.LOWEST_LATENCY:
            return _by(lambda route: _or(latency(route.deployment), 0.0), tier)  # whom nobody knows is tried
        case Strategy.LOWEST_COST:
            return _by(lambda route: _or(cost(route.deployment), math.inf), tier)
        case _:
            assert_never(tier.strategy)


def _by(measure: Callable[[Route], float], tier: Tier) -> tuple[Route, ...]:
    return tuple(sorted(tier.routes, key=measure))


def _or(known: float | None, otherwise: float) -> float:
    return otherwise if known is None else known


def _race(weight: float, draw: float) -> float:
    """When a route arrives whose steps come at random, `weight` a second: the first is each one's with its share.

    Source: Efraimidis and Spirakis, Weighted random sampling with a reservoir, 2006 (their keys, as logarithms).
    """
    return -math.log1p(-draw) / weight if weight > 0 else math.inf
