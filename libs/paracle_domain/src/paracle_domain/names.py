"""Help with names that are nearly right."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Final

_SHOWN: Final = 8


def suggest(name: str, known: Iterable[str]) -> str:
    """What to add to "there is no `name`": the nearest known names, or else a few of them; begins with `; `."""
    names = sorted(known)
    near = get_close_matches(name, names, n=2, cutoff=0.6)
    if near:
        return f"; did you mean {' or '.join(map(repr, near))}?"
    if not names:
        return ""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"; known: {', '.join(names[:_SHOWN])}{more}"
