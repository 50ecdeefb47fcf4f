"""The outbox: revisions are committed first and told of afterwards; a crash in between loses no event."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

from paracle_chassis.outages import is_outage
from paracle_registry.ports import Announcer, SpecStore

log = logging.getLogger(__name__)

BATCH: Final = 500


class Outbox:
    """Tells the world of revisions that it may not know yet."""

    def __init__(self, store: SpecStore, announcer: Announcer) -> None:
        self._store = store
        self._announcer = announcer
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """There is something new."""
        self._woken.set()

    async def drain(self) -> int:
        """Publish all that waits; how much that was. A crash before the mark publishes again, with the same ids."""
        told = 0
        while pending := await self._store.unpublished(BATCH):
            await self._announcer.announce(pending)
            await self._store.mark_published(pending)
            told += len(pending)
        return told

    @asynccontextmanager
    async def running(self, interval_s: float) -> AsyncIterator[None]:
        """Within it the outbox drains: at once, whenever it is woken, and every `interval_s` seconds."""
        task = asyncio.get_running_loop().create_task(self._drain_for_ever(interval_s))
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _drain_for_ever(self, interval_s: float) -> None:
        while True:
            self._woken.clear()
            try:
                await self.drain()
            except Exception as error:  # the revisions are kept; the next round tells of them
                if is_outage(error):
                    log.warning("events of new revisions wait", extra={"error": type(error).__name__})
                else:
                    log.exception("the outbox could not be drained")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), interval_s)
