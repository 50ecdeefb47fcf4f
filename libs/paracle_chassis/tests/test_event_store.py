"""The event stores, in memory and on PostgreSQL, against one suite."""

from __future__ import annotations

import asyncpg
import pytest

from paracle_chassis.event_store import ActorTables, EventStore, PostgresEventStore
from paracle_chassis.testing.contracts.event_store import DDL, EventStoreContract
from paracle_chassis.testing.memory_store import MemoryEventStore


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
