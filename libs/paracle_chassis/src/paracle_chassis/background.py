"""What a service does again and again while it runs, whatever happens to one round of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Final, Self

from paracle_chassis import outages
from paracle_domain.errors import Unavailable

_log = logging.getLogger(__name__)

LATE_S: Final = 60.0
_SOON_S: Final = 0.25
_OFTEN_S: Final = 2.0
_SELDOM_S: Final = 30.0


class Background:
    """Rounds of `work`, one after the other: a resource of the service.

        ticks = Background("ticks", ticker.round, every_s=0.25)
        Service(…, resources=[database, ticks], checks={"ticks": ticks.check})

    Parameters
    ----------
    work
        One round. It may return the seconds until the next one; with `None` those are `every_s`.
    every_s
        Seconds between two rounds. One that failed is repeated sooner, and ever less soon: what is to be done every
        hour must not wait for one because a database was away for a moment.
    late_s
        Seconds without a good round, counted from when it was due, after which `check` fails.
    """

    def __init__(
        self, name: str, work: Callable[[], Awaitable[float | None]], *, every_s: float, late_s: float = LATE_S
    ) -> None:
        self._name = name
        self._work = work
        self._every_s = every_s
        self._late_s = late_s
        self._woken = asyncio.Event()
        self._due_at = 0.0
        self._task: asyncio.Task[None] | None = None

    def wake(self) -> None:
        """There is something to do: the next round is now."""
        self._woken.set()

    async def check(self) -> None:
        """Readiness.

        Raises
        ------
        Unavailable
            If a good round is overdue, because rounds fail or one hangs.
        """
        late = asyncio.get_running_loop().time() - self._due_at
        if late > self._late_s:
            raise Unavailable(f"{self._name}: no round has succeeded for {late:.0f} s; the log says why")

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._due_at = loop.time()
        self._task = loop.create_task(self._run(), name=self._name)
        return self

    async def __aexit__(self, *_exc: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        pauses = self._pauses()
        while True:
            self._woken.clear()
            try:
                asked = await self._work()
            except Exception as error:  # noqa: BLE001  # the next round does what this one could not
                self._tell(error)
                pause = next(pauses)
            else:
                pauses = self._pauses()
                pause = self._every_s if asked is None else asked
                self._due_at = loop.time() + pause
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._woken.wait()

    def _pauses(self) -> Iterator[float]:
        """Seconds after a round that failed, and after those that follow it."""
        pause, longest = min(self._every_s, _SOON_S), min(max(self._every_s, _OFTEN_S), _SELDOM_S)
        while True:
            yield pause
            pause = min(2 * pause, longest)

    def _tell(self, error: Exception) -> None:
        if outages.is_outage(error):
            _log.warning("%s: waiting: %s: %s", self._name, type(error).__name__, error)
        else:
            _log.error("%s: a round failed", self._name, exc_info=error)
