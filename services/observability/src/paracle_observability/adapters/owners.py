"""The truth about runs and tasks, asked of the services that own their histories."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from paracle_chassis.bus import Bus
from paracle_domain.envelope import Context
from paracle_domain.histories import Begun, ListRunsBegun, ListTasksBegun
from paracle_domain.machine import EventRecord
from paracle_domain.run.commands import GetRunEvents, RunEvents
from paracle_domain.run.events import RunStarted, StepEmitted
from paracle_domain.run.orders import emitted
from paracle_domain.subjects import EVERYONE
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

    async def begun(self, since: datetime, after: str, until: datetime, limit: int) -> Sequence[Begun]:
        """See `Roster.begun`."""
        question = ListRunsBegun(since=since, after=after, until=until, limit=limit)
        return (await self._bus.call(question, _context(EVERYONE), timeout_s=_TIMEOUT_S)).begun


class OrchestratorEmits:
    """The `History` of what the `emit` steps of a run said: it follows from the run's own."""

    def __init__(self, bus: Bus) -> None:
        self._runs = OrchestratorRuns(bus)

    async def after(self, tenant: str, name: str, seq: int) -> tuple[Sequence[EventRecord], bool]:
        """See `History.after`."""
        found: list[EventRecord] = []
        started: RunStarted | None = None
        last, more = 0, True
        while more:
            records, more = await self._runs.after(tenant, name, last)
            for record in records:
                last = record.seq
                if record.type == RunStarted.type_name:
                    started = RunStarted.model_validate(record.data)
                elif record.type == StepEmitted.type_name and started is not None:
                    found.append(emitted(started, StepEmitted.model_validate(record.data), record.at))
        return [record for record in found if record.seq > seq], False


class RuntimeTasks:
    """The `History` of tasks, over the bus."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def after(self, tenant: str, name: str, seq: int) -> tuple[Sequence[EventRecord], bool]:
        """See `History.after`."""
        question = GetTaskEvents(task_id=name, after=seq, limit=_PAGE)
        answer = await self._bus.call(question, _context(tenant), timeout_s=_TIMEOUT_S)
        return _read(answer)

    async def begun(self, since: datetime, after: str, until: datetime, limit: int) -> Sequence[Begun]:
        """See `Roster.begun`."""
        question = ListTasksBegun(since=since, after=after, until=until, limit=limit)
        return (await self._bus.call(question, _context(EVERYONE), timeout_s=_TIMEOUT_S)).begun


def _context(tenant: str) -> Context:
    return Context(tenant=tenant, principal=_PRINCIPAL)


def _read(answer: RunEvents | TaskEvents) -> tuple[Sequence[EventRecord], bool]:
    return answer.events, bool(answer.events) and not answer.terminal
