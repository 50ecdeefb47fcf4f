"""Walks a plan till a deployment answers, or nothing more can be hoped for within the call's time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import assert_never

from paracle_domain.envelope import Context
from paracle_domain.errors import ParacleError, RateLimited
from paracle_domain.inference.request import Complete
from paracle_provider_gateway.accounts import Attempt, Full
from paracle_provider_gateway.attempts import Answered, Attempts
from paracle_provider_gateway.choice import Choice
from paracle_provider_gateway.health import Resting
from paracle_provider_gateway.plans import Deployment, Plan
from paracle_provider_gateway.telemetry import Telemetry
from paracle_provider_gateway.walk import Ask, GiveUp, Step, Wait, Walk


@dataclass(frozen=True, slots=True)
class Found:
    """The first reply, and how many requests were sent for it."""

    answered: Answered
    attempts: int


class Persistence:
    """Gets an answer of a plan.

    `sleep` and `draw` (from [0, 1)) are the waits and the jitter of retries.
    """

    def __init__(
        self,
        choice: Choice,
        attempts: Attempts,
        telemetry: Telemetry,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._choice = choice
        self._attempts = attempts
        self._telemetry = telemetry
        self._sleep = sleep
        self._draw = draw

    async def answer(self, plan: Plan, request: Complete, context: Context, deadline: float) -> Found:
        """The first reply.

        `deadline` is a time of the running event loop. A wait that would end after it is not begun: the error is raised
        at once, with its `retry_after_s`, so that the caller can do something better with the time.
        """
        way = _Way(plan, request, context, self._choice.order(plan, request, _now()), self._draw)
        while True:
            match way.step():
                case Ask(deployment):
                    if (found := await self._ask(way, deployment, deadline)) is not None:
                        return found
                case Wait(until) if until < deadline:
                    await self._sleep(way.wait(until))
                case Wait(_, error) | GiveUp(error):
                    raise error
                case unreachable:
                    assert_never(unreachable)

    async def _ask(self, way: _Way, deployment: Deployment, deadline: float) -> Found | None:
        if way.failure is not None:
            self._telemetry.again(*way.failure, deployment)
        try:
            attempt, patient = way.attempt(deployment), way.besides(deployment) is None
            result = await self._attempts.make(attempt, deadline, patient=patient)
        except ParacleError as error:
            way.failed(deployment, error)
            return None
        match result:
            case Answered():
                return Found(result, way.sent + 1)
            case Full(what, after_s):
                way.put_off(deployment, RateLimited(f"{deployment.name}: {what}", retry_after_s=after_s))
            case Resting(reason):
                way.put_off(deployment, reason, resting=True)
            case unreachable:
                assert_never(unreachable)
        return None


class _Way:
    """How far one call is."""

    def __init__(
        self,
        plan: Plan,
        request: Complete,
        context: Context,
        order: Sequence[Deployment],
        draw: Callable[[], float],
    ) -> None:
        self.sent = 0
        self.failure: tuple[Deployment, ParacleError] | None = None
        self._walk = Walk(order, plan.retry)
        self._request = request
        self._context = context
        self._draw = draw
        self._now = _now()  # when something was known last; not before what was waited for
        self._numbers = 0

    def step(self) -> Step:
        return self._walk.step(self._now)

    def besides(self, deployment: Deployment) -> Deployment | None:
        """Who else can be asked now."""
        return self._walk.besides(deployment, self._now)

    def wait(self, until: float) -> float:
        """Seconds till the time `until`, at which it goes on."""
        seconds, self._now = until - self._now, until
        return seconds

    def attempt(self, deployment: Deployment) -> Attempt:
        """The next attempt; numbers rise, since what a later one streams replaces what an earlier one did."""
        self._numbers += 1
        return Attempt(self._numbers, deployment, self._request, self._context)

    def failed(self, deployment: Deployment, error: ParacleError) -> None:
        self.sent += 1
        self.failure = (deployment, error)
        self._now = max(self._now, _now())
        self._walk.failed(deployment, error, self._now, self._draw())

    def put_off(self, deployment: Deployment, error: ParacleError, *, resting: bool = False) -> None:
        """Nothing was sent; note why."""
        self._now = max(self._now, _now())
        note = self._walk.resting if resting else self._walk.full
        note(deployment, error, self._now, self._draw())


def _now() -> float:
    return asyncio.get_running_loop().time()
