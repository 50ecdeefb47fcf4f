"""The end of a run: what completed is undone first, if it can be, then the run is over."""

from __future__ import annotations

from typing import assert_never

from paracle_domain.errors import ErrorInfo, ExpressionFailed
from paracle_domain.run import attempts, orders
from paracle_domain.run.commands import StepStatus
from paracle_domain.run.draft import Draft
from paracle_domain.run.events import (
    RunCancelled,
    RunCompensating,
    RunCompleted,
    RunDegraded,
    RunFailed,
    RunFailing,
    RunTimedOut,
    StepFailed,
)
from paracle_domain.run.nodes import Formula
from paracle_domain.run.places import Place
from paracle_domain.run.state import Ending, StepState, Undo


def settle(draft: Draft, output: Formula) -> None:
    """End the run if nothing is left to wait for."""
    state = draft.state
    if state.terminal or state.table.open:
        return
    if state.ending is not None:
        _undo(draft, state.ending)
    elif state.table.ended == state.table.count:
        _complete(draft, output)
    else:
        return
    if draft.state.terminal and draft.state.started_event.parent is not None:
        draft.send(orders.tell_parent(draft.state))


def _complete(draft: Draft, output: Formula) -> None:
    """Every step has ended."""
    state = draft.state
    try:
        value = output.evaluate(state)
    except ExpressionFailed as error:
        draft.happen(RunFailing(outcome="failed", error=error.to_info()))
        assert draft.state.ending is not None
        _undo(draft, draft.state.ending)
        return
    degraded = state.tolerated
    if degraded:
        draft.happen(RunDegraded(output=value, failed_steps=degraded, usage=state.usage))
    else:
        draft.happen(RunCompleted(output=value, usage=state.usage))


def _undo(draft: Draft, ending: Ending) -> None:
    """Undo what completed, newest first, one after the other; then end."""
    undo = draft.state.aside.undo
    if undo is None:
        steps = _compensable(draft)
        if steps:
            draft.happen(RunCompensating(steps=steps))
        undo = Undo(steps)
    while (name := undo.current) is not None:
        if _running(draft, name) is not None or _begin(draft, name):
            return
        undo = draft.state.aside.undo or undo
    _end(draft, ending, undo.failed)


def _compensable(draft: Draft) -> tuple[str, ...]:
    """Steps that completed in this very run and say how they are undone."""
    done = [
        (step.place, name)
        for name, step in draft.state.steps.items()
        if step.status is StepStatus.COMPLETED and not step.kept and draft.nodes[name].undo is not None
    ]
    return tuple(name for _, name in sorted(done, reverse=True))


def _running(draft: Draft, name: str) -> StepState | None:
    """The compensation of a step, if it is under way."""
    found = draft.state.steps[name].compensation
    return found if found is not None and not found.ended else None


def _begin(draft: Draft, name: str) -> bool:
    """Begin to undo a step; if that cannot even begin, it has failed."""
    node = draft.nodes[name]
    assert node.undo is not None
    try:
        value = node.undo.input.evaluate(draft.state)
    except ExpressionFailed as error:
        draft.happen(StepFailed(step=node.undo_path, attempt=0, error=error.to_info()))
        return False
    attempts.launch(draft, node.undo_path, node.undo, 1, value)
    return True


def tick(draft: Draft) -> None:
    """Time has come to what is being undone."""
    undo = draft.state.aside.undo
    name = undo.current if undo is not None else None
    assert name is not None  # otherwise the run would be over
    step = _running(draft, name)
    assert step is not None
    attempts.tick(draft, Place(name, compensates=True), step)


def _end(draft: Draft, ending: Ending, uncompensated: tuple[str, ...]) -> None:
    usage = draft.state.usage
    error = ending.error or ErrorInfo(code="internal", message="the run ended without saying why")
    match ending.outcome:
        case "cancelled":
            draft.happen(RunCancelled(reason=ending.reason, usage=usage, uncompensated=uncompensated))
        case "failed":
            draft.happen(RunFailed(error=error, usage=usage, uncompensated=uncompensated))
        case "timed_out":
            draft.happen(RunTimedOut(error=error, usage=usage, uncompensated=uncompensated))
        case _ as unreachable:
            assert_never(unreachable)
