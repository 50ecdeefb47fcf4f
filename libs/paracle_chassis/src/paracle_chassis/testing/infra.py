"""Real NATS and PostgreSQL for tests: one server of each a session, a database of its own for each test that asks.

A pytest plug-in: `pytest_plugins = ["paracle_chassis.testing.infra"]` in the root `conftest.py`.

    nats_url          a nats-server of the session, its streams emptied and deleted before each test
    nats_client       a bare connection to it
    open_bus          opens buses on it: `await open_bus("orchestrator")`
    nats_server       a nats-server of the test alone, which it may kill and start again
    postgres_dsn      an empty database of the test alone; `migrated` gives it a service's tables
    postgres_server   a PostgreSQL of the test alone, which it may kill and start again
    settings          ServiceSettings for `nats_url`

Whatever was opened is closed when the test ends, also if it fails: what it left open would be another test's failure.
Servers come from `paracle_embedded`, or from containers if `PARACLE_TEST_BACKEND=containers`.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import nats
import pytest
from nats.aio.client import Client

from paracle_chassis import migrations
from paracle_chassis.nats_bus import NatsBus
from paracle_chassis.settings import ServiceSettings
from paracle_embedded import NatsServer, PostgresServer

BACKEND: Final = "PARACLE_TEST_BACKEND"
_DRAIN_S: Final = 1.0
_numbers = count(1)

type OpenBus = Callable[..., Awaitable[NatsBus]]


def _containers() -> bool:
    return os.environ.get(BACKEND) == "containers"


@pytest.fixture(scope="session")
def session_nats_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A nats-server with JetStream for the whole session."""
    if _containers():
        from paracle_chassis.testing.containers import nats_container  # noqa: PLC0415  # only this backend needs it

        with nats_container() as url:
            yield url
        return
    with NatsServer(tmp_path_factory.mktemp("nats")) as server:
        yield server.url


@pytest.fixture(scope="session")
def session_postgres_dsn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL for the whole session: the DSN of a role that may create databases and roles."""
    if _containers():
        from paracle_chassis.testing.containers import postgres_container  # noqa: PLC0415  # only this backend needs it

        with postgres_container() as dsn:
            yield dsn
        return
    with PostgresServer(tmp_path_factory.mktemp("postgres")) as server:
        yield server.dsn


@pytest.fixture
async def nats_url(session_nats_url: str) -> str:
    """The session's nats-server, without any stream."""
    async with await nats.connect(session_nats_url) as client:
        jetstream = client.jsm()
        for stream in await jetstream.streams_info():
            assert stream.config.name is not None
            await jetstream.delete_stream(stream.config.name)
    return session_nats_url


@pytest.fixture
async def nats_client(nats_url: str) -> AsyncIterator[Client]:
    """A bare connection to the session's nats-server."""
    async with await nats.connect(nats_url) as client:
        yield client


@pytest.fixture
async def postgres_dsn(session_postgres_dsn: str) -> AsyncIterator[str]:
    """The DSN of a new, empty database; dropped after the test."""
    name = f"test_{os.getpid()}_{next(_numbers)}"
    async with connected(session_postgres_dsn) as admin:
        await admin.execute(f'create database "{name}"')
        yield dsn_of(session_postgres_dsn, name)
        await admin.execute(f'drop database "{name}" with (force)')


def dsn_of(dsn: str, database: str) -> str:
    """`dsn` with another database."""
    return urlunsplit(urlsplit(dsn)._replace(path=f"/{database}"))


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """A bare connection to PostgreSQL."""
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        await connection.close()


async def migrated(dsn: str, package: str) -> None:
    """Give the database at `dsn` the tables of a service."""
    async with connected(dsn) as connection:
        await migrations.migrate(connection, migrations.load(package))


@pytest.fixture
def nats_server(tmp_path: Path) -> Iterator[NatsServer]:
    """A nats-server of this test alone, to kill and start again."""
    with NatsServer(tmp_path / "nats") as server:
        yield server


@pytest.fixture
def postgres_server(tmp_path: Path) -> Iterator[PostgresServer]:
    """A PostgreSQL of this test alone, to kill and start again."""
    with PostgresServer(tmp_path / "postgres") as server:
        yield server


@pytest.fixture
def settings(nats_url: str) -> ServiceSettings:
    """Settings that point at the session's nats-server."""
    return ServiceSettings(nats_url=nats_url)


@pytest.fixture
async def open_bus(settings: ServiceSettings) -> AsyncIterator[OpenBus]:
    """Opens the bus of a service; each is drained and closed after the test, the last one first."""
    async with AsyncExitStack() as opened:

        async def open_one(service: str, settings: ServiceSettings = settings) -> NatsBus:
            bus = NatsBus(service, settings)
            opened.push_async_callback(bus.close)
            await bus.open()
            opened.push_async_callback(bus.drain, _DRAIN_S)
            return bus

        yield open_one
