"""Dead letters that runs wait for, in memory."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from paracle_chassis.event_store import EventStore, Wake
from paracle_domain.run.commands import Stuck
from paracle_orchestrator.ports import Mark


class StuckInMemory:
    """`StuckIndex` in a dictionary, beside the store that knows the runs."""

    def __init__(self, store: EventStore) -> None:
        self._store = store
        self._marks: dict[tuple[str, str], Mark] = {}
        self._released: set[tuple[str, str]] = set()

    async def mark(self, marks: Sequence[Mark]) -> list[Mark]:
        """See `StuckIndex.mark`."""
        loaded = await self._store.load({mark.run_id for mark in marks})
        for mark in marks:
            key, run = (mark.tenant, mark.dead_letter), loaded.get(mark.run_id)
            if run is None or run.tenant != mark.tenant or run.finished_at is not None:
                continue
            if key in self._marks or key in self._released:
                continue
            self._marks[key] = mark
            if mark.stops_ticks:
                await self._store.reschedule([Wake(run.id, run.version, None)])
        found = {(mark.tenant, mark.dead_letter): None for mark in marks}
        return [self._marks[key] for key in found if key in self._marks]

    async def release(self, letters: Sequence[tuple[str, str, str]], now: datetime) -> list[Mark]:
        """See `StuckIndex.release`."""
        found = []
        for tenant, run_id, letter in letters:
            self._released.add((tenant, letter))
            mark = self._marks.get((tenant, letter))
            if mark is not None and mark.run_id == run_id:
                found.append(self._marks.pop((tenant, letter)))
        loaded = await self._store.load({mark.run_id for mark in found if mark.stops_ticks})
        waiting = [run for run in loaded.values() if run.wake_at is None and run.finished_at is None]
        await self._store.reschedule([Wake(run.id, run.version, now) for run in waiting])
        return found

    async def of(self, tenant: str, run_ids: Sequence[str]) -> dict[str, Stuck]:
        """See `StuckIndex.of`."""
        loaded = await self._store.load(run_ids)
        going_on = {name for name, run in loaded.items() if run.finished_at is None}
        found: dict[str, Stuck] = {}
        for mark in sorted(self._marks.values(), key=lambda mark: (mark.since, mark.dead_letter)):
            if mark.tenant != tenant or mark.run_id not in going_on:
                continue
            first = found.get(mark.run_id)
            if first is None:
                found[mark.run_id] = Stuck(dead_letter=mark.dead_letter, code=mark.code, since=mark.since)
            else:
                found[mark.run_id] = first.model_copy(update={"letters": first.letters + 1})
        return found
