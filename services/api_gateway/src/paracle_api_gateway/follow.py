"""A run's events as they happen, from any cursor and without gaps.

The orchestrator is asked for what follows the cursor, page by page. Between pages a bell tells that there is news; if
it stays silent (a reconnection can swallow its ring) the orchestrator is asked after `poll_s` all the same. Nothing is
buffered: the next page is fetched when the reader has taken the last one, so a slow reader slows nobody but itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from paracle_api_gateway.ports import Bells
from paracle_chassis.bus import Bus
from paracle_domain.envelope import Context
from paracle_domain.errors import ParacleError
from paracle_domain.machine import EventRecord
from paracle_domain.run.commands import GetRunEvents, RunEvents, Stuck

_PAGE: Final = 500
_RETRY_MS: Final = 1_000
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Follower:
    """Follows runs for readers of event streams.

    Attributes
    ----------
    closing
        Set when the server drains: streams end, and readers come back to another replica with their cursor.
    """

    bus: Bus
    bells: Bells
    closing: asyncio.Event
    poll_s: float
    keep_alive_s: float

    async def page(self, call: Context, run_id: str, after: int, limit: int = _PAGE) -> RunEvents:
        """Events after number `after`."""
        return await self.bus.call(GetRunEvents(run_id=run_id, after=after, limit=limit), call)

    async def stream(
        self, call: Context, run_id: str, first: RunEvents, after: int, *, follow: bool
    ) -> AsyncGenerator[bytes]:
        """The run's events after number `after` as server-sent events, of which `first` is the first page.

        It ends with the run, or without `follow` when all that there is has been sent. That the run is stuck, or no
        more, is told in between; it is no event of the run's history, so it has no number to go on from.
        """
        yield f"retry: {_RETRY_MS}\n\n".encode()
        now = asyncio.get_running_loop().time
        spoke = now()
        stuck: Stuck | None = None
        async with self.bells.watch(call.tenant, run_id) as bell:
            page: RunEvents | None = first
            while not self.closing.is_set():
                if page is not None and page.events:
                    yield b"".join(map(frame, page.events))
                    after, spoke = page.events[-1].seq, now()
                elif page is not None and _letter(page.stuck) != _letter(stuck):
                    yield stuck_frame(run_id, stuck, page.stuck)
                    stuck, spoke = page.stuck, now()
                elif now() - spoke >= self.keep_alive_s:
                    yield b": keep-alive\n\n"
                    spoke = now()
                if page is not None and (page.terminal or not (follow or page.events)):
                    return
                if page is None or not page.events:
                    await first_of(self.poll_s, bell, self.closing)
                bell.clear()
                page = await self._try_page(call, run_id, after)

    async def _try_page(self, call: Context, run_id: str, after: int) -> RunEvents | None:
        """The next page, or `None` if it cannot be had now: the stream goes on when it can be."""
        try:
            return await self.page(call, run_id, after)
        except ParacleError as error:
            if not error.retryable:
                raise
            log.warning("cannot fetch events of a followed run now", extra={"run_id": run_id, "error": error.code})
            return None


async def first_of(seconds: float, *events: asyncio.Event) -> None:
    """Wait until one of `events` is set, or for `seconds`."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


def frame(event: EventRecord) -> bytes:
    """`event` as a server-sent event; its JSON holds no line break."""
    return f"id: {event.seq}\nevent: {event.type}\ndata: ".encode() + event.encode() + b"\n\n"


def stuck_frame(run_id: str, before: Stuck | None, now: Stuck | None) -> bytes:
    """That a run waits for a dead letter, or no more, as the orchestrator publishes it; without an id."""
    letter, seq = (now, 1) if now is not None else (before, 2)
    assert letter is not None
    event = EventRecord(
        entity="stuck",
        id=letter.dead_letter,
        seq=seq,
        type="run.stuck" if now is not None else "run.unstuck",
        at=letter.since if now is not None else datetime.now(UTC),
        correlation_id=run_id,
        data={"run_id": run_id, "dead_letter": letter.dead_letter, "code": letter.code},
    )
    return f"event: {event.type}\ndata: ".encode() + event.encode() + b"\n\n"


def _letter(stuck: Stuck | None) -> str | None:
    return None if stuck is None else stuck.dead_letter
