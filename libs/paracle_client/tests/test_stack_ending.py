"""A program that is told to end stops what it started."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from paracle_client.stack import leave_when_told


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_what_was_started_is_stopped(number: signal.Signals, status: int) -> None:
    stopped: list[str] = []

    def told() -> None:
        with ExitStack() as started:
            started.callback(stopped.append, "stack")
            signal.raise_signal(number)

    leave_when_told()
    with pytest.raises(SystemExit) as caught:
        told()
    assert (stopped, caught.value.code) == (["stack"], status)
