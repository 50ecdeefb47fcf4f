"""The queue of runs that wait for a slot, within the test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from paracle_chassis.event_store import Loaded
from paracle_chassis.testing.memory_store import MemoryEventStore
from paracle_domain.run.commands import QueuePlace
from paracle_orchestrator.admission import Limits, Running, Scope, Waiting, choose, locked_out

TAKEN = {"running", "paused", "cancelling"}


class QueueInMemory:
    """A `RunQueue` over a store in memory. Claims are the replicas', so they share `slots`."""

    def __init__(self, store: MemoryEventStore, slots: set[str] | None = None) -> None:
        self._store = store
        self.slots: set[str] = set() if slots is None else slots

    async def claim(self, limits: Limits, most: int) -> int:
        waiting = self._waiting()
        chosen = choose(waiting, self._running(), limits, most)
        if not chosen and (one := locked_out(waiting, self._holders())):
            chosen = [one]
        self.slots |= {one.id for one in chosen}
        return len(chosen)

    async def claimed(self, most: int, but: Collection[str] = ()) -> list[tuple[str, str]]:
        return [(run.id, run.tenant) for run in self._queued() if run.id in self.slots and run.id not in but][:most]

    async def place(self, tenant: str, run_id: str, limits: Limits) -> QueuePlace | None:
        one = next((_waiting(run) for run in self._queued() if (run.id, run.tenant) == (run_id, tenant)), None)
        if one is None:
            return None
        line = [other for other in self._waiting() if (other.scope, other.child) == (one.scope, one.child)]
        running = self._running()
        return QueuePlace(
            ahead=sum(other.place < one.place for other in line),
            workflow_running=running.workflows.get(one.scope, 0),
            workflow_limit=one.max_runs,
            tenant_running=running.tenants.get(tenant, 0),
            tenant_limit=None if one.child else limits.tenant(tenant),
        )

    def _queued(self) -> list[Loaded]:
        return [run for run in self._store.actors.values() if run.status == "queued"]

    def _waiting(self) -> list[Waiting]:
        return [_waiting(run) for run in self._queued() if run.id not in self.slots]

    def _with_slots(self) -> list[Loaded]:
        runs = self._store.actors.values()
        has = [run for run in runs if run.id in self.slots or not run.facts["waits"]]
        return [run for run in has if run.status in TAKEN or run.status == "queued"]

    def _holders(self) -> dict[Scope, list[set[Scope]]]:
        found: dict[Scope, list[set[Scope]]] = {}
        for run in self._with_slots():
            below = {one.scope for one in self._waiting() if run.id in self._above(one.id)}
            found.setdefault((run.tenant, run.facts["workflow"]), []).append(below)
        return found

    def _above(self, run_id: str) -> list[str]:
        parent = self._store.actors[run_id].facts["parent"]
        return [] if parent is None else [parent, *self._above(parent)]

    def _running(self) -> Running:
        runs = self._with_slots()
        return Running(
            Counter((run.tenant, run.facts["workflow"]) for run in runs),
            Counter(run.tenant for run in runs if run.facts["parent"] is None),
        )


def _waiting(run: Loaded) -> Waiting:
    facts = run.facts
    return Waiting(
        run.id,
        run.tenant,
        facts["workflow"],
        facts["priority"],
        run.created_at,
        facts["max_runs"],
        facts["parent"] is not None,
    )
