"""Calls that a kept answer will do for, and one request for all that ask the same thing at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol

from paracle_domain.envelope import Context
from paracle_domain.inference.caching import CachePolicy
from paracle_domain.inference.request import Complete
from paracle_domain.inference.response import Completion
from paracle_domain.inference.usage import NOTHING
from paracle_provider_gateway.answer_shelf import AnswerShelf, Era
from paracle_provider_gateway.answers import AnswerKey, KeptAnswer
from paracle_provider_gateway.guards.verdicts import LetOut
from paracle_provider_gateway.plans import Plan
from paracle_provider_gateway.ports import Outlet
from paracle_provider_gateway.questions import is_first_choice, is_whole, question_key
from paracle_provider_gateway.streaming import send_whole
from paracle_provider_gateway.telemetry import CacheResult, Telemetry

_JOINS: Final = 2
"""Calls of others that one waits for, if they come to nothing; then it waits for nobody."""

type Ask = Callable[[], Awaitable[LetOut]]


class Savings(Protocol):
    """Writes down what kept answers spared."""

    def cached(self, request: Complete, context: Context, answer: Completion) -> None:
        """A kept answer did for the call, which costs nothing; it is not waited for."""


@dataclass(frozen=True, slots=True)
class _Known:
    """An answer that others may have, too, and when it was made."""

    completion: Completion
    made_at: float


class Caching:
    """Gives kept answers to calls that allow it, and keeps those that they get.

    Of identical calls of a tenant that are here at once, one leads and the others wait for what it comes to. None of
    them can stop another: who leads and fails, or is stopped, leaves the lead to the next that still waits.
    """

    def __init__(self, shelf: AnswerShelf, savings: Savings, outlet: Outlet, telemetry: Telemetry) -> None:
        self._shelf = shelf
        self._savings = savings
        self._outlet = outlet
        self._telemetry = telemetry
        self._flights: dict[AnswerKey, asyncio.Future[_Known | None]] = {}

    async def answer(
        self, plan: Plan, request: Complete, policy: CachePolicy, context: Context, ask: Ask
    ) -> Completion:
        """A kept answer, that of an identical call, or else what `ask` gives; errors are those of `ask`."""
        call = _Call(plan, request, policy, context, _now())
        for _ in range(_JOINS):
            flight = self._flights.get(call.key)
            if flight is None:
                return await self._lead(call, ask)
            known = await asyncio.shield(flight)  # which is not this call's to stop
            if known is not None and known.made_at >= call.oldest:
                return await self._serve(call, known, CacheResult.JOINED)
        return (await ask()).answer

    async def _lead(self, call: _Call, ask: Ask) -> Completion:
        flight = self._flights[call.key] = asyncio.get_running_loop().create_future()
        era = self._shelf.era(call.key.tenant)
        known: _Known | None = None
        try:
            known = await self._find(call)
            if known is not None:
                return await self._serve(call, known, CacheResult.HIT)
            self._telemetry.missed()
            made = await ask()
            if is_whole(call.request, made.answer):
                known = _Known(made.answer, _now())
                if made.judged and is_first_choice(call.plan, made.answer):
                    self._keep(call, known, era)
            return made.answer
        finally:
            del self._flights[call.key]
            flight.set_result(known)

    async def _find(self, call: _Call) -> _Known | None:
        kept = None if call.policy.fresh else await self._shelf.find(call.key, call.oldest)
        if kept is None:
            return None
        try:
            return _Known(Completion.model_validate_json(kept.body), kept.made_at)
        except ValueError:  # as a gateway of another version keeps it
            return None

    def _keep(self, call: _Call, known: _Known, era: Era) -> None:
        kept = KeptAnswer(known.completion.encode(), known.made_at, known.made_at + call.policy.ttl_s)
        self._shelf.keep(call.key, kept, era)

    async def _serve(self, call: _Call, known: _Known, result: CacheResult) -> Completion:
        given = {
            "usage": NOTHING,
            "saved": known.completion.usage,
            "latency_s": _now() - call.started,
            "first_token_s": None,
            "attempts": 0,
        }
        completion = known.completion.model_copy(update=given)
        if call.request.stream_to is not None:
            await send_whole(self._outlet, call.request.stream_to, call.request, completion, call.context)
        self._savings.cached(call.request, call.context, completion)
        self._telemetry.spared(call.request, completion, result)
        return completion


class _Call:
    """One call: under which key its answer is kept, and when a kept one must have been made at the `oldest`."""

    def __init__(self, plan: Plan, request: Complete, policy: CachePolicy, context: Context, started: float) -> None:
        self.plan = plan
        self.request = request
        self.policy = policy
        self.context = context
        self.started = started
        self.key = AnswerKey(context.tenant, question_key(plan, request, context.principal))
        self.oldest = started if policy.fresh else started - policy.ttl_s


def _now() -> float:
    return asyncio.get_running_loop().time()
