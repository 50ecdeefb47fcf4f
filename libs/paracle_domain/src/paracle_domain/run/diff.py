"""What two runs pinned, side by side: where their plans differ, and which revisions those parts have."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal

from pydantic import JsonValue

from paracle_domain.ids import RunId
from paracle_domain.messages import Message, Request, Value
from paracle_domain.plan import Plan

type Change = Literal["changed", "added", "removed"]

_NAMES: Final = ("id", "name")
"""What elements of a list are told apart by, where they have it: a step that moved is the same step."""


class Pins(Value):
    """What a run pinned, in short."""

    run_id: RunId
    workflow: str
    revision: int
    plan: str
    contract: str


class Difference(Value):
    """Something that only one of two plans has, or that they have differently. `path` is below `part`.

    `part` is the workflow, an agent, a tool, or a part of a child workflow: `agent writer`, `child pay / tool charge`.
    Its revisions are those on the left and on the right; none where there is no such part.
    """

    part: str
    left_revision: int | None = None
    right_revision: int | None = None
    path: str
    change: Change
    left: JsonValue = None
    right: JsonValue = None


class RunsDiff(Message, type_name="runs.diff"):
    """Where the pins of two runs differ; `same` if nowhere."""

    left: Pins
    right: Pins
    same: bool
    differences: tuple[Difference, ...] = ()


class DiffRuns(Request[RunsDiff], service="orchestrator", method="diff_runs", answer=RunsDiff, query=True):
    """What differs between the pins of two runs."""

    left: RunId
    right: RunId


def differences(left: Plan, right: Plan) -> tuple[Difference, ...]:
    """Where `left` and `right` differ: what was added is only on the right."""
    return () if left.digest == right.digest else tuple(_plans(left, right, ""))


def _plans(left: Plan, right: Plan, above: str) -> Iterator[Difference]:
    if left.contract != right.contract:
        yield Difference(
            part=f"{above}contract", path="contract", change="changed", left=left.contract, right=right.contract
        )
    yield from _parts(f"{above}workflow", left.workflow, right.workflow)
    for kind, of_left, of_right in (("agent", left.agents, right.agents), ("tool", left.tools, right.tools)):
        for name in sorted({*of_left, *of_right}):
            yield from _parts(f"{above}{kind} {name}", of_left.get(name), of_right.get(name))
    for name in sorted({*left.children, *right.children}):
        yield from _children(left.children.get(name), right.children.get(name), f"{above}child {name}")


def _children(left: Plan | None, right: Plan | None, part: str) -> Iterator[Difference]:
    if left is not None and right is not None:
        if left.digest != right.digest:
            yield from _plans(left, right, f"{part} / ")
        return
    yield from _parts(part, left and left.workflow, right and right.workflow)


def _parts(part: str, left: Any, right: Any) -> Iterator[Difference]:
    """The differences of a planned workflow, agent or tool; all of it, if it is only on one side."""
    revisions = {
        "left_revision": None if left is None else left.revision,
        "right_revision": None if right is None else right.revision,
    }
    if left is None or right is None:
        change: Change = "added" if left is None else "removed"
        yield Difference(part=part, path="", change=change, **revisions)
        return
    sides = [side.model_dump(mode="json", exclude={"name"}) for side in (left, right)]
    for path, found, of_left, of_right in _values("", *sides):
        yield Difference(part=part, path=path, change=found, left=of_left, right=of_right, **revisions)


def _values(path: str, left: Any, right: Any) -> Iterator[tuple[str, Change, Any, Any]]:
    match left, right:
        case dict(), dict():
            yield from _members(path, left, right)
        case list(), list() if (names := _named(left, right)) is not None:
            yield from _members(path, *names)
            orders = [[name for name in side if name in names[0] and name in names[1]] for side in names]
            if orders[0] != orders[1]:
                yield path, "changed", orders[0], orders[1]
        case _ if _text(left) != _text(right):
            yield path, "changed", left, right
        case _:
            pass


def _text(value: Any) -> str:
    """As the digest sees it: `false` is not `0` there."""
    return json.dumps(value, sort_keys=True)


def _members(path: str, left: Mapping[str, Any], right: Mapping[str, Any]) -> Iterator[tuple[str, Change, Any, Any]]:
    for name in dict.fromkeys((*left, *right)):
        below = f"{path}.{name}" if path else name
        if name not in right:
            yield below, "removed", left[name], None
        elif name not in left:
            yield below, "added", None, right[name]
        else:
            yield from _values(below, left[name], right[name])


def _named(left: Sequence[Any], right: Sequence[Any]) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Both lists by the names of their elements, if all have names of their own."""
    for key in _NAMES:
        both = [_by(key, elements) for elements in (left, right)]
        if both[0] is not None and both[1] is not None:
            return both[0], both[1]
    return None


def _by(key: str, elements: Sequence[Any]) -> dict[str, Any] | None:
    found = {element[key]: element for element in elements if isinstance(element, dict) and _is_name(element.get(key))}
    return found if len(found) == len(elements) else None


def _is_name(value: Any) -> bool:
    return isinstance(value, str)
