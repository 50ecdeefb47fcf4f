"""How steps begin: as soon as what they need has ended, and there is room; what each kind does first."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final, assert_never

from paracle_domain.errors import ExpressionFailed, quote
from paracle_domain.run import approvals, attempts, orders, parts, signals
from paracle_domain.run.draft import Draft
from paracle_domain.run.events import StepEmitted, StepWaiting
from paracle_domain.run.nodes import Node
from paracle_domain.run.table import READY
from paracle_domain.workflow.spec import TARGETS, WaitSpec, parse_time

_LONGEST_S: Final = 366 * 86_400


def advance(draft: Draft) -> None:
    """Start all that is ready and has room."""
    _walk(draft)
    if draft.limit is None and not draft.everything:
        return
    _look_around(draft)


def _walk(draft: Draft) -> None:
    """Start what may have become ready. It can skip or fail steps, by which more may become so."""
    while draft.waiting:
        node = draft.nodes[draft.waiting.popleft()]
        found = draft.state.table[node.place]
        if isinstance(found, int) and found == READY and draft.moves:
            begin(draft, node)


def _look_around(draft: Draft) -> None:
    """Start what was ready before and had no room, or was held back."""
    if draft.everything:
        for place in list(draft.state.table.ready_places()):
            draft.waiting.append(draft.state.graph.order[place])
        _walk(draft)
    while draft.moves and draft.room and draft.state.table.ready:
        draft.waiting.append(draft.state.graph.order[next(draft.state.table.ready_places())])
        _walk(draft)
    for name in draft.state.hungry:
        if not draft.room:
            break
        parts.feed(draft, draft.nodes[name])
        _walk(draft)


def begin(draft: Draft, node: Node) -> None:
    """Begin a step that is ready, unless it is to be skipped, or has no room."""
    if node.kind in TARGETS and not draft.room:
        return
    try:
        if node.when is not None and not node.when.evaluate(draft.state):
            draft.skip(node.name)
        else:
            _begin(draft, node)
    except ExpressionFailed as error:
        draft.fail(node, error.to_info())


def _begin(draft: Draft, node: Node) -> None:
    kind = node.kind
    match kind:
        case "agent" | "tool" | "workflow":
            assert node.job is not None
            attempts.launch(draft, node.name, node.job, 1, node.job.input.evaluate(draft.state))
        case "map":
            parts.begin_map(draft, node)
        case "loop":
            parts.begin_loop(draft, node)
        case "switch":
            _choose(draft, node)
        case "approval":
            approvals.ask(draft, node)
        case "wait":
            assert node.spec.wait is not None
            _wait(draft, node, node.spec.wait)
        case "emit":
            _emit(draft, node)
        case _ as unreachable:
            assert_never(unreachable)


def _choose(draft: Draft, node: Node) -> None:
    """A switch: the first case that holds."""
    assert node.spec.switch is not None
    for index, case in enumerate(node.spec.switch.cases):
        if node.formulas[f"switch.cases[{index}].when"].evaluate(draft.state):
            draft.complete(node, {"case": case.name})
            return
    draft.complete(node, {"case": None})


def _emit(draft: Draft, node: Node) -> None:
    """An event is published."""
    assert node.spec.emit is not None
    data = node.formulas["emit.data"].evaluate(draft.state)
    number = draft.state.aside.emitted + 1
    event = StepEmitted(step=node.name, number=number, event=node.spec.emit.event, data=data)
    draft.happen(event)
    draft.send(orders.publish(draft.state, event, draft.now))
    draft.complete(node)


def _wait(draft: Draft, node: Node, wait: WaitSpec) -> None:
    """A wait begins; it ends at once if its time is past, or its signal is there already."""
    until = None if wait.signal is not None else _time(draft, node, wait)
    late = draft.now + timedelta(seconds=node.spec.timeout_s) if node.spec.timeout_s else None
    draft.happen(StepWaiting(step=node.name, until=until, signal=wait.signal, deadline_at=late))
    if until is not None and until <= draft.now:
        draft.complete(node)
    elif wait.signal is not None:
        signals.take(draft, wait.signal)


def _time(draft: Draft, node: Node, wait: WaitSpec) -> datetime:
    """When a wait for a time ends."""
    if wait.for_s is not None:
        return draft.now + _span(node.formulas["wait.for_s"].evaluate(draft.state))
    found = node.formulas["wait.until"].evaluate(draft.state)
    time = parse_time(found) if isinstance(found, str) else None
    if time is None:
        message = f"wait.until must give a time with its zone, such as 2026-05-01T09:00:00Z (it gave {quote(found)})"
        raise ExpressionFailed(message, path="wait.until")
    return time


def _span(seconds: object) -> timedelta:
    if isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 <= seconds <= _LONGEST_S:
        return timedelta(seconds=seconds)
    message = f"wait.for_s must give seconds, from 0 to {_LONGEST_S:,} (it gave {quote(seconds)})"
    raise ExpressionFailed(message, path="wait.for_s")
