"""Data directories, process references and ports, without a server."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
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
from paracle_embedded import processes as module

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
    (child,) = ref.descendants()

    ref.kill_tree()

    assert not ref.alive
    assert ref.exit_code == -9
    assert not child.alive
    assert ref.descendants() == []
    assert ref.resident == 0


def test_descendants_that_end_while_they_are_looked_at_are_left_out() -> None:
    begun = [subprocess.Popen(["sleep", "600"]) for _ in range(3)]

    def sleeps(process: psutil.Process) -> bool:
        if process.pid == begun[1].pid:
            begun[1].kill()
            begun[1].wait()
        if process.pid == begun[2].pid:
            begun[2].kill()
            os.waitid(os.P_PID, begun[2].pid, os.WEXITED | os.WNOWAIT)  # ended, and nobody has asked how
        return process.cmdline() == ["sleep", "600"]

    me = ProcessRef.of(os.getpid())
    try:
        eventually(lambda: {one.pid for one in begun} == {one.pid for one in me.descendants(named("sleep"))})
        assert me.resident > 0
        (left,) = me.descendants(sleeps)
        assert left.pid == begun[0].pid
        assert left.alive
    finally:
        for one in begun:
            one.kill()
            one.wait()
    assert not left.alive
    left.send(signal.SIGKILL)


def named(name: str) -> Callable[[psutil.Process], bool]:
    return lambda one: one.name() == name


def test_a_reference_with_another_start_time_is_not_alive() -> None:
    me = ProcessRef.of(psutil.Process().pid)
    assert me.alive
    assert ProcessRef.from_json(me.to_json()) == me
    assert not ProcessRef(me.pid, me.created - 60).alive


def test_a_reference_to_nobody_is_to_one_that_has_ended() -> None:
    brief = subprocess.Popen(["true"])
    brief.wait()
    nobody = ProcessRef.of(brief.pid)
    assert not nobody.alive
    assert nobody.wait(0)
    assert (nobody.descendants(), nobody.resident, nobody.exit_code) == ([], 0, None)
    nobody.kill_tree()


def test_exit_code_and_log_of_a_child(tmp_path: Path) -> None:
    ref = spawn([sys.executable, "-c", "print('out'); raise SystemExit('err')"], log=tmp_path / "sub" / "log")
    assert ref.wait(20)
    assert (ref.alive, ref.exit_code) == (False, 1)
    assert sorted(tail(tmp_path / "sub" / "log").splitlines()) == ["err", "out"]


def test_what_a_process_was_started_with(tmp_path: Path) -> None:
    wait = "import signal; print('up', flush=True); signal.pause()"
    ref = spawn([sys.executable, "-c", wait], log=tmp_path / "log", env={"GIVEN": "x"})
    eventually(lambda: "up" in tail(tmp_path / "log"))
    assert ref.environment is not None
    assert ref.environment["GIVEN"] == "x"
    ref.kill_tree()
    assert ref.environment is None


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


def test_a_port_is_given_to_one_alone_who_can_listen_there(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    for _ in range(2):  # also once a server has gone, until the next one comes
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))
        with socket.create_server(("127.0.0.1", port)), socket.create_connection(("127.0.0.1", port)):
            assert not port_is_free(port)
    kept = list(module._held)
    monkeypatch.setattr(module, "_MOST_HELD", len(kept))
    free_port()
    assert module._held[-2] == kept[-1], "the oldest was let go for the newest"
    assert len(module._held) == len(kept)


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
