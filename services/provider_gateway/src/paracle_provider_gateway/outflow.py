"""What attempts came to, on its way into the ledger: behind the answers, in batches, and again if it may be lost.

The ledger does not wait for its disk, so a crash of PostgreSQL can take back its last moments. What was told in those
is kept here, and `tell_again` tells it once more.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Final, Self

from paracle_chassis import outages
from paracle_chassis.portions import portions
from paracle_provider_gateway.ledger import Ending, Ledger, Mode, Settlement

_log = logging.getLogger(__name__)

BATCH: Final = 256
IN_DOUBT_S: Final = 5.0
"""PostgreSQL has on disk what it committed so long ago: it writes behind for less than a second."""
FLUSH_S: Final = 5.0
_KEPT: Final = 20_000
"""More than are told, at the highest rate that was measured, in the 0.6 s that PostgreSQL can lose."""


class Outflow:
    """A resource: takes settlements at any time, and gives them to the ledger one batch after the other."""

    def __init__(self, ledger: Ledger, clock: Callable[[], float]) -> None:
        self._ledger = ledger
        self._clock = clock
        self._waiting: deque[Settlement] = deque()
        self._told: deque[tuple[float, Settlement]] = deque()
        self._in_doubt = False
        self._task: asyncio.Task[None] | None = None

    def add(self, settlements: Iterable[Settlement]) -> None:
        """Tell the ledger of these, soon."""
        self._waiting.extend(settlements)
        if self._task is None and self._waiting:
            self._task = asyncio.create_task(self._run(), name="settle")

    def doubt(self) -> None:
        """What was told lately may be lost, and what is told till `tell_again` may come too early to be of use."""
        self._in_doubt = True

    def forget(self) -> None:
        """Drop what cannot be lost any more."""
        now = self._clock()
        while self._told and (self._is_safe(self._told[0][0], now) or len(self._told) > _KEPT):
            self._told.popleft()

    async def tell_again(self) -> None:
        """Tell all of that once more, and what waits with it: the ledger knows again what it is about.

        Raises
        ------
        Exception
            If the ledger is away again.
        """
        for batch in portions([*(one for _, one in self._told), *self._waiting], BATCH):
            await self._tell_each(batch)
        self._in_doubt = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        """Wait until the ledger has all of it, but not for ever: what it lacks then, other replicas close."""
        if self._task is not None:
            _, late = await asyncio.wait((self._task,), timeout=FLUSH_S)
            for task in late:
                task.cancel()
                _log.warning("%d settlements are not told", len(self._waiting))

    async def _run(self) -> None:
        delays = outages.delays()
        while self._waiting:
            batch = list(islice(self._waiting, BATCH))
            try:
                await self._tell_each(batch)
            except Exception as error:  # noqa: BLE001  # it is an outage, which is waited out
                _log.warning("%d settlements wait for PostgreSQL: %s", len(self._waiting), error)
                await asyncio.sleep(next(delays))
            else:
                for _ in batch:
                    self._waiting.popleft()
                delays = outages.delays()
        self._task = None

    async def _tell_each(self, batch: Sequence[Settlement]) -> None:
        """Tell all of `batch`, but for those that cannot be told; raises what is an outage."""
        try:
            await self._tell(batch)
        except Exception as error:  # whatever one settlement breaks on, the others are to be told
            if outages.is_outage(error) or isinstance(error, TimeoutError):
                raise
            if len(batch) == 1:
                _log.exception("what attempt %s came to cannot be told", batch[0].order.key)
                return
            _log.exception("a batch of settlements failed; each is told by itself")
            for one in batch:
                await self._tell_each([one])

    async def _tell(self, batch: Sequence[Settlement]) -> None:
        cached = [one for one in batch if one.ending is Ending.CACHED]
        if cached:
            await self._ledger.note(cached)
        made = [one for one in batch if one.ending is not Ending.CACHED] if cached else batch
        unknown = [one for one in await self._ledger.settle(made) if one.counted_tokens > 0] if made else []
        if unknown:  # forgotten in a crash: what they hold is opened once more, and settled
            for one in unknown:
                one.order.mode = Mode.AGAIN
            await self._ledger.open([one.order for one in unknown])
            await self._ledger.settle(unknown)
        now = self._clock()
        self._told.extend((now, one) for one in batch)
        self.forget()

    def _is_safe(self, told_at: float, now: float) -> bool:
        return told_at < now - IN_DOUBT_S and not self._in_doubt
