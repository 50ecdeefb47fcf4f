"""Walks a plan till a deployment answers, or nothing more can be hoped for within the call's time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import assert_never

from paracle_domain.envelope import Context
from paracle_domain.errors import BudgetExceeded, ParacleError
from paracle_domain.inference.embedding import ModelCall
from paracle_provider_gateway.accounts import Attempt, Full
from paracle_provider_gateway.attempts import Answered, Attempts, Made, busy
from paracle_provider_gateway.choice import Choice
from paracle_provider_gateway.health import Resting
from paracle_provider_gateway.hedging import Race
from paracle_provider_gateway.plans import Deployment, Plan
from paracle_provider_gateway.ports import Outlet
from paracle_provider_gateway.retelling import WORTH_TELLING_S, tell_of_retry
from paracle_provider_gateway.telemetry import Telemetry
from paracle_provider_gateway.walk import Ask, GiveUp, Step, Wait, Walk


@dataclass(frozen=True, slots=True)
class Found:
    """The first reply, and how many requests were sent for it."""

    answered: Answered
    attempts: int


@dataclass(slots=True)
class Tried:
    """How far a call is: how many attempts have a number, and how many requests were sent."""

    numbered: int = 0
    sent: int = 0


class Persistence:
    """Gets an answer of a plan.

    `sleep` and `draw` (from [0, 1)) are the waits and the jitter of retries.
    """

    def __init__(
        self,
        choice: Choice,
        attempts: Attempts,
        telemetry: Telemetry,
        outlet: Outlet,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._choice = choice
        self._attempts = attempts
        self._telemetry = telemetry
        self._outlet = outlet
        self._sleep = sleep
        self._draw = draw

    async def answer(
        self, plan: Plan, request: ModelCall, context: Context, deadline: float, tried: Tried | None = None
    ) -> Found:
        """The first reply.

        `deadline` is a time of the running event loop. A wait that would end after it is not begun: the error is raised
        at once, with its `retry_after_s`, so that the caller can do something better with the time. What is tried is
        counted in `tried`, for who has to know it though all of it failed.
        """
        order = self._choice.order(plan, request, _now())
        way = _Way(plan, request, context, order, self._draw, Tried() if tried is None else tried)
        while True:
            match way.step():
                case Ask(deployment):
                    if (answered := await self._ask(way, deployment, deadline)) is not None:
                        return Found(answered, way.tried.sent)
                case Wait(until, error) if until < deadline:
                    seconds = way.wait(until)
                    if seconds >= WORTH_TELLING_S:
                        await tell_of_retry(self._outlet, request, context, error, way.tried.sent, seconds)
                    await self._sleep(seconds)
                case Wait(_, error) | GiveUp(error):
                    raise error
                case unreachable:
                    assert_never(unreachable)

    async def _ask(self, way: _Way, deployment: Deployment, deadline: float) -> Answered | None:
        if way.failure is not None:
            self._telemetry.again(*way.failure, deployment)
        patient = way.besides(deployment) is None
        if not patient and way.plan.hedge_after_s is not None and way.left > 1:
            return await self._raced(way, deployment, deadline, way.plan.hedge_after_s)
        try:
            made = await self._attempts.make(way.attempt(deployment), deadline, patient=patient)
        except ParacleError as error:
            return way.ended(deployment, error)
        return way.ended(deployment, made)

    async def _raced(self, way: _Way, deployment: Deployment, deadline: float, hedge_after_s: float) -> Answered | None:
        """As `_ask`, with a second attempt besides if the first is silent for too long."""
        race = Race[Made]()

        def enter(one: Deployment) -> None:
            race.enter(one, self._attempts.make(way.attempt(one, race.first_word), deadline, patient=False))

        try:
            enter(deployment)
            if await race.open_for(hedge_after_s) and (other := way.besides(deployment)) is not None:
                self._telemetry.hedged(deployment, other)
                enter(other)
            made = [way.ended(one, result) for one, result in await race.ended()]
        finally:
            await race.close()
        return next((answered for answered in made if answered is not None), None)


class _Way:
    """How far one call is."""

    def __init__(
        self,
        plan: Plan,
        request: ModelCall,
        context: Context,
        order: Sequence[Deployment],
        draw: Callable[[], float],
        tried: Tried,
    ) -> None:
        self.plan = plan
        self.tried = tried
        self.failure: tuple[Deployment, ParacleError] | None = None
        self._walk = Walk(order, plan.retry)
        self._request = request
        self._context = context
        self._draw = draw
        self._now = _now()  # when something was known last; not before what was waited for

    def step(self) -> Step:
        return self._walk.step(self._now)

    def besides(self, deployment: Deployment) -> Deployment | None:
        """Who else can be asked now."""
        return self._walk.besides(deployment, self._now)

    @property
    def left(self) -> int:
        """How many requests may still be sent."""
        return self._walk.left

    def wait(self, until: float) -> float:
        """Seconds till the time `until`, at which it goes on."""
        seconds, self._now = until - self._now, until
        return seconds

    def attempt(self, deployment: Deployment, first_word: Callable[[], None] | None = None) -> Attempt:
        """The next attempt; numbers rise, since what a later one streams replaces what an earlier one did."""
        self.tried.numbered += 1
        return Attempt(self.tried.numbered, deployment, self._request, self._context, first_word)

    def ended(self, deployment: Deployment, result: Made | ParacleError | None) -> Answered | None:
        """Note how an attempt ended; `None`: another one won."""
        self._now = max(self._now, _now())
        match result:
            case Answered():
                self.tried.sent += 1
                return result
            case ParacleError():
                self.tried.sent += not isinstance(result, BudgetExceeded)  # which lets nothing be sent
                self.failure = (deployment, result)
                self._walk.failed(deployment, result, self._now, self._draw())
            case Full():
                self._walk.full(deployment, busy(deployment, result, self._context.tenant), self._now, self._draw())
            case Resting(error):
                self._walk.resting(deployment, error, self._now, self._draw())
            case None:
                self.tried.sent += 1
            case unreachable:
                assert_never(unreachable)
        return None


def _now() -> float:
    return asyncio.get_running_loop().time()
