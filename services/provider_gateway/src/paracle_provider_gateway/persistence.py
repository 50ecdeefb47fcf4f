"""Walks a plan till a deployment answers, or nothing more can be hoped for within the call's time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from itertools import count

from paracle_domain.envelope import Context
from paracle_domain.errors import ParacleError
from paracle_domain.inference.request import Complete
from paracle_provider_gateway.accounts import Attempt
from paracle_provider_gateway.attempts import Answered, Attempts
from paracle_provider_gateway.plans import Plan
from paracle_provider_gateway.telemetry import Telemetry


class Persistence:
    """Gets an answer of a plan.

    `sleep` and `draw` (from [0, 1)) are the waits and the jitter of retries.
    """

    def __init__(
        self,
        attempts: Attempts,
        telemetry: Telemetry,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._attempts = attempts
        self._telemetry = telemetry
        self._sleep = sleep
        self._draw = draw

    async def answer(self, plan: Plan, request: Complete, context: Context, deadline: float) -> Answered:
        """The first reply.

        `deadline` is a time of the running event loop. A wait that would end after it is not begun: the error is raised
        at once, with its `retry_after_s`, so that the caller can do something better with the time.
        """
        deployment = next(plan.deployments)
        for number in count(1):
            try:
                return await self._attempts.make(Attempt(number, deployment, request, context))
            except ParacleError as error:
                wait = deployment.retry.wait_after(number, error, self._draw())
                if wait is None or asyncio.get_running_loop().time() + wait >= deadline:
                    raise
                self._telemetry.retried(deployment, error)
            await self._sleep(wait)
        raise AssertionError("count() does not end")
