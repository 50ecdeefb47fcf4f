"""What many want at once is done together: whoever comes while a batch is under way waits for the next.

A lone item goes at once, so nobody waits for company. It is the group commit of databases, one layer above.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence


class Batches[T, R]:
    """Turns single calls into calls of `work`, one batch at a time.

    Parameters
    ----------
    work
        Answers each item of a batch, in order.
    abandoned
        Whoever gives up waiting takes nothing back: this is told of its item, and what that came to.
    alone
        Says of what a batch raised whether each of its items is to be tried by itself, for which one that cannot be
        done is nobody else's trouble.
    most
        Items of a batch.
    """

    def __init__(
        self,
        work: Callable[[Sequence[T]], Awaitable[Sequence[R]]],
        *,
        abandoned: Callable[[T, R | Exception], None] | None = None,
        alone: Callable[[Exception], bool] | None = None,
        most: int = 500,
    ) -> None:
        self._work = work
        self._abandoned = abandoned
        self._alone = alone
        self._most = most
        self._waiting: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._task: asyncio.Task[None] | None = None

    async def __call__(self, item: T) -> R:
        """The answer for `item`; what its batch raised is raised to everyone in it."""
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="batches")
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                self._abandon(item, future.result())  # it came in the moment in which nobody waited any more
            raise

    async def _run(self) -> None:
        try:
            while self._waiting:
                await self._do([self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))])
        finally:
            self._task = None

    async def _do(self, batch: Sequence[tuple[T, asyncio.Future[R]]]) -> None:
        try:
            results = await self._work([item for item, _ in batch])
        except Exception as error:  # noqa: BLE001  # whoever waits gets it
            if len(batch) > 1 and self._alone is not None and self._alone(error):
                for one in batch:
                    await self._do([one])
                return
            for item, future in batch:
                if future.cancelled():
                    self._abandon(item, error)
                else:
                    future.set_exception(error)
        else:
            for (item, future), result in zip(batch, results, strict=True):
                if future.cancelled():
                    self._abandon(item, result)
                else:
                    future.set_result(result)

    def _abandon(self, item: T, result: R | Exception) -> None:
        if self._abandoned is not None:
            self._abandoned(item, result)
