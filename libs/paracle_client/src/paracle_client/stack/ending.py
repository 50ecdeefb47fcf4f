"""Programs that start a stack and stop it, and are told to end in between."""

from __future__ import annotations

import signal
from types import FrameType
from typing import NoReturn


def leave_when_told() -> None:
    """Have SIGTERM and SIGHUP end this program as an exception does, on the way on which what it started is stopped."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)


def _leave(number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)
