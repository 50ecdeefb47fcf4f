"""The list of runs within the test."""

from __future__ import annotations

import json

from paracle_chassis.event_store import Loaded
from paracle_chassis.testing.memory_store import MemoryEventStore
from paracle_domain.run.commands import RunFilter, RunPage, RunStatus, RunSummary


class RunsInMemory:
    """A `RunIndex` over a store in memory: it looks at every run."""

    def __init__(self, store: MemoryEventStore) -> None:
        self._store = store

    async def page(self, tenant: str, wanted: RunFilter, limit: int, cursor: str | None = None) -> RunPage:
        every = sorted(self._store.actors.values(), key=place, reverse=True)
        own = (run for run in every if run.tenant == tenant and meets(run, wanted))
        found = [run for run in own if cursor is None or place(run) < cursor]
        page = found[:limit]
        return RunPage(runs=tuple(map(summary, page)), next_cursor=place(page[-1]) if len(found) > limit else None)

    async def turns_before(self, tenant: str, run_id: str, last: int | None = None) -> list[str]:
        every = list(self._store.actors.values())
        me = next((run for run in every if run.id == run_id and run.tenant == tenant), None)
        if me is None or me.facts["session"] is None:
            return []
        before = every[: every.index(me)]
        same = [run for run in before if run.tenant == tenant and run.facts["session"] == me.facts["session"]]
        turns = [run.id for run in same if run.finished_at is None and run.status != "queued"]
        return turns[-(last or len(turns)) :]


def place(run: Loaded) -> str:
    return f"{run.created_at.isoformat(timespec='microseconds')} {run.id}"


def summary(run: Loaded) -> RunSummary:
    facts = run.facts
    return RunSummary(
        run_id=run.id,
        workflow=facts["workflow"],
        revision=facts["revision"],
        status=RunStatus(run.status),
        created_at=run.created_at,
        finished_at=run.finished_at,
        labels=json.loads(facts["labels"]),
        plan=facts["plan"],
        priority=facts["priority"],
        parent=facts["parent"],
        forked_from=facts["forked_from"],
    )


def meets(run: Loaded, wanted: RunFilter) -> bool:
    """Whether `run` is one of those wanted."""
    facts, at = run.facts, run.created_at
    return (
        wanted.workflow in (None, facts["workflow"])
        and (not wanted.statuses or RunStatus(run.status) in wanted.statuses)
        and wanted.labels.items() <= json.loads(facts["labels"]).items()
        and (wanted.created_after is None or at >= wanted.created_after)
        and (wanted.created_before is None or at < wanted.created_before)
        and wanted.parent in (None, facts["parent"])
    )
