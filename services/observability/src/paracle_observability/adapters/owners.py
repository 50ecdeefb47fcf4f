"""The truth about runs and tasks, asked of the services that own their histories."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from paracle_chassis.bus import Bus
from paracle_domain.envelope import Context
from paracle_domain.machine import EventRecord
from paracle_domain.run.commands import GetRunEvents, RunEvents
from paracle_domain.task.messages import GetTaskEvents, TaskEvents

_PAGE: Final = 1_000
_TIMEOUT_S: Final = 10.0
_PRINCIPAL: Final = "service:observability"


class OrchestratorRuns:
    """The `History` of runs, over the bus."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def after(self, tenant: str, name: str, seq: int) -> tuple[Sequence[EventRecord], bool]:
        """See `History.after`."""
        question = GetRunEvents(run_id=name, after=seq, limit=_PAGE)
        answer = await self._bus.call(question, _context(tenant), timeout_s=_TIMEOUT_S)
        return _read(answer)


class RuntimeTasks:
    """The `History` of tasks, over the bus."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def after(self, tenant: str, name: str, seq: int) -> tuple[Sequence[EventRecord], bool]:
        """See `History.after`."""
        question = GetTaskEvents(task_id=name, after=seq, limit=_PAGE)
        answer = await self._bus.call(question, _context(tenant), timeout_s=_TIMEOUT_S)
        return _read(answer)


def _context(tenant: str) -> Context:
    return Context(tenant=tenant, principal=_PRINCIPAL)


def _read(answer: RunEvents | TaskEvents) -> tuple[Sequence[EventRecord], bool]:
    return answer.events, bool(answer.events) and not answer.terminal
