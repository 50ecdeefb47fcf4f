"""Several attempts of which one answers: whoever says its first word first goes on, the others are closed."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from paracle_domain.errors import ParacleError
from paracle_provider_gateway.plans import Deployment


class Race[T]:
    """Attempts that run beside each other. What they spent until they lost is theirs to settle."""

    def __init__(self) -> None:
        self._runners: dict[asyncio.Task[T], Deployment] = {}
        self._winner: asyncio.Task[Any] | None = None
        self._decided = asyncio.Event()

    @property
    def is_open(self) -> bool:
        """Whether all still run, and none has said a word."""
        return self._winner is None and not any(runner.done() for runner in self._runners)

    def enter(self, deployment: Deployment, attempt: Coroutine[Any, Any, T]) -> None:
        """Let one more run."""
        runner = asyncio.create_task(attempt)
        runner.add_done_callback(lambda _: self._decided.set())
        self._runners[runner] = deployment

    def first_word(self) -> None:
        """Told by an attempt before its first word goes out; only the first may go on."""
        me = asyncio.current_task()
        if self._winner is None:
            self._winner = me
            self._decided.set()
            for runner in self._runners:
                if runner is not me:
                    runner.cancel()
        elif self._winner is not me:
            raise asyncio.CancelledError

    async def open_for(self, seconds: float) -> bool:
        """Whether it is still open after so long; at once, if it is not."""
        try:
            async with asyncio.timeout(seconds):
                await self._decided.wait()
        except TimeoutError:
            return self.is_open
        return False

    async def ended(self) -> list[tuple[Deployment, T | ParacleError | None]]:
        """How each ended: with its result, with an error, or as one that lost (`None`)."""
        await asyncio.wait(self._runners)
        return [(deployment, _result(runner)) for runner, deployment in self._runners.items()]

    async def close(self) -> None:
        """Stop whoever still runs."""
        for runner in self._runners:
            runner.cancel()
        await asyncio.gather(*self._runners, return_exceptions=True)


def _result[T](runner: asyncio.Task[T]) -> T | ParacleError | None:
    if runner.cancelled():
        return None
    error = runner.exception()
    if error is None:
        return runner.result()
    if isinstance(error, ParacleError):
        return error
    raise error
