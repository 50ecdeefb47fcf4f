"""Tests and their servers stand still, and always go on again."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from paracle_chassis.testing import hiccups
from paracle_chassis.testing.eventually import eventually
from paracle_embedded import ProcessRef, spawn, tail

TESTS = """
import signal, subprocess, sys
server = "import signal; print('ready', flush=True); signal.pause()"
subprocess.Popen([sys.executable, "-c", server], start_new_session=True)
signal.pause()
"""
PIDS = re.compile(r"\[(\d+)\]")
SHORT = (0.01, 0.02)
LONG = (600.0, 600.0)
NOTICES = """
import time

def test_that_notices():
    seen = time.monotonic()
    while (now := time.monotonic()) - seen < 0.25:
        seen = now
        time.sleep(0.01)
    raise AssertionError("a moment is missing")
"""


@pytest.fixture
async def tests(tmp_path: Path) -> AsyncIterator[ProcessRef]:
    """A process that stands for tests, with a server below it."""
    ref = spawn([sys.executable, "-c", TESTS], log=tmp_path / "tests")
    server: list[ProcessRef] = []
    try:
        await eventually(lambda: "ready" in tail(tmp_path / "tests"))
        server = ref.descendants()
        yield ref
    finally:
        ref.kill_tree()
        for one in server:
            one.kill_tree()


def beside(tests: ProcessRef) -> list[ProcessRef]:
    """Those who disturb `tests`: the guard, and below it whom it guards."""
    found = [
        ProcessRef.of(one.pid)
        for one in psutil.process_iter(["cmdline"])
        if json.dumps(tests.to_json()) in " ".join(one.info["cmdline"] or ())
    ]
    guards = [ref for ref in found if ref.descendants()]
    return guards + [ref for ref in found if ref.alive and ref not in guards]


def is_stopped(ref: ProcessRef) -> bool:
    return (process := ref.process) is not None and process.status() == psutil.STATUS_STOPPED


async def test_each_of_them_is_stopped_now_and_then_until_the_tests_end(tests: ProcessRef, tmp_path: Path) -> None:
    (server,) = tests.descendants()
    with (tmp_path / "log").open("wb") as log:
        hiccups.start(tests, "1", log, pause_s=SHORT, length_s=SHORT)

    def told(whom: set[str]) -> bool:
        return whom in [set(PIDS.findall(line)) for line in (tmp_path / "log").read_text().splitlines()]

    assert ProcessRef.of(os.getpid()).descendants(lambda one: one.pid in {ref.pid for ref in beside(tests)}) == []
    for whom in ([tests], [server], [tests, server]):
        named = {str(ref.pid) for ref in whom}
        await eventually(partial(told, named))
    tests.kill_tree()
    await eventually(lambda: not beside(tests))
    assert not is_stopped(server)


@pytest.mark.parametrize("seed", ["1", "2", "3", "4"])
@pytest.mark.parametrize("end", ["tests", "disturber"])
async def test_whoever_stands_still_goes_on_if_it_is_killed_or_has_nobody_left(
    tests: ProcessRef, seed: str, end: str, tmp_path: Path
) -> None:
    (server,) = tests.descendants()
    with (tmp_path / "log").open("wb") as log:
        hiccups.start(tests, seed, log, pause_s=SHORT, length_s=LONG)
    await eventually(lambda: is_stopped(tests) or is_stopped(server))
    _, disturber = beside(tests)
    (tests if end == "tests" else disturber).send(signal.SIGKILL)
    await eventually(lambda: not beside(tests))
    await eventually(lambda: not is_stopped(tests))
    await eventually(lambda: not is_stopped(server))
    assert server.alive


async def test_what_the_tests_stop_themselves_stays_stopped(tests: ProcessRef, tmp_path: Path) -> None:
    (server,) = tests.descendants()
    server.send(signal.SIGSTOP)
    with (tmp_path / "log").open("wb") as log:
        hiccups.start(tests, "1", log, pause_s=SHORT, length_s=SHORT)
    await eventually(lambda: (tmp_path / "log").read_text().count(str(server.pid)) > 3)
    assert is_stopped(server)


@pytest.mark.parametrize(("workers", "seed"), [("0", "34"), ("1", "20")])  # whose first hiccup comes soon
def test_a_test_that_fails_says_what_stood_still(workers: str, seed: str, tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(NOTICES, encoding="utf-8")
    options = ["-n", workers, "-p", "paracle_chassis.testing.hiccups", "--hiccups", seed, "-c", os.devnull]
    argv = [sys.executable, "-m", "pytest", *options, "--rootdir", str(tmp_path), str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=100, check=False)
    assert "a moment is missing" in done.stdout, done.stdout + done.stderr
    assert " Hiccups " in done.stdout
    assert re.search(r"^[0-9:.]+ [0-9.]+ s: \w+\S*\[\d+\]$", done.stdout, re.MULTILINE)
