"""Maps and loops: work that is done several times for one step."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from pydantic import JsonValue

from paracle_domain.errors import (
    DeadlineExceeded,
    ErrorInfo,
    ExpressionFailed,
    LimitExceeded,
    quote,
)
from paracle_domain.inference.usage import NOTHING, Usage
from paracle_domain.run import attempts, stopping
from paracle_domain.run.events import StepCancelled, StepFailed, StepFailing, StepOpened, StepTimedOut
from paracle_domain.run.nodes import fitting
from paracle_domain.run.places import Place, part_path
from paracle_domain.run.state import Parts, StepState
from paracle_domain.run.timing import due

if TYPE_CHECKING:
    from paracle_domain.run.draft import Draft
    from paracle_domain.run.nodes import Node

MOST_ITEMS: Final = 1_000_000


def begin_map(draft: Draft, node: Node) -> None:
    """Begin a map: its list is known now."""
    items = _items(draft, node)
    draft.happen(StepOpened(step=node.name, kind="map", count=len(items), deadline_at=_deadline(draft, node)))
    parts_of(draft, node).memo.append(items)
    feed(draft, node)


def begin_loop(draft: Draft, node: Node) -> None:
    """Begin a loop with its first iteration."""
    assert node.spec.loop is not None
    draft.happen(StepOpened(step=node.name, kind="loop", count=node.spec.loop.max, deadline_at=_deadline(draft, node)))
    feed(draft, node)


def _deadline(draft: Draft, node: Node) -> datetime | None:
    seconds = node.spec.timeout_s
    return draft.now + timedelta(seconds=seconds) if seconds else None


def _items(draft: Draft, node: Node) -> list[JsonValue]:
    items = node.formulas["map.over"].evaluate(draft.state)
    if not isinstance(items, list):
        raise ExpressionFailed(f"map.over must give a list (it gave {quote(items)})", path="map.over")
    if len(items) > MOST_ITEMS:
        raise ExpressionFailed(f"a map of {len(items):,} items; at most {MOST_ITEMS:,} are allowed", path="map.over")
    return items


def parts_of(draft: Draft, node: Node) -> Parts:
    """The items or iterations of a step that is a map or loop, and has begun."""
    step = draft.step(node)
    assert step is not None
    assert isinstance(step.detail, Parts)
    return step.detail


def _open(draft: Draft, node: Node) -> bool:
    step = draft.step(node)
    return step is not None and not step.ended


def feed(draft: Draft, node: Node) -> None:
    """Start as much of a map or loop as there is room for; complete it if nothing of it is left."""
    most = node.spec.map.concurrency if node.spec.map is not None else 1
    while draft.moves and draft.room and _open(draft, node):
        parts = parts_of(draft, node)
        if not parts.hungry or parts.items.open >= most:
            break
        _start(draft, node, parts, parts.next)
    if _open(draft, node):
        parts = parts_of(draft, node)
        if parts.next == parts.items.count and parts.items.open == 0 and not stopping.stops(draft, node):
            _complete(draft, node, parts)


def _start(draft: Draft, node: Node, parts: Parts, part: int) -> None:
    job = node.job
    assert job is not None
    try:
        value = job.input.evaluate(draft.state, _local(draft, node, parts, part))
    except ExpressionFailed as error:
        _fail(draft, node, part, error.to_info())
        return
    attempts.launch(draft, part_path(node.name, part), job, 1, value)


def _local(draft: Draft, node: Node, parts: Parts, part: int) -> Mapping[str, Any]:
    """What only the expressions of a map's or loop's work see."""
    if parts.kind == "loop":
        last = parts.items.entry(part - 1) if part else None
        return {"iteration": part, "last": last.output if last is not None else None}
    if not parts.memo:  # the run was replayed; what the list was follows from what it had
        parts.memo.append(_items(draft, node))
    return {"item": parts.memo[0][part], "index": part}


def completed(draft: Draft, node: Node, part: int, output: JsonValue) -> None:
    """An item or iteration has completed; a loop may be over with it."""
    if node.spec.loop is None or stopping.stops(draft, node):
        after_part(draft, node)
        return
    local = {"iteration": part, "output": output}
    try:
        done = node.formulas["loop.until"].evaluate(draft.state, local)
    except ExpressionFailed as error:
        draft.fail(node, error.to_info())
        return
    if done:
        _complete_loop(draft, node, output)
    else:
        after_part(draft, node)


def failed(
    draft: Draft, node: Node, part: int, error: ErrorInfo, usage: Usage, *, attempt: int, timed_out: bool = False
) -> None:
    """An item or iteration has failed for good."""
    _fail(draft, node, part, error, usage, attempt=attempt, timed_out=timed_out)
    if _open(draft, node):
        after_part(draft, node)


def _fail(
    draft: Draft,
    node: Node,
    part: int,
    error: ErrorInfo,
    usage: Usage = NOTHING,
    *,
    attempt: int = 0,
    timed_out: bool = False,
) -> None:
    """Note the failure of an item or iteration, and give up the map or loop, unless it goes on without it."""
    stops = stopping.stops(draft, node)
    tolerated = node.spec.map is not None and node.spec.map.on_error == "continue" and not stops
    path = part_path(node.name, part)
    kind = StepTimedOut if timed_out else StepFailed
    draft.happen(kind(step=path, attempt=attempt, error=error, tolerated=tolerated, usage=usage))
    if not tolerated and not stops:
        give_up(draft, node, error.model_copy(update={"message": f"{path}: {error.message}"}))


def after_part(draft: Draft, node: Node) -> None:
    """An item or iteration has ended, and the map or loop goes on, or has stopped at last."""
    if not stopping.stops(draft, node):
        feed(draft, node)
    elif parts_of(draft, node).items.open == 0:
        close(draft, node)


def _complete(draft: Draft, node: Node, parts: Parts) -> None:
    """Every item has ended, or the last allowed iteration has."""
    loop = node.spec.loop
    if loop is None:
        outputs: list[JsonValue] = [item.output for item in parts.items if isinstance(item, StepState)]
        try:
            fitting(outputs)
        except ExpressionFailed as error:
            draft.fail(node, error.to_info())
        else:
            draft.complete(node, outputs, degraded=parts.degraded)
    elif loop.on_limit == "complete":
        last = parts.items.entry(parts.items.count - 1)
        assert last is not None
        _complete_loop(draft, node, last.output)
    else:
        limit = LimitExceeded(f"`until` does not hold after {loop.max} iterations (max)")
        draft.fail(node, limit.to_info())


def _complete_loop(draft: Draft, node: Node, output: JsonValue) -> None:
    draft.complete(node, output, degraded=parts_of(draft, node).degraded)


def give_up(draft: Draft, node: Node, error: ErrorInfo, *, timed_out: bool = False) -> None:
    """A map or loop cannot succeed any more: stop what runs of it, and then let it fail."""
    if parts_of(draft, node).items.open == 0:
        draft.fail(node, error, timed_out=timed_out)
        return
    draft.happen(StepFailing(step=node.name, outcome="timed_out" if timed_out else "failed", error=error))
    if node.spec.on_error == "continue" or draft.fallback_of(node) is not None:
        stopping.stop_parts(draft, node)
    else:
        draft.doom(node.name, error)


def close(draft: Draft, node: Node) -> None:
    """All that ran of a map or loop has stopped."""
    ending = parts_of(draft, node).ending
    if ending is None:
        draft.happen(StepCancelled(step=node.name))
    else:
        assert ending.error is not None
        draft.fail(node, ending.error, timed_out=ending.outcome == "timed_out")


def tick(draft: Draft, node: Node) -> None:
    """Time has come to a map or loop: it is late, or something of it wants to be looked at."""
    parts = parts_of(draft, node)
    if parts.ending is not None:
        stopping.press_parts(draft, node, parts.ending)
        return
    time_out(draft, node)
    for place, part in list(parts.items.open_entries()):
        if _open(draft, node) and not stopping.stops(draft, node):
            attempts.tick(draft, Place(node.name, place), part)


def time_out(draft: Draft, node: Node) -> None:
    """Give up a map or loop whose time is over, if it still goes on."""
    step = draft.step(node)
    if step is None or stopping.stops(draft, node) or not due(step.deadline_at, draft.now):
        return
    late = DeadlineExceeded(f"the step did not end within its timeout_s of {node.spec.timeout_s:g} s")
    give_up(draft, node, late.to_info(), timed_out=True)
