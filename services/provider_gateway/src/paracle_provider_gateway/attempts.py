"""One attempt: admitted, opened in the accounts, sent by its deployment's provider, settled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from paracle_domain.errors import Cancelled, ContentRefused, InternalError, ParacleError, RateLimited
from paracle_domain.inference.deltas import Delta
from paracle_domain.inference.embedding import Embed
from paracle_domain.inference.moderation import Moderate
from paracle_domain.inference.request import Complete
from paracle_domain.inference.response import FinishReason
from paracle_provider_gateway.accounts import Accounts, Attempt, Full, Outcome
from paracle_provider_gateway.admission import Admission
from paracle_provider_gateway.counting import credible
from paracle_provider_gateway.faults import ReplyLost
from paracle_provider_gateway.gates import Gate, Gates
from paracle_provider_gateway.health import Health, Leave, Resting
from paracle_provider_gateway.plans import Deployment
from paracle_provider_gateway.ports import Embedder, Judge, Outlet, Reply, Said, Speaker
from paracle_provider_gateway.retelling import WORTH_TELLING_S, tell_of_retry
from paracle_provider_gateway.streaming import StreamReader


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer, whose it is, and when its first piece came (if it was streamed)."""

    reply: Said
    deployment: Deployment
    first_piece_at: float | None


_BUSY: Final = "others have what is left of it just now"

type Made = Answered | Full | Resting
"""A reply, or why nobody was asked for one."""


def busy(deployment: Deployment, full: Full, tenant: str) -> RateLimited:
    """That a limit of `deployment` is used up, as `tenant` is told, who need not know the budgets of others."""
    own = full.budget is None or full.budget[0] == tenant
    return RateLimited(f"{deployment.name}: {full.what if own else _BUSY}", retry_after_s=full.after_s)


class Attempts:
    """Makes attempts: whatever becomes of one that was granted, the accounts and the deployment's health hear of it."""

    def __init__(self, *, admission: Admission, health: Health, accounts: Accounts, outlet: Outlet) -> None:
        self._admission = admission
        self._health = health
        self._accounts = accounts
        self._outlet = outlet
        self._gates = Gates()

    async def make(self, attempt: Attempt, deadline: float, *, patient: bool) -> Made:
        """The reply of the attempt's deployment, or why it was not asked.

        `patient`: wait for a limit that is full, unless that takes till the `deadline`.
        """
        gate = self._gates.at(attempt.deployment.key, attempt.deployment.limits)
        full = await self._once(attempt) if gate is None else gate.full()
        return await self._in_turn(attempt, full, deadline) if patient and isinstance(full, Full) else full

    async def _in_turn(self, attempt: Attempt, full: Full, deadline: float) -> Made:
        turn = self._gates.turn(attempt.deployment.key, full, attempt.deployment.limits)
        telling = asyncio.create_task(self._tell_of_wait(attempt, turn.gate))

        def granted() -> None:
            telling.cancel()
            turn.leave()

        try:
            await turn.enter(attempt.context.tenant, attempt.request.priority)
            while True:
                full = turn.gate.full()
                if _now() + full.after_s >= deadline:
                    return full
                await turn.gate.room()
                result = await self._once(attempt, granted)
                if not isinstance(result, Full):
                    return result
                turn.gate.close(result)
        finally:
            granted()

    async def _tell_of_wait(self, attempt: Attempt, gate: Gate) -> None:
        """Tell whoever watches why a call is not made, once it has waited for long."""
        await asyncio.sleep(WORTH_TELLING_S)
        full = gate.full()
        error = busy(attempt.deployment, full, attempt.context.tenant)
        await tell_of_retry(self._outlet, attempt.request, attempt.context, error, attempt.number - 1, full.after_s)

    async def _once(self, attempt: Attempt, granted: Callable[[], None] | None = None) -> Made:
        await self._admission.enter(attempt.context.tenant, attempt.request.priority)
        try:
            leave = self._health.ask_leave(attempt.deployment)
            return leave if isinstance(leave, Resting) else await self._opened(attempt, leave, granted)
        finally:
            self._admission.leave(attempt.context.tenant)

    async def _opened(self, attempt: Attempt, leave: Leave, granted: Callable[[], None] | None) -> Answered | Full:
        try:
            opening = await self._accounts.open(attempt)
            if isinstance(opening, Full):
                self._health.unused(attempt.deployment, leave)
                return opening
            if granted is not None:
                granted()
            answered = await self._settled(attempt)
        except BaseException as error:  # one that was stopped, too: a probe that nobody hears of would bar all others
            self._health.failed(attempt.deployment, leave, error)
            raise
        self._health.answered(attempt.deployment, leave)
        return answered

    async def _settled(self, attempt: Attempt) -> Answered:
        clock = asyncio.get_running_loop().time
        started = clock()
        reader = self._reader(attempt)
        try:
            answered = await self._in_time(attempt, reader)
        except BaseException as error:  # one that was stopped, too: what it reserved is to be settled
            first_token_s = None if reader is None else _since(started, reader.first_piece_at)
            lost = isinstance(error, ReplyLost)
            self._settle(attempt, Outcome(None, _code(error), clock() - started, first_token_s, lost=lost))
            raise
        now, first = clock(), answered.first_piece_at
        first_token_s = _since(started, first)
        self._settle(attempt, Outcome(answered.reply, None, now - started, first_token_s))
        took = now - started if first_token_s is None else first_token_s
        self._health.latencies.observe(attempt.deployment.key, took, now, streamed=first is not None)
        return answered

    def _settle(self, attempt: Attempt, outcome: Outcome) -> None:
        self._accounts.settle(attempt, outcome)
        self._gates.freed(attempt.deployment.key, attempt.context.tenant)

    async def _in_time(self, attempt: Attempt, reader: StreamReader | None) -> Answered:
        limit = attempt.deployment.timeouts.total_s
        if limit is None or limit >= attempt.request.timeout_s:
            return await self._sent(attempt, reader)
        try:
            async with asyncio.timeout(limit):
                return await self._sent(attempt, reader)
        except TimeoutError as error:
            raise ReplyLost(f"{attempt.deployment.name}: no whole answer within {limit:g} s") from error

    async def _sent(self, attempt: Attempt, reader: StreamReader | None) -> Answered:
        deployment = attempt.deployment
        said = await _said(attempt, reader)
        if reader is None and attempt.first_word is not None:
            attempt.first_word()
        if isinstance(said, Reply) and said.finish_reason is FinishReason.CONTENT_FILTER:
            raise ContentRefused(f"{deployment.name}: the provider's content filter stopped the reply")
        return Answered(credible(said), deployment, None if reader is None else reader.first_piece_at)

    def _reader(self, attempt: Attempt) -> StreamReader | None:
        """What reads the reply, if it is to be streamed."""
        request = attempt.request
        if not isinstance(request, Complete) or (task_id := request.stream_to) is None:
            return None

        held_back = request.guarded("output")

        async def send(delta: Delta) -> None:
            if not held_back:
                await self._outlet.publish(task_id, delta, attempt.context)

        number = request.attempts_before + attempt.number
        return StreamReader(request.call_id, number, send, attempt.deployment.timeouts, attempt.first_word)


async def _said(attempt: Attempt, reader: StreamReader | None) -> Said:
    """What the provider says; read by `reader`, if there is one."""
    provider, model = attempt.deployment.provider, attempt.deployment.model
    match attempt.request:
        case Embed() as request:
            assert isinstance(provider, Embedder), "others are not in its plan"
            return await provider.embed(model, request)
        case Moderate() as request:
            assert isinstance(provider, Judge), "others are not in its plan"
            return await provider.judge(model, request)
        case Complete() as request:
            assert isinstance(provider, Speaker), "others are not in its plan"
            if reader is None:
                return await provider.ask(model, request)
            return await reader.read(provider.name, provider.stream(model, request))


def _since(started: float, moment: float | None) -> float | None:
    return None if moment is None else moment - started


def _now() -> float:
    return asyncio.get_running_loop().time()


def _code(error: BaseException) -> str:
    match error:
        case ParacleError():
            return error.code
        case asyncio.CancelledError():
            return Cancelled.code
        case _:
            return InternalError.code
