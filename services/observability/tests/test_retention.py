"""What is told of an entity goes when its time is over; what is under way, and what is younger, stays."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from observability_samples import OTHER_RUN, RUN, TASK, Event, record, replied

from paracle_chassis.postgres import Queries
from paracle_domain.envelope import PRINCIPAL
from paracle_domain.machine import EventRecord
from paracle_observability.adapters.postgres import PostgresEventLog
from paracle_observability.adapters.retention import PostgresAuditRetention
from paracle_observability.projections import EventRow, spending
from paracle_observability.retention import AuditPurger, Keeping

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("keeping", "keep_s"),
    [
        (Keeping(), None),
        (Keeping(for_s=60), 60),
        (Keeping(for_s=60, of_tenant={"acme": None}), None),
        (Keeping(of_tenant={"acme": 5}), 5),
        (Keeping(of_tenant={"evil": 5}), None),
    ],
)
def test_tenants_may_say_otherwise(keeping: Keeping, keep_s: float | None) -> None:
    expected = None if keep_s is None else NOW - timedelta(seconds=keep_s)
    assert keeping.silent_before("acme", NOW) == expected


class Shelf:
    """So many entities of each tenant."""

    def __init__(self, **entities: int) -> None:
        self.entities = entities

    async def tenants(self) -> list[str]:
        return list(self.entities)

    async def drop(self, tenant: str, before: datetime, most: int) -> int:
        assert before == NOW - timedelta(seconds=60)
        number = min(most, self.entities[tenant])
        self.entities[tenant] -= number
        return number


async def test_rounds_go_on_until_nothing_is_due() -> None:
    shelf = Shelf(acme=250, archive=9)
    purger = AuditPurger(shelf, Keeping(for_s=60, of_tenant={"archive": None}), lambda: NOW, every_s=60)
    assert [await purger.round() < 60 for _ in range(3)] == [True, True, False]
    assert shelf.entities == {"acme": 0, "archive": 9}


@pytest.mark.connected
async def test_entities_go_whole_with_what_they_used_once_they_have_ended(database: Any) -> None:
    queries = Queries.load("paracle_observability")
    log, retention = PostgresEventLog(database.pool, queries), PostgresAuditRetention(database.pool, queries)

    async def store(*records: EventRecord, tenant: str = "default") -> None:
        rows = [
            EventRow.read(told.subject, told.headers[PRINCIPAL], told.body)
            for told in (Event(one, tenant=tenant) for one in records)
        ]
        await log.store(rows, spending(rows)[0])

    await store(record(1), record(2, "run.completed"), replied(1))
    await store(record(1, id=OTHER_RUN, run=OTHER_RUN))
    await store(record(1), record(2, "run.completed"), tenant="evil")
    await log.suspects(0, 10)
    later = datetime.now(UTC) + timedelta(minutes=1)
    assert sorted(await retention.tenants()) == ["default", "evil"]
    assert await retention.drop("default", later - timedelta(hours=1), 10) == 0
    assert await retention.drop("default", later, 10) == 1
    assert await log.of_entity("default", "run", RUN, 0, 10) == []
    assert await log.usage("default", RUN) == []
    assert len(await log.of_entity("default", "run", OTHER_RUN, 0, 10)) == 1
    assert len(await log.of_entity("default", "task", TASK, 0, 10)) == 1
    assert len(await log.of_entity("evil", "run", RUN, 0, 10)) == 2
    assert await retention.drop("default", later, 10) == 0
    for suspect in await log.suspects(0, 10):
        await log.give_up(suspect)
    assert await retention.drop("default", later, 10) == 2
