"""Puts the deployments of a plan in order for one call, by what this replica knows of them."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache
from typing import Final

from paracle_domain.inference.embedding import ModelCall
from paracle_domain.inference.estimate import estimate_input
from paracle_domain.inference.request import Complete
from paracle_provider_gateway.latencies import Latencies
from paracle_provider_gateway.plans import Deployment, Plan
from paracle_provider_gateway.ports import Prices
from paracle_provider_gateway.strategies import ordered

_TYPICAL_OUTPUT: Final = 500
"""Of a call without a limit: what is likely, where budgets reserve what is possible."""


class Choice:
    """Whom to ask first. `draw` gives numbers from [0, 1)."""

    def __init__(self, latencies: Latencies, prices: Prices, draw: Callable[[], float] = random.random) -> None:
        self._latencies = latencies
        self._prices = prices
        self._draw = draw

    def order(self, plan: Plan, request: ModelCall, now: float) -> tuple[Deployment, ...]:
        """The deployments of `plan`, each once."""
        if (only := plan.only) is not None:
            return (only,)
        streamed = isinstance(request, Complete) and request.stream_to is not None
        said = (request.sampling.max_output_tokens or _TYPICAL_OUTPUT) if isinstance(request, Complete) else 0

        def latency(deployment: Deployment) -> float | None:
            return self._latencies.estimate(deployment.key, now, streamed=streamed)

        @cache  # looked at for each deployment, and only where cost decides
        def given() -> int:
            return estimate_input(request)

        def cost(deployment: Deployment) -> float | None:
            found = self._prices.estimate(deployment, given(), said)
            return None if found is None else float(found)

        return ordered(plan, latency=latency, cost=cost, draw=self._draw)
