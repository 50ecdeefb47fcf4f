"""Runs as a store is told of them when they begin."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from paracle_chassis.event_store import Append, EventStore, Page
from paracle_domain.ids import new_id
from paracle_orchestrator.adapters.postgres import RUN_TABLES

AT = datetime(2026, 1, 1, tzinfo=UTC)
FACTS = {
    **dict.fromkeys(RUN_TABLES.facts),
    "workflow": "w",
    "revision": 1,
    "plan": "p",
    "principal": "ada",
    "request": "r",
    "labels": "{}",
    "priority": 0,
    "waits": False,
}


def begun(number: int, *, tenant: str = "acme", status: str = "running", **facts: Any) -> Append:
    """A run that began `number` seconds after `AT`."""
    page = Page(1, "c", AT + timedelta(seconds=number), (b'{"type":"x"}',))
    return Append(new_id("run"), tenant, 0, (page,), status, facts=FACTS | facts)


async def put(store: EventStore, runs: Sequence[Append]) -> list[str]:
    assert not await store.append(runs)
    return [run.id for run in runs]
