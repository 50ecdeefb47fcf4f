"""What the API needs besides the bus: to hear that a run has news."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from typing import Protocol


class Bells(Protocol):
    """Rings when something was published about a run. It may ring in vain, and it may fail to ring."""

    def watch(self, tenant: str, run_id: str) -> AbstractAsyncContextManager[asyncio.Event]:
        """Within it, the event is set whenever the run has news."""
        ...
