"""Runs in the process that becomes the command: sets its limits, then gives way to it. It imports nothing of ours.

`exec`: within bubblewrap, which ends everything when the command ends. `supervise`: without it. Then this process
adopts what the command leaves behind, ends it with the command, and ends both if the agent runtime dies.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def main(text: str) -> None:
    """Do what the JSON `text` says."""
    order = json.loads(text)
    if order["mode"] == "exec":
        _limit(order["limits"])
        os.execvp(order["argv"][0], order["argv"])  # noqa: S606  # the command is what a tool was granted
    else:
        sys.exit(_supervise(order))


def _limit(limits: dict[str, int]) -> None:
    """Bound this process and its children. They give way to all others on the machine, to their watch above all."""
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    for name, most in limits.items():
        kind = getattr(resource, name)
        _, hard = resource.getrlimit(kind)
        bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (bound, bound))


def _supervise(order: dict[str, Any]) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_end_family()))
    argv = order["argv"]
    child = os.fork()
    if child == 0:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _limit(order["limits"])
        os.execvp(argv[0], argv)  # noqa: S606  # as above
    ended, status = os.wait()
    while ended != child:
        ended, status = os.wait()
    _end_family()
    return _code(status)


def _code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _end_family() -> int:
    """Kill every descendant: those of a killed one become ours, so it goes on until there are none."""
    while True:
        for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
            os.kill(int(pid), signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return 143


if __name__ == "__main__":
    main(sys.argv[1])
