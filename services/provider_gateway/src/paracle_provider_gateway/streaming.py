"""Reads one streamed reply: hands out its deltas while they come, and minds the time between them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final

from paracle_domain.envelope import Context
from paracle_domain.inference.deltas import Change, Delta, EndDelta, build_message, changes_of
from paracle_domain.inference.request import Complete
from paracle_domain.inference.response import Completion
from paracle_provider_gateway.faults import ReplyLost
from paracle_provider_gateway.plans import Timeouts
from paracle_provider_gateway.ports import Closing, Outlet, Piece, Reply, StreamItem

_LATE: Final = 1 / 64
"""By how much of its time a silence may be noticed too late."""


@dataclass(slots=True)
class StreamReader:
    """Folds the stream of one attempt into a `Reply`.

    Attributes
    ----------
    call_id, attempt
        What its deltas are labelled with.
    send
        Takes each delta as soon as it is there.
    first_word
        Called before the first delta is sent, and may stop the attempt.
    first_piece_at
        When the first piece came, in the event loop's time; `None` before that.
    """

    call_id: str
    attempt: int
    send: Callable[[Delta], Awaitable[None]]
    timeouts: Timeouts
    first_word: Callable[[], None] | None = None
    first_piece_at: float | None = None
    _changes: list[tuple[int, Change]] = field(default_factory=list)

    async def read(self, provider: str, items: AsyncGenerator[StreamItem]) -> Reply:
        """The whole reply.

        Raises
        ------
        ReplyLost
            If the stream ends without saying that it is over, or is silent for too long.
        """
        closing: Closing | None = None
        limit, clock = self.timeouts.first_token_s, asyncio.get_running_loop().time
        moved_at = -math.inf
        async with aclosing(items):
            try:
                async with asyncio.timeout(limit) as patience:
                    async for item in items:
                        match item:
                            case Piece():
                                await self._take(item)
                            case Closing():
                                closing = item
                        limit, now = self.timeouts.between_tokens_s, clock()
                        if now >= moved_at + limit * _LATE:  # pieces come many at a time, and a timer is dear
                            moved_at = now
                            patience.reschedule(now + limit * (1 + _LATE))
            except TimeoutError as error:
                raise ReplyLost(f"{provider}: the stream was silent for {limit:g} s") from error
        if closing is None:
            raise ReplyLost(f"{provider}: the reply broke off before its end")
        return Reply(build_message(self._changes), closing.finish_reason, closing.usage, closing.model)

    async def _take(self, piece: Piece) -> None:
        if self.first_piece_at is None:
            if self.first_word is not None:
                self.first_word()
            self.first_piece_at = asyncio.get_running_loop().time()
        seq = len(self._changes)
        self._changes.append((piece.index, piece.change))
        await self.send(
            Delta(call_id=self.call_id, attempt=self.attempt, seq=seq, index=piece.index, change=piece.change)
        )


async def send_whole(outlet: Outlet, task_id: str, request: Complete, answer: Completion, context: Context) -> None:
    """An answer that is there already, for whoever watches it grow: each part as one delta, then the end."""
    number = request.attempts_before + 1
    changes = [*changes_of(answer.message), (0, EndDelta(finish_reason=answer.finish_reason))]
    for seq, (index, change) in enumerate(changes):
        delta = Delta(call_id=request.call_id, attempt=number, seq=seq, index=index, change=change)
        await outlet.publish(task_id, delta, context)
