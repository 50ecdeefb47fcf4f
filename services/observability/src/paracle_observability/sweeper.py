"""Looks for missing events again and again while the service runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from paracle_chassis.outages import is_outage
from paracle_observability.service import Observability

log = logging.getLogger(__name__)


@asynccontextmanager
async def sweeping(observability: Observability, interval_s: float, quiet_s: float) -> AsyncIterator[None]:
    """Within it, `observability` sweeps every `interval_s` seconds."""
    task = asyncio.get_running_loop().create_task(_sweep_for_ever(observability, interval_s, quiet_s))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _sweep_for_ever(observability: Observability, interval_s: float, quiet_s: float) -> None:
    while True:
        await asyncio.sleep(interval_s)
        try:
            await observability.sweep(quiet_s)
        except Exception as error:  # the next sweep does what this one could not
            if is_outage(error):
                log.warning("cannot sweep now", extra={"error": type(error).__name__})
            else:
                log.exception("a sweep failed")
