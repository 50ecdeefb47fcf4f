"""The event stores, in memory and on PostgreSQL, against one suite."""

from __future__ import annotations

import asyncpg
import pytest

from paracle_chassis.event_store import ActorTables, EventStore, PostgresEventStore
from paracle_chassis.testing.contracts.event_store import EventStoreContract
from paracle_chassis.testing.memory_store import MemoryEventStore

DDL = """
create table things (
    id text primary key, tenant text not null, version int not null, status text not null, wake_at timestamptz,
    created_at timestamptz not null, finished_at timestamptz, colour text not null
);
create table thing_history (
    id text not null, seq int not null, cause text not null, at timestamptz not null, events json not null,
    primary key (id, seq)
);
"""


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
            yield PostgresEventStore(pool, ActorTables("things", "thing_history", {"colour": "text"}))
