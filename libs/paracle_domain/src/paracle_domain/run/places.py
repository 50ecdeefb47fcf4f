"""Paths of what a run does: `pay` is a step, `each[3]` item or iteration 3 of it, `pay.compensate` what undoes it."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NamedTuple, override

COMPENSATE: Final = ".compensate"
_PATH: Final = re.compile(r"([a-z][a-z0-9_]{0,62})(?:\[(0|[1-9][0-9]{0,8})\]|(\.compensate))?")


class Place(NamedTuple):
    """A path, taken apart."""

    step: str
    part: int | None = None
    compensates: bool = False

    @override
    def __str__(self) -> str:
        if self.part is not None:
            return f"{self.step}[{self.part}]"
        return self.step + COMPENSATE if self.compensates else self.step


@lru_cache(maxsize=1_024)
def place_of(path: str) -> Place | None:
    """`path` taken apart, if it is one."""
    match = _PATH.fullmatch(path)
    if match is None:
        return None
    step, part, compensates = match.groups()
    return Place(step, None if part is None else int(part), compensates is not None)


def part_path(step: str, part: int) -> str:
    """The path of item or iteration `part` of `step`."""
    return f"{step}[{part}]"
