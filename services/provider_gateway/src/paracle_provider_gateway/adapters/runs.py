"""Runs, as the orchestrator knows them, over the bus."""

from __future__ import annotations

from typing import Final

from paracle_chassis.bus import Bus
from paracle_domain.envelope import Context
from paracle_domain.errors import NotFound
from paracle_domain.run.commands import GetRun, Outputs
from paracle_provider_gateway.adapters.registry import PRINCIPAL

_TIMEOUT_S: Final = 5.0


class BusRuns:
    """`Runs` over the bus."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def has_ended(self, tenant: str, run_id: str) -> bool:
        """See `Runs.has_ended`. A run that is not there, or not any more, has."""
        asked = GetRun(run_id=run_id, parts=0, outputs=Outputs.NONE)
        try:
            view = await self._bus.call(asked, Context(tenant, principal=PRINCIPAL), timeout_s=_TIMEOUT_S)
        except NotFound:
            return True
        return view.run.status.terminal
