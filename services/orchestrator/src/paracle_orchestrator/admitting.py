"""Gives slots to runs that wait for one, where there are limits. Every replica does; they take turns.

A slot is claimed first, in one transaction that counts what runs, and then the run is told. A replica that dies in
between leaves a claim behind, and whoever comes next tells the run: no slot is lost, and none is given twice.
"""

from __future__ import annotations

import logging
import time
from typing import Final

from paracle_domain.envelope import Context
from paracle_domain.run.commands import QueuePlace
from paracle_domain.run.inbox import Admit
from paracle_orchestrator.admission import Limits
from paracle_orchestrator.host import RunHost
from paracle_orchestrator.mail import Mail
from paracle_orchestrator.ports import RunQueue
from paracle_orchestrator.ticks import PRINCIPAL

LOOK_EVERY_S: Final = 0.25
MOST: Final = 500
_AGAIN_S: Final = 60.0

log = logging.getLogger(__name__)


class Admitter:
    """Admits runs. `round` is for a `Background`, which is woken when a run joins the queue or leaves its slot.

    Runs that cannot be told, because they break, are left in peace for a minute: they would stand before all others.
    """

    def __init__(self, queue: RunQueue, limits: Limits, host: RunHost) -> None:
        self.limits = limits
        self._queue = queue
        self._host = host
        self._broken: dict[str, float] = {}

    async def round(self) -> float:
        """Give away what slots there are; the seconds until the next look."""
        claimed = await self._queue.claim(self.limits, MOST)
        told = await self._tell()
        return 0 if claimed or told == MOST else LOOK_EVERY_S

    async def place(self, tenant: str, run_id: str) -> QueuePlace | None:
        """Where a run stands, if it is queued."""
        return await self._queue.place(tenant, run_id, self.limits)

    async def _tell(self) -> int:
        """Tell every run that has a slot and does not run yet; how many."""
        now = time.monotonic()
        self._broken = {run_id: until for run_id, until in self._broken.items() if until > now}
        runs = await self._queue.claimed(MOST, self._broken.keys())
        handled = await self._host.handle([_admit(run_id, tenant) for run_id, tenant in runs])
        for run_id, error in handled.broken.items():
            self._broken[run_id] = now + _AGAIN_S
            log.error("a run cannot be admitted", extra={"run_id": run_id}, exc_info=error)
        return len(runs) - len(handled.broken)


def _admit(run_id: str, tenant: str) -> Mail:
    return Mail(run_id, f"{run_id}.admit", Admit(), Context(tenant, PRINCIPAL, correlation_id=run_id))
