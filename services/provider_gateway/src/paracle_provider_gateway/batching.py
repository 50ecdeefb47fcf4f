"""What many want at once is done together: whoever comes while a batch is under way waits for the next.

A lone item goes at once, so nobody waits for company. It is the group commit of databases, one layer above.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence


class Batches[T, R]:
    """Calls `work` with what has come, one batch at a time; each item gets its result, or what the batch raised.

    Whoever gives up waiting takes nothing back: `abandoned` is told of its item and its result. `alone` says of what a
    batch raised whether each of its items is to be tried by itself: one that cannot be done is nobody else's trouble.
    """

    def __init__(
        self,
        work: Callable[[Sequence[T]], Awaitable[Sequence[R]]],
        abandoned: Callable[[T, R | Exception], None],
        alone: Callable[[Exception], bool],
        *,
        most: int = 256,
    ) -> None:
        self._work = work
        self._abandoned = abandoned
        self._alone = alone
        self._most = most
        self._waiting: list[tuple[T, asyncio.Future[R]]] = []
        self._task: asyncio.Task[None] | None = None

    async def add(self, item: T) -> R:
        """The result of `item`."""
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="batches")
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                self._abandoned(item, future.result())  # it came in the moment in which nobody waited any more
            raise

    async def _run(self) -> None:
        try:
            while batch := self._waiting[: self._most]:
                del self._waiting[: self._most]
                await self._do(batch)
        finally:
            self._task = None

    async def _do(self, batch: Sequence[tuple[T, asyncio.Future[R]]]) -> None:
        try:
            results = await self._work([item for item, _ in batch])
        except Exception as error:  # noqa: BLE001  # whoever waits gets it
            if len(batch) > 1 and self._alone(error):
                for one in batch:
                    await self._do([one])
                return
            for item, future in batch:
                if future.cancelled():
                    self._abandoned(item, error)
                else:
                    future.set_exception(error)
        else:
            for (item, future), result in zip(batch, results, strict=True):
                if future.cancelled():
                    self._abandoned(item, result)
                else:
                    future.set_result(result)
