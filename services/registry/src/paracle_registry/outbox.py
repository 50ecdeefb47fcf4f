"""The outbox: revisions are committed first and told of afterwards; a crash in between loses no event.

On a single server events are written behind, so a crash of nats-server can take some that it had acknowledged. Nobody
would miss them: a revision is no link of a chain whose end is known. So what was told lately is told again whenever
NATS, or this process, may have been away. Events have deterministic ids; those that did arrive change nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from paracle_registry.ports import Announcer, SpecStore

BATCH: Final = 500
IN_DOUBT: Final = timedelta(minutes=10)


class Outbox:
    """Tells the world of revisions that it may not know yet. `drain` is the round of a `Background`."""

    def __init__(
        self, store: SpecStore, announcer: Announcer, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._store = store
        self._announcer = announcer
        self._clock = clock
        self._in_doubt = True

    def doubt(self) -> None:
        """What was told lately may be lost: the next round tells it again."""
        self._in_doubt = True

    async def drain(self) -> None:
        """Publish all that waits. A crash before the mark publishes again, with the same ids."""
        if self._in_doubt:
            self._in_doubt = False
            try:
                await self._store.mark_unpublished(self._clock() - IN_DOUBT)
            except BaseException:
                self._in_doubt = True
                raise
        while pending := await self._store.unpublished(BATCH):
            await self._announcer.announce(pending)
            await self._store.mark_published(pending)
