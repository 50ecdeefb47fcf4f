"""One attempt: admitted, opened in the accounts, sent by its deployment's provider, settled."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from paracle_domain.errors import Cancelled, ContentRefused, InternalError, ParacleError, RateLimited
from paracle_domain.inference.deltas import Delta
from paracle_domain.inference.response import FinishReason
from paracle_provider_gateway.accounts import Accounts, Attempt, Full, Outcome
from paracle_provider_gateway.admission import Admission
from paracle_provider_gateway.plans import Deployment
from paracle_provider_gateway.ports import Outlet, Reply
from paracle_provider_gateway.streaming import StreamReader


@dataclass(frozen=True, slots=True)
class Answered:
    """A reply, whose it is, and what it took to get it."""

    reply: Reply
    deployment: Deployment
    attempts: int
    first_piece_at: float | None


class Attempts:
    """Makes attempts, one at a time each: whatever becomes of one that was granted, the accounts hear of it."""

    def __init__(self, *, admission: Admission, accounts: Accounts, outlet: Outlet) -> None:
        self._admission = admission
        self._accounts = accounts
        self._outlet = outlet

    async def make(self, attempt: Attempt) -> Answered:
        """The reply of the attempt's deployment."""
        async with self._admission.slot(attempt.context.tenant):
            opening = await self._accounts.open(attempt)
            if isinstance(opening, Full):
                what = f"{attempt.deployment.name}: {opening.what}"
                raise RateLimited(what, retry_after_s=opening.after_s)
            return await self._settled(attempt)

    async def _settled(self, attempt: Attempt) -> Answered:
        clock = asyncio.get_running_loop().time
        started = clock()
        try:
            answered = await self._sent(attempt)
        except BaseException as error:
            self._accounts.settle(attempt, Outcome(None, _code(error), clock() - started))
            raise
        first = answered.first_piece_at
        first_token_s = None if first is None else first - started
        self._accounts.settle(attempt, Outcome(answered.reply, None, clock() - started, first_token_s))
        return answered

    async def _sent(self, attempt: Attempt) -> Answered:
        deployment, request = attempt.deployment, attempt.request
        provider = deployment.provider
        first_piece_at: float | None = None
        if request.stream_to is None:
            reply = await provider.ask(deployment.model, request)
        else:
            reader = self._reader(attempt, request.stream_to)
            items = provider.stream(deployment.model, request)
            reply = await reader.read(provider.name, items)
            first_piece_at = reader.first_piece_at
        if reply.finish_reason is FinishReason.CONTENT_FILTER:
            raise ContentRefused(f"{deployment.name}: the provider's content filter stopped the reply")
        return Answered(reply, deployment, attempt.number, first_piece_at)

    def _reader(self, attempt: Attempt, task_id: str) -> StreamReader:
        async def send(delta: Delta) -> None:
            await self._outlet.publish(task_id, delta, attempt.context)

        return StreamReader(attempt.request.call_id, attempt.number, send, attempt.deployment.timeouts)


def _code(error: BaseException) -> str:
    match error:
        case ParacleError():
            return error.code
        case asyncio.CancelledError():
            return Cancelled.code
        case _:
            return InternalError.code
