"""Who may use a replica's slots next."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Admission:
    """At most `slots` attempts in the air at once, first come, first served."""

    def __init__(self, slots: int = 512) -> None:
        self._slots = asyncio.Semaphore(slots)

    @asynccontextmanager
    async def slot(self, _tenant: str) -> AsyncIterator[None]:
        """Hold a slot, once there is one."""
        async with self._slots:
            yield
