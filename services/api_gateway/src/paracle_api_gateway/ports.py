"""What the API needs besides the bus: to hear that there are news, and to read what tasks say."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from paracle_domain.task.output import Said


class Bells(Protocol):
    """Rings when something was published about a run. It may ring in vain, and it may fail to ring."""

    def watch(self, tenant: str, run_id: str) -> AbstractAsyncContextManager[asyncio.Event]:
        """Within it, the event is set whenever the run has news."""
        ...


@dataclass(frozen=True, slots=True)
class Heard:
    """Something that a task said, and its place in the stream."""

    seq: int
    said: Said


class Outputs(Protocol):
    """What tasks say while they are at work."""

    async def read(self, tenant: str, task_id: str, after: int, limit: int) -> Sequence[Heard]:
        """The first `limit` of what is still there after place `after`; `Unavailable` if that cannot be had now.

        Where the stream was made anew, and so ends before `after`, it is read from its start.
        """
        ...

    def watch(self, tenant: str, task_id: str) -> AbstractAsyncContextManager[tuple[asyncio.Event, asyncio.Event]]:
        """Within it, the first event is set when the task says something, the second when something happens to it."""
        ...
