"""Batches without timers: what gathers while one batch is under way is the next one. A lone item never waits."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence


class Batcher[T, R]:
    """Turns single calls into calls of `work`, which answers each item of its list in order."""

    def __init__(self, work: Callable[[Sequence[T]], Awaitable[Sequence[R]]], *, limit: int = 500) -> None:
        self._work = work
        self._limit = limit
        self._waiting: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._running: asyncio.Task[None] | None = None

    async def __call__(self, item: T) -> R:
        """The answer for `item`; an error of its batch is raised to everyone in it."""
        answer: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, answer))
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        return await answer

    async def _run(self) -> None:
        try:
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(self._limit, len(self._waiting)))]
                await self._settle(batch)
        finally:
            self._running = None

    async def _settle(self, batch: Sequence[tuple[T, asyncio.Future[R]]]) -> None:
        try:
            answers = await self._work([item for item, _ in batch])
        except Exception as error:  # noqa: BLE001  # it is raised to everyone who waits
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), answer in zip(batch, answers, strict=True):
            if not future.done():
                future.set_result(answer)
