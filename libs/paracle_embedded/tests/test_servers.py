"""The servers: real ones, started, stopped, killed and started again."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import nats
import pytest
from nats.js.api import StreamConfig

from paracle_embedded import NatsServer, PostgresServer, ServerFailed, port_is_free, privileges, tail

pytestmark = pytest.mark.connected


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """One PostgreSQL for the tests that leave it as it was: making a cluster takes a moment."""
    with PostgresServer(tmp_path_factory.mktemp("postgres")) as server:
        yield server
        server.stop()


async def query(server: PostgresServer, sql: str, database: str = "postgres") -> object:
    connection = await asyncpg.connect(server.dsn_of(database))
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


async def test_postgres_keeps_what_was_committed_over_kill_minus_nine(cluster: PostgresServer) -> None:
    await query(cluster, "create table kept (n int)")
    await query(cluster, "insert into kept values (42)")
    port, pid = cluster.port, cluster.pid

    cluster.kill()
    assert not cluster.running
    assert port_is_free(port)
    cluster.start()

    assert (cluster.port, cluster.pid != pid) == (port, True)
    assert await query(cluster, "select n from kept") == 42


async def test_postgres_stops_although_a_client_is_connected(cluster: PostgresServer) -> None:
    cluster.start()
    connection = await asyncpg.connect(cluster.dsn)
    await asyncio.to_thread(cluster.stop)
    assert not cluster.running
    connection.terminate()
    cluster.start()
    assert await query(cluster, "show fsync") == "on"


async def test_postgres_asks_for_the_password(cluster: PostgresServer) -> None:
    cluster.start()
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(cluster.dsn.replace(cluster.password, "guess"))
    assert stat.S_IMODE((cluster.data_dir / "password").stat().st_mode) == 0o600
    assert stat.S_IMODE(cluster.log_path.stat().st_mode) == 0o600


def test_a_second_handle_attaches_and_leaves_it_running(cluster: PostgresServer) -> None:
    cluster.start()
    with PostgresServer(cluster.data_dir) as other:
        assert (other.pid, other.dsn) == (cluster.pid, cluster.dsn)
    assert cluster.running


def test_a_stale_postmaster_file_naming_a_living_process_is_removed(cluster: PostgresServer) -> None:
    cluster.start()
    cluster.kill()
    lock = cluster.data_dir / "data" / "postmaster.pid"
    lines = lock.read_text(encoding="ascii").splitlines()
    lock.write_text("\n".join([str(os.getpid()), *lines[1:]]), encoding="ascii")
    assert cluster.start().running


def test_a_pid_that_somebody_else_has_now_is_never_killed(tmp_path: Path) -> None:
    server = NatsServer(tmp_path)
    server.start()
    server.stop()
    state = (tmp_path / "server.json").read_text(encoding="utf-8")
    (tmp_path / "server.json").write_text(
        state.replace(f'"pid": {server._state["process"]["pid"]}', f'"pid": {os.getpid()}'), encoding="utf-8"
    )
    again = NatsServer(tmp_path)
    assert not again.running
    again.kill()
    again.stop()


def test_a_directory_that_is_no_cluster_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "diary.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(ServerFailed, match="not a PostgreSQL data directory"):
        PostgresServer(tmp_path).start()
    assert (tmp_path / "data" / "diary.txt").read_text(encoding="utf-8") == "mine"


def test_a_cluster_of_another_major_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "PG_VERSION").write_text("16\n", encoding="ascii")
    with pytest.raises(ServerFailed, match="made by PostgreSQL 16, this is 18"):
        PostgresServer(tmp_path).start()


def test_a_broken_cluster_shows_the_end_of_the_log(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o700)
    (tmp_path / "data" / "PG_VERSION").write_text("18\n", encoding="ascii")
    server = PostgresServer(tmp_path)
    with pytest.raises(ServerFailed, match=r"(?s)ended while it started \(exit code 2\).*postgresql\.conf"):
        server.start()
    assert not server.running


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_root_without_user_namespaces_runs_it_as_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(privileges, "_namespaces_permitted", lambda: False)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        with pytest.raises(ServerFailed, match="'nobody' cannot reach"):
            PostgresServer(directory / "unreachable").start()
        directory.chmod(0o755)
        with PostgresServer(directory / "postgres") as server:
            assert server.process is not None
            assert server.process.process is not None
            assert server.process.process.username() == "nobody"
            assert asyncio.run(query(server, "select 1")) == 1
        monkeypatch.undo()
        with PostgresServer(directory / "postgres") as server:
            assert asyncio.run(query(server, "select 2")) == 2


async def test_nats_keeps_acknowledged_messages_over_kill_minus_nine(tmp_path: Path) -> None:
    with NatsServer(tmp_path) as server:
        port = server.port
        async with await nats.connect(server.url) as client:
            await client.jetstream().add_stream(StreamConfig(name="KEPT", subjects=["kept.>"]))
            await client.jetstream().publish("kept.one", b"1")

        server.kill()
        assert not server.running
        server.start()

        assert server.port == port
        async with await nats.connect(server.url) as client:
            info = await client.jetstream().stream_info("KEPT")
        assert info.state.messages == 1


def test_two_at_once_have_ports_and_processes_of_their_own(tmp_path: Path) -> None:
    with NatsServer(tmp_path / "a") as one, NatsServer(tmp_path / "b") as two:
        assert len({one.port, two.port, one.monitoring_url, two.monitoring_url}) == 4
        one.kill()
        assert two.running


def test_a_port_that_was_asked_for_and_is_taken_is_an_error(tmp_path: Path) -> None:
    with NatsServer(tmp_path / "a") as one, pytest.raises(ServerFailed, match=f"port {one.port} .* is taken"):
        NatsServer(tmp_path / "b", port=one.port).start()


def test_a_remembered_port_that_is_taken_meanwhile_is_replaced(tmp_path: Path) -> None:
    first = NatsServer(tmp_path / "a").start()
    port = first.port
    first.stop()
    with NatsServer(tmp_path / "b", port=port), NatsServer(tmp_path / "a") as again:
        assert again.port != port


def test_a_hung_server_fails_with_its_log_and_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = NatsServer(tmp_path, ready_timeout_s=0.2)

    def hangs() -> bool:
        while "Server is ready" not in tail(server.log_path):
            time.sleep(0.01)
        return False

    monkeypatch.setattr(server, "_answers", hangs)
    with pytest.raises(ServerFailed, match=r"(?s)did not answer .* within 0\.2 s.*Server is ready"):
        server.start()
    assert not server.running


def test_a_stopped_process_is_killed_after_the_time_given(tmp_path: Path) -> None:
    server = NatsServer(tmp_path).start()
    assert server.process is not None
    server.process.send(signal.SIGSTOP)
    server.stop(timeout_s=0.1)
    assert not server.running
