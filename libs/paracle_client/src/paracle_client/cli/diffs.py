"""What differs between the pins of two runs, as lines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import groupby
from typing import Final

from pydantic import JsonValue

from paracle_client.cli.showing import of_revision
from paracle_client.plain import safe
from paracle_domain.run.diff import Difference, Pins, RunsDiff

EXIT_DIFFERENT: Final = 1
EXIT_TROUBLE: Final = 2
_MOST: Final = 200
_SIGNS: Final = {"added": "+", "removed": "-", "changed": "~"}


def diff_lines(found: RunsDiff) -> Iterator[str]:
    """Both runs, and below each part that differs what differs of it, with both values."""
    yield f"- {_pins(found.left)}"
    yield f"+ {_pins(found.right)}"
    if found.same:
        yield "both pinned the same plan"
    for part, differences in groupby(found.differences, key=lambda one: one.part):
        several = list(differences)
        yield ""
        yield safe(f"{part}{_revisions(several[0])}")
        yield from (line for one in several if one.path != "revision" for line in _lines(one))


def _pins(pins: Pins) -> str:
    return safe(f"{pins.run_id}  {pins.workflow}{of_revision(pins.revision)}  {pins.plan}")


def _revisions(one: Difference) -> str:
    left, right = one.left_revision, one.right_revision
    if left == right:
        return "" if left is None else f" (revision {left})"
    if left is None or right is None:
        return f" (revision {left or right}, {'added' if left is None else 'removed'})"
    return f" (revision {left} → {right})"


def _lines(one: Difference) -> Iterator[str]:
    if not one.path:
        return
    yield safe(f"  {_SIGNS[one.change]} {one.path}")
    if one.change != "added":
        yield f"      - {_text(one.left)}"
    if one.change != "removed":
        yield f"      + {_text(one.right)}"


def _text(value: JsonValue) -> str:
    text = json.dumps(_said(value), ensure_ascii=False)
    return safe(text if len(text) <= _MOST else f"{text[: _MOST - 1]}…")


def _said(value: JsonValue) -> JsonValue:
    """`value` without the fields that nobody set."""
    match value:
        case dict():
            return {name: _said(below) for name, below in value.items() if below is not None}
        case list():
            return [_said(below) for below in value]
        case _:
            return value
