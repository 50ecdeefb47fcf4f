"""The contract suites again, against the images and the server configuration that `docker compose up` runs.

`session_nats_url` and `session_postgres_dsn` are the plug-in's own fixtures, here over containers; whatever is built
upon them follows.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest

from paracle_chassis.event_store import ActorTables, EventStore, PostgresEventStore
from paracle_chassis.testing.containers import nats_container, postgres_container
from paracle_chassis.testing.contracts.bus import BusContract, MakeBus
from paracle_chassis.testing.contracts.event_store import DDL, EventStoreContract

NATS_CONFIG = Path(__file__).parents[3] / "deploy" / "nats" / "nats.conf"

pytestmark = [pytest.mark.containers, pytest.mark.connected]


@pytest.fixture(scope="module")
def session_nats_url() -> Iterator[str]:
    """NATS as it is deployed."""
    with nats_container(NATS_CONFIG) as url:
        yield url


@pytest.fixture(scope="module")
def session_postgres_dsn() -> Iterator[str]:
    """PostgreSQL as it is deployed."""
    with postgres_container() as dsn:
        yield dsn


class TestNatsBusInContainer(BusContract):
    @pytest.fixture
    def make(self, serve) -> MakeBus:
        return serve


class TestPostgresEventStoreInContainer(EventStoreContract):
    @pytest.fixture
    async def store(self, postgres_dsn: str) -> AsyncIterator[EventStore]:
        async with asyncpg.create_pool(postgres_dsn, min_size=1, max_size=6) as pool:
            await pool.execute(DDL)
            yield PostgresEventStore(pool, ActorTables("things", "thing_history", {"colour": "text"}))
