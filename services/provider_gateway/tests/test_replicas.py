"""Which replicas are alive, as PostgreSQL knows it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import psutil
import pytest

from paracle_chassis.postgres import Database, Queries
from paracle_chassis.settings import ServiceSettings
from paracle_chassis.testing.eventually import eventually
from paracle_chassis.testing.infra import migrated
from paracle_domain.errors import Unavailable
from paracle_embedded import PostgresServer
from paracle_provider_gateway.adapters import replicas
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


@pytest.mark.parametrize("way", ["by the server", "by the client, without a word"])
async def test_a_connection_that_is_gone_is_made_anew_and_what_it_may_mean_is_known(database: Database, way: str):
    pool = Handing(database.pool)
    async with PostgresReplica(pool, QUERIES, "rep_a") as replica:  # type: ignore[arg-type]
        assert not replica.is_in_doubt
        (held,) = pool.handed
        if way == "by the server":
            await database.pool.execute("select pg_terminate_backend($1)", held.get_server_pid())
            await eventually(lambda: _is_over(held))
        else:
            held._protocol.abort()
        before = await _seen(database)
        await replica.seen()
        assert replica.is_in_doubt
        assert (await _seen(database))["rep_a"] > before["rep_a"]
    assert len(pool.handed) == 2
    assert await _seen(database) == {}


async def test_a_connection_that_is_silent_is_given_up_with_the_others_of_its_pool(
    database: Database, monkeypatch: pytest.MonkeyPatch
):
    """As those to a host that died, which nobody closes."""
    pool = Handing(database.pool)
    async with PostgresReplica(pool, QUERIES, "rep_a") as replica:  # type: ignore[arg-type]
        (held,) = pool.handed
        session = psutil.Process(held.get_server_pid())
        session.suspend()
        try:
            with monkeypatch.context() as patched:
                patched.setattr(replicas, "PATIENCE_S", 0.05)
                with pytest.raises(Unavailable, match="silent"):
                    await replica.seen()
            pool.is_silent = True
            with pytest.raises(Unavailable, match="silent"):
                await replica.seen()
            pool.is_silent = False
            await replica.seen()
        finally:
            session.resume()
        assert replica.is_in_doubt
        assert pool.expired == 2
        assert len(pool.handed) == 2


async def test_after_a_crash_nobody_is_steady_who_has_not_said_so(postgres_server: PostgresServer):
    await migrated(postgres_server.dsn, "paracle_provider_gateway")
    async with Database(ServiceSettings(postgres_dsn=postgres_server.dsn), "paracle_provider_gateway") as found:
        async with PostgresReplica(found.pool, QUERIES, "rep_a") as replica:
            assert await _steady(found) == ["rep_a"]
            postgres_server.kill()
            postgres_server.start()
            await eventually(lambda: _has_seen(replica), within_s=30)
            assert replica.is_in_doubt
            assert await _steady(found) == []
            assert set(await _seen(found)) == {"rep_a"}
            replica.is_in_doubt = False
            await replica.seen()
            assert await _steady(found) == ["rep_a"]
        assert await _steady(found) == []


async def _has_seen(replica: PostgresReplica) -> bool:
    try:
        await replica.seen()
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, Unavailable):
        return False
    return True


async def _steady(database: Database) -> list[str]:
    return [row["replica"] for row in await database.pool.fetch("select replica from steady")]


class Handing:
    """A pool that remembers which connections it handed out."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self.handed: list[Any] = []
        self.execute, self.release = pool.execute, pool.release
        self.expired = 0
        self.is_silent = False

    async def acquire(self, **options: Any) -> object:
        if self.is_silent:
            raise TimeoutError
        self.handed.append(await self._pool.acquire(**options))
        return self.handed[-1]

    async def expire_connections(self) -> None:
        self.expired += 1
        await self._pool.expire_connections()


def _is_over(connection: Any) -> bool:
    try:
        return bool(connection.is_closed())
    except asyncpg.InterfaceError:
        return True


async def _seen(database: Database):
    return {row["id"]: row["seen_at"] for row in await database.pool.fetch("select * from replicas")}
