"""What attempts came to, on its way into the ledger: behind the answers, in batches, and again if it may be lost.

The ledger does not wait for its disk, so a crash of PostgreSQL can take back its last moments. What was told in those
is kept here, and `tell_again` tells it once more.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Self

from paracle_chassis import outages
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
        self._doubts = 0
        self._task: asyncio.Task[None] | None = None

    def add(self, settlements: Iterable[Settlement]) -> None:
        """Tell the ledger of these, soon."""
        self._waiting.extend(settlements)
        if self._task is None and self._waiting:
            self._task = asyncio.create_task(self._run(), name="settle")

    def doubt(self) -> None:
        """What was told lately may be lost, and what is told till `tell_again` may come too early to be of use."""
        self._in_doubt = True

    def tell_again(self) -> None:
        """Tell all of that once more: the ledger knows again what it is about."""
        self._in_doubt = False
        self._doubts += 1
        told = [one for _, one in self._told]
        self._told.clear()
        self.add(told)

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
            batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
            try:
                await self._tell(batch)
            except Exception as error:  # noqa: BLE001  # logged; an outage is waited out
                if outages.is_outage(error) or isinstance(error, TimeoutError):
                    self._waiting.extendleft(reversed(batch))
                    _log.warning("%d settlements wait for PostgreSQL: %s", len(self._waiting), error)
                    await asyncio.sleep(next(delays))
                elif len(batch) > 1:
                    _log.exception("a batch of settlements failed; each is told by itself")
                    await self._one_by_one(batch)
                else:
                    _log.exception("what attempt %s came to cannot be told", batch[0].order.key)
            else:
                delays = outages.delays()
        self._task = None

    async def _one_by_one(self, batch: Sequence[Settlement]) -> None:
        for one in batch:
            try:
                await self._tell([one])
            except Exception:  # noqa: BLE001  # logged; the others are told all the same
                _log.exception("what attempt %s came to cannot be told", one.order.key)

    async def _tell(self, batch: Sequence[Settlement]) -> None:
        doubts = self._doubts
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
        if self._doubts > doubts:
            self._waiting.extend(batch)
        else:
            self._keep(batch)

    def _keep(self, batch: Sequence[Settlement]) -> None:
        """Have it at hand till it is sure that the ledger does not lose it."""
        now = self._clock()
        self._told.extend((now, one) for one in batch)
        while self._told and (self._is_safe(self._told[0][0], now) or len(self._told) > _KEPT):
            self._told.popleft()

    def _is_safe(self, told_at: float, now: float) -> bool:
        return told_at < now - IN_DOUBT_S and not self._in_doubt
