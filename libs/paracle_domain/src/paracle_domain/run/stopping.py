"""How what runs is stopped: told at once, told again while it does not answer, and given up on after a grace.

A child run is never given up on: it always ends, and only then is it sure that nothing of it runs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from paracle_domain.errors import DeadlineExceeded
from paracle_domain.run import orders, parts
from paracle_domain.run.commands import StepStatus
from paracle_domain.run.events import RunCancelling, RunFailing, StepCancelled
from paracle_domain.run.state import Asked, Ending, Parts, StepState
from paracle_domain.run.timing import STOP_GRACE, presses

if TYPE_CHECKING:
    from paracle_domain.run.draft import Draft
    from paracle_domain.run.nodes import Node


def stops(draft: Draft, node: Node) -> bool:
    """Whether nothing new of a map or loop may start: because of itself, or of its run."""
    return draft.state.ending is not None or parts.parts_of(draft, node).ending is not None


def time_out(draft: Draft) -> None:
    """Begin the end of a run whose time is up, if no end of it has begun."""
    deadline_at = draft.state.deadline_at
    if draft.state.ending is None and deadline_at is not None and deadline_at <= draft.now:
        late = DeadlineExceeded(f"the run did not end by {deadline_at:%Y-%m-%d %H:%M:%S %Z}, when its time was up")
        wind_down(draft, RunFailing(outcome="timed_out", error=late.to_info()))


def wind_down(draft: Draft, event: RunCancelling | RunFailing) -> None:
    """Begin the end of a run: nothing new starts, and what runs is told to stop."""
    draft.happen(event)
    for node, step in _open_steps(draft):
        if isinstance(step.detail, Parts):
            stop_parts(draft, node)
        elif step.detail is not None:
            draft.happen(StepCancelled(step=node.name))
            if isinstance(step.detail, Asked):
                draft.send(orders.show_approval(draft.state, node.name))
        else:
            _stop(draft, node, node.name, step)


def _open_steps(draft: Draft) -> list[tuple[Node, StepState]]:
    order = draft.state.graph.order
    return [(draft.nodes[order[place]], step) for place, step in draft.state.table.open_entries()]


def stop_parts(draft: Draft, node: Node) -> None:
    """Tell what runs of a map or loop to stop; it is closed if nothing does."""
    for path, part in list(orders.parts_at_work(node.name, parts.parts_of(draft, node))):
        _stop(draft, node, path, part)
    if parts.parts_of(draft, node).items.open == 0:
        parts.close(draft, node)


def _stop(draft: Draft, node: Node, path: str, step: StepState) -> None:
    if step.status is StepStatus.WAITING:
        draft.happen(StepCancelled(step=path, attempt=step.attempt))
    else:
        _tell(draft, node, path, step, 0)


def _tell(draft: Draft, node: Node, path: str, step: StepState, again: int) -> None:
    ending, job = draft.state.ending, node.job
    assert job is not None
    reason = ending.outcome if ending else "failed"
    draft.send(orders.stop(draft.plan, draft.state, path, step, job.spec, reason, again))


def press(draft: Draft, ending: Ending) -> None:
    """Ask again those that have not stopped, for the order may be lost."""
    for node, step in _open_steps(draft):
        if isinstance(step.detail, Parts):
            press_parts(draft, node, ending)
        else:
            _press(draft, node, [(node.name, step)], ending)


def press_parts(draft: Draft, node: Node, ending: Ending) -> None:
    """Ask again what of a map or loop has not stopped."""
    _press(draft, node, list(orders.parts_at_work(node.name, parts.parts_of(draft, node))), ending)
    if parts.parts_of(draft, node).items.open == 0:
        parts.close(draft, node)


def _press(draft: Draft, node: Node, running: Iterable[tuple[str, StepState]], ending: Ending) -> None:
    given_up = draft.now - ending.since >= STOP_GRACE
    for path, step in running:
        _tell(draft, node, path, step, presses(ending, draft.now))
        if given_up and step.child_run_id is None:
            draft.happen(StepCancelled(step=path, attempt=step.attempt))
