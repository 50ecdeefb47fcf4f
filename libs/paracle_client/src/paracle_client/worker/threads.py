"""Threads for functions that are no coroutines."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

_log = logging.getLogger(__name__)


class Thread:
    """The thread of one call, if it needs one. Nothing can stop what runs there, so it may outlast its call."""

    def __init__(self, threads: Executor) -> None:
        self._threads = threads
        self._work: asyncio.Future[Any] | None = None

    async def run[R](self, call: Callable[[], R]) -> R:
        """What `call` gives, called there within the present context."""
        run = contextvars.copy_context().run
        work = self._work = asyncio.get_running_loop().run_in_executor(self._threads, run, call)
        return await asyncio.shield(work)

    def afterwards(self, free: Callable[[], None]) -> None:
        """Call `free` once nothing of the call runs any more."""
        if self._work is None or self._work.done():
            free()
        else:
            self._work.add_done_callback(lambda work: self._outlasted(work, free))

    def _outlasted(self, work: asyncio.Future[Any], free: Callable[[], None]) -> None:
        free()
        if not work.cancelled() and (error := work.exception()) is not None:
            _log.warning("a call that nobody waited for any more failed", exc_info=error)
