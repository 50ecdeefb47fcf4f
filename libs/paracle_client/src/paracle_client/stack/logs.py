"""The logs of the stack's processes: where they are, how they end, and that they do not grow for ever."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from paracle_embedded import tail

_LIMIT: Final = 20 * 1024 * 1024


def line(name: str, what: str, began: float, log: Path) -> str:
    """What is said of a process that got so far."""
    return f"  {name:<17} {what:<6} {time.monotonic() - began:4.1f} s  {_short(log)}"


def log_end(log: Path) -> str:
    """The last that a process said that failed."""
    lines = tail(log, 15)
    return f"\nlog: {_short(log)}\n{lines or '(empty)'}\nMend what it says, then `paracle up` again"


def rotate(log: Path) -> None:
    """Begin a log anew that has grown long; the old one is kept beside it."""
    if log.exists() and log.stat().st_size > _LIMIT:
        log.replace(log.with_suffix(".log.1"))


def _short(path: Path) -> str:
    """`path` as seen from here, where that is shorter."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
