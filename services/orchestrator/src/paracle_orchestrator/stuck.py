"""Runs that are stuck: mail for them could not be handled and lies among the dead letters.

This needs no run's machine or history, since either may be what fails: dead letters of all services are read from their
stream, and a table says which of them are runs'. A run is stuck while it has one there and has not ended. What ends
that is the message `LetterGone`, once the letter is redriven or dropped.

A tick that could not be handled stops the run's ticks: every further one would only be another dead letter. They start
again when the letter is gone, so that nobody loses a run by dropping its letters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from paracle_chassis.bus import Bus, Outgoing
from paracle_chassis.dead_letters import Letter
from paracle_chassis.delivery import Delivery
from paracle_domain import subjects
from paracle_domain.dead_letters import LetterGone
from paracle_domain.envelope import Context, Envelope
from paracle_domain.errors import InternalError
from paracle_domain.machine import EventRecord
from paracle_domain.messages import JsonObject
from paracle_domain.run.commands import RunPage, Stuck
from paracle_orchestrator import telemetry
from paracle_orchestrator.outgoing import SOURCE
from paracle_orchestrator.ports import Clock, Mark, StuckIndex
from paracle_orchestrator.ticks import PRINCIPAL, RunTick

_TOLD: Final = ("result", "task")


@dataclass(frozen=True, slots=True)
class StuckRuns:
    """Which runs are stuck."""

    index: StuckIndex
    bus: Bus
    clock: Clock

    async def mark(self, batch: Sequence[Delivery]) -> None:
        """What was given up: mark the runs that it was for, and tell everyone."""
        marks = [mark for delivery in batch if (mark := mark_of(Letter.read(delivery))) is not None]
        if not marks:
            return
        marked = await self.index.mark(marks)
        telemetry.STUCK.add(len(marked))
        if marked:
            await self.bus.publish([_event(mark, 1, "run.stuck", mark.since) for mark in marked])

    async def release(self, gone: Sequence[tuple[str, LetterGone]]) -> None:
        """These dead letters, each of a tenant's run, are gone: it is not stuck for them any more."""
        now = self.clock()
        released = await self.index.release([(tenant, one.run_id, one.dead_letter) for tenant, one in gone], now)
        if released:
            await self.bus.publish([_event(mark, 2, "run.unstuck", now) for mark in released])

    async def of_run(self, tenant: str, run_id: str) -> Stuck | None:
        """Why that run is stuck, if it is."""
        return (await self.index.of(tenant, [run_id])).get(run_id)

    async def shown(self, tenant: str, page: RunPage) -> RunPage:
        """`page`, with what its runs are stuck for."""
        stuck = await self.index.of(tenant, [run.run_id for run in page.runs if not run.status.terminal])
        if not stuck:
            return page
        runs = (run.model_copy(update={"stuck": stuck.get(run.run_id)}) for run in page.runs)
        return page.model_copy(update={"runs": tuple(runs)})


def mark_of(letter: Letter) -> Mark | None:
    """What `letter` says of a run that waits for it: mail for a run, or a task of one, that nobody took in.

    A command that was refused stops nothing, so of commands only those count that broke whoever read them.
    """
    about = letter.about
    kind = "".join((about.subject or "").split(".")[3:4])  # whatever a letter says its subject is
    counts = kind in _TOLD or (kind == "cmd" and about.code == InternalError.code)
    if about.run_id is None or letter.told or not counts:
        return None
    is_tick = about.type == RunTick.type_name
    return Mark(letter.tenant, about.run_id, about.id, about.code, about.reason, about.at, stops_ticks=is_tick)


def _event(mark: Mark, seq: int, type_name: str, at: datetime) -> Outgoing:
    """An event of its own kind of entity: a run's history is the machine's, and numbered by it."""
    data: JsonObject = {
        "run_id": mark.run_id,
        "dead_letter": mark.dead_letter,
        "code": mark.code,
        "reason": mark.reason,
    }
    record = EventRecord(
        entity="stuck", id=mark.dead_letter, seq=seq, type=type_name, at=at, correlation_id=mark.run_id, data=data
    )
    context = Context(mark.tenant, PRINCIPAL, correlation_id=mark.run_id)
    envelope = Envelope(record.message_id(mark.tenant), type_name, SOURCE, context, at)
    subject = subjects.evt(mark.tenant, "stuck", mark.dead_letter, type_name.replace(".", "_"))
    return Outgoing(subject, record, envelope)
