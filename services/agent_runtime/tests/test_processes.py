"""Whoever is ended takes along all that it began."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import psutil
import pytest

from paracle_agent_runtime.tools.sandbox import processes

PARENT = "import subprocess, sys; subprocess.Popen(['sleep', '1000']); print('ready', flush=True); sys.stdin.read()"


def test_a_process_that_one_look_misses_is_ended_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """While it is looked for its parent dies, and it goes to one that was looked at before."""
    look: Callable[..., list[int]] = processes.family
    looks: list[list[int]] = []

    def missing_at_first(pid: int, *, most: int | None = None) -> list[int]:
        looks.append(look(pid, most=most) if looks else [])
        return looks[-1]

    monkeypatch.setattr(processes, "_children", spared(processes._children))
    monkeypatch.setattr(processes, "family", missing_at_first)
    with subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        (child,) = psutil.Process(parent.pid).children()
        processes.kill_family(parent.pid)
        assert parent.wait() == -9
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def spared(children: Callable[[int], list[int]]) -> Callable[[int], list[int]]:
    """`children`, but for the first time that it is asked: whoever is killed first must not be who is missed."""
    asked: list[int] = []

    def found(pid: int) -> list[int]:
        asked.append(pid)
        return children(pid) if len(asked) > 1 else []

    return found
