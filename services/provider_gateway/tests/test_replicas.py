"""Which replicas are alive, as PostgreSQL knows it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from paracle_chassis.postgres import Database, Queries
from paracle_chassis.settings import ServiceSettings
from paracle_chassis.testing.infra import migrated
from paracle_embedded import PostgresServer
from paracle_provider_gateway.adapters.replicas import PostgresReplica

pytestmark = pytest.mark.connected
QUERIES = Queries.load("paracle_provider_gateway")


@pytest.fixture
async def database(postgres_dsn: str) -> AsyncIterator[Database]:
    await migrated(postgres_dsn, "paracle_provider_gateway")
    async with Database(ServiceSettings(postgres_dsn=postgres_dsn), "paracle_provider_gateway") as found:
        yield found


async def test_a_replica_is_there_until_it_goes(database: Database):
    async with PostgresReplica(database.pool, QUERIES, "rep_a"):
        async with PostgresReplica(database.pool, QUERIES, "rep_b") as other:
            before = await _seen(database)
            await other.seen()
            after = await _seen(database)
        assert set(before) == {"rep_a", "rep_b"}
        assert (after["rep_a"], after["rep_b"] > before["rep_b"]) == (before["rep_a"], True)
        assert set(await _seen(database)) == {"rep_a"}
    assert await _seen(database) == {}


async def test_a_replica_can_go_without_postgresql(postgres_server: PostgresServer, caplog: pytest.LogCaptureFixture):
    await migrated(postgres_server.dsn, "paracle_provider_gateway")
    async with Database(ServiceSettings(postgres_dsn=postgres_server.dsn), "paracle_provider_gateway") as found:
        async with PostgresReplica(found.pool, QUERIES, "rep_a"):
            postgres_server.kill()
        assert "could not say" in caplog.text


async def _seen(database: Database):
    return {row["id"]: row["seen_at"] for row in await database.pool.fetch("select * from replicas")}
