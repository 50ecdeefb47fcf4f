"""The event stores, in memory and on PostgreSQL, against one suite."""

from __future__ import annotations

from datetime import UTC, datetime

import asyncpg
import pytest

from paracle_chassis.event_store import ActorTables, Append, EventStore, Page, PostgresEventStore
from paracle_chassis.postgres import create_pool
from paracle_chassis.settings import ServiceSettings
from paracle_chassis.testing.contracts.event_store import DDL, EventStoreContract
from paracle_chassis.testing.memory_store import MemoryEventStore

THINGS = ActorTables("things", "thing_history", {"colour": "text"})


class TestMemoryEventStore(EventStoreContract):
    @pytest.fixture
    def store(self) -> EventStore:
        return MemoryEventStore()


@pytest.mark.connected
class TestPostgresEventStore(EventStoreContract):
    @pytest.fixture
    async def store(self, postgres_dsn: str):
        async with asyncpg.create_pool(postgres_dsn, min_size=1, max_size=6) as pool:
            await pool.execute(DDL)
            yield PostgresEventStore(pool, THINGS)


@pytest.mark.connected
async def test_what_was_planned_for_an_empty_table_does_not_read_a_full_one(postgres_dsn: str):
    async with create_pool(ServiceSettings(postgres_dsn=postgres_dsn, postgres_pool_size=1)) as pool:
        await pool.execute(DDL)
        store = PostgresEventStore(pool, THINGS)

        async def append(expected: int) -> None:
            page = Page(expected + 1, f"cause{expected}", datetime.now(UTC), (b'{"type":"x"}',))
            new = Append("thing", "acme", expected, (page,), "running", facts={"colour": "red"})
            assert await store.append([new]) == set()

        async def whole_reads() -> int:
            await pool.execute("select pg_stat_force_next_flush()")
            return await pool.fetchval("select seq_scan from pg_stat_user_tables where relname = 'things'")

        before = await whole_reads()
        for expected in range(10):  # from the sixth time on, a plan is kept
            await append(expected)
        assert await whole_reads() == before


@pytest.mark.connected
async def test_an_append_to_a_table_that_has_grown_is_not_planned_each_time(postgres_dsn: str):
    async with create_pool(ServiceSettings(postgres_dsn=postgres_dsn, postgres_pool_size=1)) as pool:
        await pool.execute(DDL)
        await pool.execute(
            "insert into things (id, tenant, version, status, created_at, colour) "
            "select 'thing' || i, 'acme', 1, 'running', now(), 'red' from generate_series(1, 20000) i"
        )
        await pool.execute("analyze things")
        store = PostgresEventStore(pool, THINGS)

        def append(name: str, expected: int) -> Append:
            page = Page(expected + 1, "cause", datetime.now(UTC), (b'{"type":"x"}',))
            return Append(name, "acme", expected, (page,), "running", facts={"colour": "red"})

        for number in range(1, 21):
            assert await store.append([append(f"thing{number}", 1)]) == set()
            assert await store.append([append(f"new{number}", 0)]) == set()
            assert await store.append([append(f"other{number}", 0), append(f"thing{number}", 2)]) == set()
        planned = await pool.fetch(
            "select custom_plans from pg_prepared_statements where statement like $1", "%insert into thing_history%"
        )
        assert [row["custom_plans"] for row in planned] == [5, 5, 5]  # which PostgreSQL always does
