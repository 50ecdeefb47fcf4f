"""Migrations, queries and the database as a resource."""

import asyncio
import errno
import socket
import ssl
from pathlib import Path

import pytest

from paracle_chassis import migrations, postgres
from paracle_chassis.migrations import Migration, migrate
from paracle_chassis.outages import is_misconfigured, is_outage
from paracle_chassis.postgres import Database, Queries, create_pool
from paracle_chassis.provision import _connect_postgres
from paracle_chassis.settings import ServiceSettings
from paracle_chassis.testing.eventually import eventually
from paracle_chassis.testing.infra import connected, migrated
from paracle_domain.errors import Conflict, NotFound, Unavailable
from paracle_embedded import PostgresServer

FIRST = Migration(1, "initial", "create table things (name text primary key); insert into things values ('a');")
SECOND = Migration(2, "more", "alter table things add size integer not null default 0;")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "paracle_things"
    (folder / "migrations").mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "migrations" / "001_initial.sql").write_text(FIRST.sql)
    monkeypatch.syspath_prepend(tmp_path)
    return folder


@pytest.fixture
async def connection(postgres_dsn):
    async with connected(postgres_dsn) as found:
        yield found


@pytest.mark.connected
async def test_what_is_missing_is_applied_in_order_and_once(connection):
    assert await migrate(connection, [FIRST]) == [FIRST]
    assert await migrate(connection, [FIRST, SECOND]) == [SECOND]
    assert await migrate(connection, [FIRST, SECOND]) == []
    assert await connection.fetchval("select count(*) from things") == 1


@pytest.mark.connected
async def test_three_starters_at_once_apply_it_once(postgres_dsn):
    async def start() -> list[Migration]:
        async with connected(postgres_dsn) as connection:
            return await migrate(connection, [FIRST, SECOND])

    applied = await asyncio.gather(*(start() for _ in range(3)))
    assert sorted(len(one) for one in applied) == [0, 0, 2]


@pytest.mark.connected
async def test_a_failing_migration_changes_nothing_and_says_which(connection):
    broken = Migration(2, "broken", "alter table things add size integer; select nonsense;")
    with pytest.raises(Conflict, match="002_broken failed and changed nothing"):
        await migrate(connection, [FIRST, broken])
    assert not await connection.fetchval("select to_regclass('things') is not null")


@pytest.mark.connected
async def test_an_edited_migration_and_a_database_from_the_future_are_refused(connection):
    await migrate(connection, [FIRST, SECOND])
    edited = Migration(1, "initial", FIRST.sql + " -- harmless")
    with pytest.raises(Conflict, match=r"001_initial is another one .* deleting its folder, \.paracle; else"):
        await migrate(connection, [edited, SECOND])
    with pytest.raises(Conflict, match=r"does not know; .* deleting its folder"):
        await migrate(connection, [FIRST])


def test_migrations_are_read_without_importing_their_package(package: Path):
    (package / "__init__.py").write_text("raise AssertionError('imported')")
    assert [str(migration) for migration in migrations.load("paracle_things")] == ["001_initial"]


def test_gaps_and_misnamed_files_are_refused(package: Path):
    (package / "migrations" / "003_gap.sql").touch()
    with pytest.raises(Conflict, match="without gaps"):
        migrations.load("paracle_things")
    (package / "migrations" / "three.sql").touch()
    with pytest.raises(Conflict, match=r"three\.sql is no migration"):
        migrations.load("paracle_things")
    with pytest.raises(NotFound, match="paracle_nothing"):
        migrations.load("paracle_nothing")


@pytest.mark.connected
async def test_a_service_refuses_an_old_schema_and_says_what_to_run(postgres_dsn, connection, package):
    settings = ServiceSettings(postgres_dsn=postgres_dsn)
    with pytest.raises(
        Conflict, match=r"lacks 001_initial; run: python -m paracle_chassis\.provision --services things"
    ):
        async with Database(settings, "paracle_things"):
            pass
    await migrate(connection, migrations.load("paracle_things"))
    async with Database(settings, "paracle_things") as database:
        await database.check()
        assert await database.pool.fetchval("select name from things") == "a"


@pytest.mark.connected
async def test_a_database_that_went_away_is_not_ready_and_comes_back(postgres_server: PostgresServer, package):
    await migrated(postgres_server.dsn, "paracle_things")
    async with Database(ServiceSettings(postgres_dsn=postgres_server.dsn), "paracle_things") as database:
        await database.check()
        await asyncio.to_thread(postgres_server.kill)
        with pytest.raises(Unavailable, match="PostgreSQL does not answer"):
            await database.check()
        await asyncio.to_thread(postgres_server.start)

        async def back() -> bool:
            try:
                await database.check()
            except Unavailable:
                return False
            return True

        await eventually(back)


async def test_without_a_server_or_a_dsn_the_reason_is_said(package):
    settings = ServiceSettings(postgres_dsn="postgresql://a:hunter2@127.0.0.1:9/x", connect_timeout_s=0.1)
    with pytest.raises(Unavailable, match="PARACLE_POSTGRES_DSN") as caught:
        async with Database(settings, "paracle_things"):
            pass
    assert "hunter2" not in str(caught.value)
    with pytest.raises(Unavailable, match="PARACLE_POSTGRES_DSN is not set"):
        _ = create_pool(ServiceSettings())


@pytest.mark.parametrize(
    ("named", "why"),
    [
        ("sslmode=verify-full&sslrootcert=/nowhere/root.crt", "No such file or directory"),
        ("sslmode=verify-full&sslrootcert=NOTHING", "no certificate or crl found|PEM"),
        ("sslmode=nonsense", "sslmode"),
    ],
)
async def test_what_is_configured_wrongly_is_not_waited_out(package, tmp_path: Path, named: str, why: str):
    (tmp_path / "nothing").write_text("no certificate")
    dsn = f"postgresql://a:hunter2@127.0.0.1:9/x?{named.replace('NOTHING', str(tmp_path / 'nothing'))}"
    settings = ServiceSettings(postgres_dsn=dsn, connect_timeout_s=3_600)
    with pytest.raises(Unavailable, match=f"no connection to PostgreSQL can be made: .*({why}).*; check") as caught:
        async with Database(settings, "paracle_things"):
            pass
    assert "hunter2" not in str(caught.value)
    with pytest.raises(Unavailable, match=rf"no connection .*({why}).*; check what PARACLE_POSTGRES_ADMIN_DSN says"):
        await _connect_postgres(dsn, patience_s=3_600)


def test_a_socket_that_is_not_there_is_a_server_that_is_not_up():
    gone = FileNotFoundError(errno.ENOENT, "gone")
    assert not is_misconfigured(gone, "postgresql:///x?host=/run/postgresql")
    assert not is_misconfigured(gone, "postgresql://u@%2Frun%2Fpostgresql/x")
    assert is_misconfigured(gone, "postgresql://db/x?sslrootcert=/nowhere")
    assert not is_misconfigured(ssl.SSLEOFError(), "postgresql://db/x")
    assert not is_misconfigured(ConnectionRefusedError(), "postgresql://db/x")
    assert is_misconfigured(PermissionError(), "postgresql:///x?host=/run/postgresql")


async def test_a_pool_says_of_a_file_that_went_away_that_it_did():
    settings = ServiceSettings(postgres_dsn="postgresql://a@127.0.0.1:9/x?sslmode=verify-full&sslrootcert=/nowhere")
    with pytest.raises(Unavailable, match="No such file or directory; check what PARACLE_POSTGRES_DSN says"):
        _ = await create_pool(settings)


async def test_a_server_that_answers_nobody_is_an_outage(monkeypatch: pytest.MonkeyPatch):
    """To Python a connection that is never made is late; a message whose handler meets it must not be taken for bad."""
    monkeypatch.setattr(postgres, "_CONNECT_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = ServiceSettings(postgres_dsn=f"postgresql://a:b@127.0.0.1:{silent.getsockname()[1]}/x")
        with pytest.raises(Unavailable, match="PostgreSQL does not answer: TimeoutError") as caught:
            _ = await create_pool(settings)
    assert is_outage(caught.value)


def test_queries_are_found_by_name():
    queries = Queries.parse(
        "-- A comment.\n-- name: first\nselect 1\n  -- why\n  where true;\n\n--name: second\nselect 2;\n"
    )
    assert list(queries) == ["first", "second"]
    assert queries.first == queries["first"] == "select 1\n  -- why\n  where true;"
    with pytest.raises(AttributeError, match="no statement 'third'; it has first, second"):
        _ = queries.third
    with pytest.raises(ValueError, match="two statements called 'a'"):
        Queries.parse("-- name: a\nselect 1\n-- name: a\nselect 2")
