"""Tasks go with the runs that they were of."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from paracle_agent_runtime.purging import Purging
from paracle_chassis.bus import Outgoing
from paracle_chassis.routes import Routes
from paracle_chassis.testing.eventually import eventually
from paracle_chassis.testing.memory import MemoryBus
from paracle_domain import subjects
from paracle_domain.envelope import Context, Envelope
from paracle_domain.ids import id_from_key
from paracle_domain.machine import EventRecord
from paracle_domain.run.purge import RunsPurged

ONE, TWO = (id_from_key("run", name) for name in ("one", "two"))
NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Shelf:
    def __init__(self) -> None:
        self.dropped: list[tuple[str, tuple[str, ...]]] = []

    async def drop(self, tenant: str, run_ids: Sequence[str]) -> int:
        self.dropped.append((tenant, tuple(run_ids)))
        return len(run_ids)


def told(name: str, data: Any) -> Outgoing:
    record = EventRecord(entity="purge", id=name, seq=1, type="runs.purged", at=NOW, data=data)
    envelope = Envelope(f"{name}.1", "runs.purged", "test", Context("acme"), NOW)
    return Outgoing(subjects.evt("acme", "purge", name, "runs_purged"), record, envelope)


async def test_the_tasks_of_purged_runs_are_dropped_and_nonsense_is_put_aside() -> None:
    bus, shelf = MemoryBus(), Shelf()
    table = Routes("agent_runtime")
    pattern = f"{subjects.PREFIX}.*.evt.purge.*.runs_purged"
    table.mailbox(stream=subjects.EVENTS, durable="agent_runtime", filter=pattern, handler=Purging(shelf).follow)
    await bus.serve(table)
    purged = RunsPurged(runs=(ONE, TWO), ended_before=NOW.isoformat())
    await bus.publish([told("a", {"runs": ["nonsense"]}), told("b", purged.model_dump(mode="json"))])
    await eventually(lambda: shelf.dropped == [("acme", (ONE, TWO))])
    await eventually(lambda: len(bus.dead) == 1)
    await bus.drain()
