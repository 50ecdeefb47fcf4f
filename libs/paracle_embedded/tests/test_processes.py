"""Data directories, process references and ports, without a server."""

from __future__ import annotations

import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from paracle_embedded import (
    NatsServer,
    PostgresServer,
    ProcessRef,
    ServerFailed,
    free_port,
    port_is_free,
    spawn,
    tail,
    undivided,
)

SLEEPER = """
import signal, subprocess, sys
worker = "import signal; print('ready', flush=True); signal.pause()"
child = subprocess.Popen([sys.executable, "-c", worker], start_new_session=True)
signal.pause()
"""


def eventually(holds: Callable[[], bool], within_s: float = 20) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_file_in_place_of_the_directory_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(ServerFailed, match=r"cannot use .*file as the data directory of nats-server"):
        NatsServer(tmp_path / "file").start()


def test_a_directory_of_the_other_server_is_refused(tmp_path: Path) -> None:
    (tmp_path / "server.json").write_text('{"kind": "nats-server", "port": 1}', encoding="utf-8")
    with pytest.raises(ServerFailed, match="belongs to 'nats-server', not to 'postgres'"):
        PostgresServer(tmp_path)


def test_a_damaged_state_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "server.json").write_text("{", encoding="utf-8")
    with pytest.raises(ServerFailed, match=r"server\.json cannot be read"):
        NatsServer(tmp_path)


def test_no_port_before_the_first_start(tmp_path: Path) -> None:
    with pytest.raises(ServerFailed, match="no port before its first start"):
        _ = NatsServer(tmp_path).url


@pytest.mark.parametrize("value", ["", "never", "2", "2m\nport: 1"])
def test_a_bad_sync_interval_is_refused(tmp_path: Path, value: str) -> None:
    with pytest.raises(ServerFailed, match="sync_interval"):
        NatsServer(tmp_path, sync_interval=value)


def test_kill_tree_takes_the_descendants_along(tmp_path: Path) -> None:
    ref = spawn([sys.executable, "-c", SLEEPER], log=tmp_path / "log")
    eventually(lambda: "ready" in tail(tmp_path / "log"))
    (child,) = psutil.Process(ref.pid).children()

    ref.kill_tree()

    assert not ref.alive
    assert ref.exit_code == -9
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_a_reference_with_another_start_time_is_not_alive() -> None:
    me = ProcessRef.of(psutil.Process().pid)
    assert me.alive
    assert ProcessRef.from_json(me.to_json()) == me
    assert not ProcessRef(me.pid, me.created - 60).alive


def test_exit_code_and_log_of_a_child(tmp_path: Path) -> None:
    ref = spawn([sys.executable, "-c", "print('out'); raise SystemExit('err')"], log=tmp_path / "sub" / "log")
    assert ref.wait(20)
    assert (ref.alive, ref.exit_code) == (False, 1)
    assert sorted(tail(tmp_path / "sub" / "log").splitlines()) == ["err", "out"]


def test_tail_is_bounded_and_forgiving(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"\xff\n" + b"".join(b"%d\n" % n for n in range(100_000)))
    assert tail(tmp_path / "log", 2) == "99998\n99999"
    assert tail(tmp_path / "absent") == ""


def test_a_port_in_use_is_not_free() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        assert not port_is_free(listener.getsockname()[1])
    assert port_is_free(free_port())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_heard_after_what_belongs_together(number: signal.Signals) -> None:
    seen: list[object] = []
    before = signal.signal(number, lambda *_: seen.append("heard"))
    try:
        with undivided():
            signal.raise_signal(number)
            seen.append("done")
        signal.raise_signal(number)
    finally:
        signal.signal(number, before)
    assert seen == ["done", "heard", "heard"]


def test_an_ignored_signal_stays_ignored_and_other_threads_may_start_things() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with undivided():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
    done: list[bool] = []

    def elsewhere() -> None:
        with undivided():
            done.append(True)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert done == [True]
