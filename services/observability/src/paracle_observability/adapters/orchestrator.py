"""The truth about runs, asked of the orchestrator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from paracle_chassis.bus import Bus
from paracle_domain.envelope import Context
from paracle_domain.machine import EventRecord
from paracle_domain.run.commands import GetRunEvents

_PAGE: Final = 1_000
_PRINCIPAL: Final = "service:observability"


class OrchestratorRuns:
    """A `RunHistory` over the bus."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def after(self, tenant: str, run_id: str, seq: int) -> tuple[Sequence[EventRecord], bool]:
        """See `RunHistory.after`."""
        question = GetRunEvents(run_id=run_id, after=seq, limit=_PAGE)
        answer = await self._bus.call(question, Context(tenant=tenant, principal=_PRINCIPAL), timeout_s=10)
        return answer.events, len(answer.events) == _PAGE
