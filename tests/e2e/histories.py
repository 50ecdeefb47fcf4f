"""What must be true of every history, whatever was killed while it came to be."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from paracle_chassis.testing.eventually import eventually
from paracle_domain.audit import AuditPage, StoredEvent
from paracle_domain.machine import EventRecord

ENDS = frozenset({"run.completed", "run.degraded", "run.failed", "run.cancelled", "run.timed_out"})
TASK_ENDS = frozenset({"task.completed", "task.failed", "task.cancelled", "task.timed_out"})


class Witness(Protocol):
    """Who can be asked: the SDK's client, or a `Desk`."""

    def events(self, run_id: str) -> AsyncIterator[EventRecord]: ...
    async def audit(self, run_id: str, *, after: int = 0) -> AuditPage: ...


async def history(client: Witness, run_id: str) -> list[EventRecord]:
    """All events of a run, as its owner tells them."""
    return [event async for event in client.events(run_id)]


async def audit(client: Witness, run_id: str) -> list[StoredEvent]:
    """All that observability stored of a run and its tasks."""
    found: list[StoredEvent] = []
    cursor = 0
    while True:
        page = await client.audit(run_id, after=cursor)
        found += page.events
        if page.next_cursor is None:
            return found
        cursor = page.next_cursor


async def assert_sound(client: Witness, run_id: str) -> list[EventRecord]:
    """A run that has ended has a whole history, in which nothing was done twice, and so has the audit log."""
    events = await history(client, run_id)
    assert_whole(events, ENDS)
    assert_each_step_once(events)
    await eventually(lambda: _audited(client, run_id, events), within_s=60)
    return events


def assert_whole(events: Sequence[EventRecord], ends: frozenset[str]) -> None:
    """Numbered from 1 without a gap, and ended once, by the last."""
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert [event.type for event in events if event.type in ends] == [events[-1].type]


def assert_each_step_once(events: Sequence[EventRecord]) -> None:
    """No attempt started twice, no step completed twice, no work completed that had not started."""
    started = Counter((event.data["step"], event.data["attempt"]) for event in events if event.type == "step.started")
    completed = Counter(event.data["step"] for event in events if event.type == "step.completed")
    assert all(times == 1 for times in (*started.values(), *completed.values())), (started, completed)
    worked = {event.data["step"] for event in events if event.type == "step.completed" and event.data["attempt"]}
    assert worked <= {step for step, _ in started}


async def _audited(client: Witness, run_id: str, events: Sequence[EventRecord]) -> bool:
    """The audit log holds exactly these events of the run, and whole histories of its tasks."""
    stored = [one.event for one in await audit(client, run_id)]
    of_run = sorted((one for one in stored if one.entity == "run"), key=lambda one: one.seq)
    assert [(one.seq, one.type, one.data) for one in of_run] == [(one.seq, one.type, one.data) for one in events]
    started = [event.data for event in events if event.type == "step.started" and "task_id" in event.data]
    agents = {str(data["task_id"]) for data in started if data["target_kind"] == "agent"}
    tasks: dict[str, list[EventRecord]] = {}
    for one in stored:
        if one.entity == "task":
            tasks.setdefault(one.id, []).append(one)
    # a call of a tool without an effect keeps no history of its own
    assert agents <= set(tasks) <= {str(data["task_id"]) for data in started if data["target_kind"] != "workflow"}
    for of_task in tasks.values():
        of_task.sort(key=lambda one: one.seq)
        assert_whole(of_task, TASK_ENDS)
        turns = [int(str(one.data["turn"])) for one in of_task if one.type == "task.model_replied"]
        assert turns == sorted(set(turns)), turns
    return True
