"""The orchestrator's ports on PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from paracle_chassis import migrations
from paracle_chassis.event_store import Append, Page, PostgresEventStore
from paracle_chassis.postgres import Queries, create_pool
from paracle_chassis.settings import ServiceSettings
from paracle_domain.errors import InvalidInput
from paracle_domain.ids import new_id
from paracle_domain.run.commands import ListRuns, RunStatus, RunSummary
from paracle_orchestrator.adapters.postgres import RUN_TABLES, PostgresPlanStore, PostgresRunIndex

pytestmark = pytest.mark.connected
AT = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
async def pool(postgres_dsn: str) -> AsyncIterator[Any]:
    async with create_pool(ServiceSettings(postgres_dsn=postgres_dsn)) as pool:
        async with pool.acquire() as connection:
            await migrations.migrate(connection, migrations.load("paracle_orchestrator"))
        yield pool


async def put_runs(
    pool: Any, number: int, *, workflow: str = "w", tenant: str = "acme", status: str = "running"
) -> list[str]:
    """Runs a second apart, oldest first."""
    store = PostgresEventStore(pool, RUN_TABLES)
    ids = [new_id("run") for _ in range(number)]
    facts = {
        "workflow": workflow,
        "revision": 1,
        "plan": "p",
        "principal": "ada",
        "request": "r",
        "labels": '{"a":"b"}',
    }
    pages = [Page(1, "c", AT + timedelta(seconds=n), (b'{"type":"x"}',)) for n in range(number)]
    lost = await store.append(
        [Append(name, tenant, 0, (page,), status, facts=facts) for name, page in zip(ids, pages, strict=True)]
    )
    assert not lost
    return ids


async def test_plans_are_kept_once(pool: Any, tools: Any) -> None:
    plans = PostgresPlanStore(pool, Queries.load("paracle_orchestrator"))
    plan = tools.plan_of({"id": "a", "input": {"text": "é\n"}})
    await plans.put("acme", plan)
    await plans.put("acme", plan)
    assert await plans.get("acme", plan.digest) == plan
    assert await plans.get("evil", plan.digest) is None


async def test_runs_are_listed_newest_first_page_by_page(pool: Any) -> None:
    index = PostgresRunIndex(pool, Queries.load("paracle_orchestrator"))
    ids = await put_runs(pool, 5)
    await put_runs(pool, 2, tenant="evil")
    found: list[RunSummary] = []
    cursor = None
    for _ in range(3):
        page = await index.page("acme", ListRuns(limit=2, cursor=cursor))
        found += page.runs
        cursor = page.next_cursor
    assert cursor is None
    assert [run.run_id for run in found] == ids[::-1]
    assert found[-1].labels == {"a": "b"}


async def test_runs_are_filtered(pool: Any) -> None:
    index = PostgresRunIndex(pool, Queries.load("paracle_orchestrator"))
    await put_runs(pool, 2)
    (other,) = await put_runs(pool, 1, workflow="other", status="completed")
    for query in (ListRuns(workflow="other"), ListRuns(status=RunStatus.COMPLETED)):
        assert [run.run_id for run in (await index.page("acme", query)).runs] == [other]
    assert (await index.page("acme", ListRuns(workflow="nope"))).runs == ()


@pytest.mark.parametrize("cursor", ["x", "eA==", "é"])
async def test_a_made_up_cursor_is_refused(pool: Any, cursor: str) -> None:
    index = PostgresRunIndex(pool, Queries.load("paracle_orchestrator"))
    with pytest.raises(InvalidInput, match="is no cursor"):
        await index.page("acme", ListRuns(cursor=cursor))
