"""Tests on a machine that stands still now and then: `pytest --hiccups SEED` finds those that rely on its going on.

A pytest plug-in. Every few seconds a process beside stops the one that runs the tests, with or without the servers
below it, or one of those alone, as an overloaded machine does, and lets it go on up to three seconds later. The seed
decides when, whom and for how long. What stood still during a test that fails is said in its report.

It ends with the tests. Whoever is stopped then, or when it is killed itself, goes on: a guard sees to that. Nobody but
the tests' process and its descendants is ever touched, and neither are those that a test stops itself.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from random import Random
from typing import IO, Final

import psutil
import pytest

from paracle_embedded import ProcessRef

PAUSE_S: Final = (2.0, 6.0)
LENGTH_S: Final = (0.3, 3.0)
_LOOK_S: Final = 0.05

type Bounds = tuple[float, float]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--hiccups", type=int, metavar="SEED", help="let the tests and their servers stand still at times")


def pytest_configure(config: pytest.Config) -> None:
    seed, worker = config.getoption("hiccups"), getattr(config, "workerinput", {}).get("workerid", "")
    if seed is not None and (worker or not config.getoption("numprocesses", None)):  # who only leads workers runs none
        config.pluginmanager.register(_Reports(f"{seed} {worker}"))


class _Reports:
    """Says of a test that fails what stood still meanwhile."""

    def __init__(self, seed: str) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the session
        self._from = 0
        start(ProcessRef.of(os.getpid()), seed, self._log)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self) -> None:
        self._from = os.fstat(self._log.fileno()).st_size

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        said = os.pread(self._log.fileno(), 1_000_000, self._from).decode()
        if report.failed and said:
            report.sections.append(("Hiccups", said))
        return report

    def pytest_unconfigure(self) -> None:
        self._log.close()


def start(
    tests: ProcessRef, seed: str, log: IO[bytes], *, pause_s: Bounds = PAUSE_S, length_s: Bounds = LENGTH_S
) -> None:
    """Disturb `tests` until it ends; every hiccup is a line in `log`."""
    how = json.dumps([tests.to_json(), seed, pause_s, length_s])
    subprocess.run([sys.executable, "-m", __name__, how], stdin=subprocess.DEVNULL, stdout=log, check=True)


class _Stopped:
    """Who is stopped just now. The guard is told before, so that they go on even if we cannot see to it."""

    def __init__(self, guard: int) -> None:
        self._guard = guard
        self._refs: list[ProcessRef] = []

    def add(self, ref: ProcessRef) -> None:
        with suppress(psutil.NoSuchProcess):
            if (process := ref.process) is not None and process.status() != psutil.STATUS_STOPPED:
                self._refs.append(ref)
                self._tell()
                ref.send(signal.SIGSTOP)

    def go_on(self) -> None:
        _let_go_on(self._refs)
        self._refs.clear()
        self._tell()

    def _tell(self) -> None:
        os.write(self._guard, json.dumps([ref.to_json() for ref in self._refs]).encode() + b"\n")


def _let_go_on(stopped: Sequence[ProcessRef]) -> None:
    for ref in reversed(stopped):  # servers before those that talk to them
        ref.send(signal.SIGCONT)


def _disturb(tests: ProcessRef, chance: Random, pause_s: Bounds, length_s: Bounds, stopped: _Stopped) -> None:
    while _wait(tests, chance.uniform(*pause_s)):
        for_s = chance.uniform(*length_s)
        whom = _pick(tests, chance)
        names = " ".join(f"{_name(ref)}[{ref.pid}]" for ref in whom)
        sys.stdout.write(f"{datetime.now(UTC):%H:%M:%S.%f} {for_s:.1f} s: {names}\n")
        sys.stdout.flush()
        try:
            for ref in whom:
                stopped.add(ref)
            _wait(tests, for_s)
        finally:
            stopped.go_on()


def _pick(tests: ProcessRef, chance: Random) -> list[ProcessRef]:
    """The tests, all of them, one server with what is below it, or any one process below the tests."""
    below = tests.descendants()
    servers = tests.descendants(lambda one: one.ppid() == tests.pid)
    match chance.randrange(4):
        case 1:
            return [tests, *below]
        case 2 if servers:
            server = chance.choice(servers)
            return [server, *server.descendants()]
        case 3 if below:
            return [chance.choice(below)]
        case _:
            return [tests]


def _name(ref: ProcessRef) -> str:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(ref.pid).name()
    return ""


def _wait(tests: ProcessRef, for_s: float) -> bool:
    """Wait while the tests live; whether they still do."""
    until = time.monotonic() + for_s
    while (alive := tests.alive) and time.monotonic() < until:
        time.sleep(_LOOK_S)
    return alive


def _guard(told: int) -> None:
    """Once the other end is closed, let those go on that were stopped last."""
    *_, last = b"[]", *(line for line in os.fdopen(told, "rb") if line.endswith(b"\n"))
    _let_go_on([ProcessRef.from_json(ref) for ref in json.loads(last)])


def main() -> None:
    """Run beside the tests, as nobody's child: they may look at their own."""
    if os.fork():
        return
    os.setsid()
    told, guard = os.pipe()
    if os.fork():
        os.close(guard)
        _guard(told)
    else:
        os.close(told)
        tests, seed, pause_s, length_s = json.loads(sys.argv[1])
        _disturb(ProcessRef.from_json(tests), Random(seed), pause_s, length_s, _Stopped(guard))


if __name__ == "__main__":
    main()
