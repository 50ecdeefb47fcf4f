"""Processes of one service, made fast so that many can be killed: `python -m paracle_chassis.testing.nursery PACKAGE`.

The service is loaded once. Each line of standard input, an `Order` as JSON, has a fork become a process of it that is
doomed as `testing.faults` says; the answer is a line with its pid. When the input ends, so does the nursery; those
that it bore live on.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from dataclasses import dataclass
from typing import NoReturn

from pydantic import TypeAdapter

from paracle_chassis.testing import faults
from paracle_chassis.testing.faults import Gap


@dataclass(frozen=True, slots=True)
class Order:
    """A process with this environment, which dies in `gap` around the first message that matches, if any ever does."""

    env: dict[str, str]
    gap: Gap = Gap.BEFORE_PUBLISH
    match: str = "(?!)"


ORDER = TypeAdapter(Order)


def main(package: str) -> None:
    """Make what is ordered until there are no more orders."""
    importlib.import_module(f"{package}.app")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how they ended, so none is left to be reaped
    for line in sys.stdin:
        order = ORDER.validate_json(line)
        pid = os.fork()
        if pid == 0:
            _live(package, order)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


def _live(package: str, order: Order) -> NoReturn:
    """The life of the one that was forked: it must never come back to the nursery's loop."""
    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(2, 1)
        os.environ.clear()
        os.environ.update(order.env)
        faults.main(package, order.gap, order.match, "1")
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    finally:
        os._exit(code)


if __name__ == "__main__":
    main(*sys.argv[1:])
