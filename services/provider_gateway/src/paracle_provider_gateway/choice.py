"""Puts the deployments of a plan in order for one call, by what this replica knows of them."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from paracle_domain.inference.request import Complete
from paracle_provider_gateway.latencies import Latencies
from paracle_provider_gateway.plans import Deployment, Plan
from paracle_provider_gateway.ports import Prices
from paracle_provider_gateway.strategies import ordered

_CHARACTERS_A_TOKEN: Final = 4
_TYPICAL_OUTPUT: Final = 500


class Choice:
    """Whom to ask first. `draw` gives numbers from [0, 1)."""

    def __init__(self, latencies: Latencies, prices: Prices, draw: Callable[[], float] = random.random) -> None:
        self._latencies = latencies
        self._prices = prices
        self._draw = draw

    def order(self, plan: Plan, request: Complete, now: float) -> tuple[Deployment, ...]:
        """The deployments of `plan`, each once."""
        if (only := plan.only) is not None:
            return (only,)
        streamed = request.stream_to is not None

        def latency(deployment: Deployment) -> float | None:
            return self._latencies.estimate(deployment.key, now, streamed=streamed)

        def cost(deployment: Deployment) -> float | None:
            return self._cost(deployment, request)

        return ordered(plan, latency=latency, cost=cost, draw=self._draw)

    def _cost(self, deployment: Deployment, request: Complete) -> float | None:
        output = request.sampling.max_output_tokens or _TYPICAL_OUTPUT
        cost = self._prices.estimate(deployment, _input_tokens(request), output)
        return None if cost is None else float(cost)


def _input_tokens(request: Complete) -> int:
    said = sum(len(message.text) for message in request.messages)
    results = sum(len(result.content) for message in request.messages for result in message.tool_results)
    return (said + results) // _CHARACTERS_A_TOKEN
