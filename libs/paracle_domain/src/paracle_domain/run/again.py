"""What happened is said again, as far as it still matters: mail seen twice, and parents that ask."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from paracle_domain.plan import Plan
from paracle_domain.run import orders
from paracle_domain.run.attempts import runs
from paracle_domain.run.directives import RunDirective, TellParent
from paracle_domain.run.draft import Draft
from paracle_domain.run.events import (
    ApprovalAsked,
    ApprovalDecided,
    ApprovalEscalated,
    RunCancelled,
    RunCancelling,
    RunCompleted,
    RunDegraded,
    RunEvent,
    RunFailed,
    RunFailing,
    RunTimedOut,
    StepCancelled,
    StepEmitted,
    StepFailed,
    StepFailing,
    StepStarted,
    StepTimedOut,
)
from paracle_domain.run.nodes import Node
from paracle_domain.run.state import Asked, Parts, RunState, StepState


def directives_of(
    plan: Plan, nodes: Mapping[str, Node], state: RunState, events: Iterable[RunEvent]
) -> Iterator[RunDirective]:
    """The directives that `events` led to, and that still matter to a run that stands as `state` does now."""
    for event in events:
        match event:
            case StepStarted(step=path, attempt=attempt) if runs(state.find(path), attempt):
                yield orders.order(plan, state, event)
            case RunCancelling() | RunFailing():
                yield from _stops(plan, nodes, state, orders.at_work(state))
            case StepFailing(step=name):
                yield from _stops(plan, nodes, state, _parts_of(state, name))
            case ApprovalAsked() | ApprovalDecided() | ApprovalEscalated():
                yield orders.show_approval(state, event.step)
            case StepCancelled() | StepFailed() | StepTimedOut() if _is_approval(state, event.step):
                yield orders.show_approval(state, event.step)
            case StepEmitted(step=name):
                at = state.steps[name].finished_at
                assert at is not None
                yield orders.publish(state, event, at)
            case RunCompleted() | RunDegraded() | RunFailed() | RunCancelled() | RunTimedOut():
                if state.started_event.parent is not None:
                    yield orders.tell_parent(state)
            case _:
                pass


def tell_parent(draft: Draft) -> TellParent:
    """Answer a parent that asks again. It did not get the first answer, so this one has an id of its own."""
    return orders.tell_parent(draft.state, f"{draft.now.timestamp():.3f}")


def _stops(
    plan: Plan, nodes: Mapping[str, Node], state: RunState, running: Iterable[tuple[str, str, StepState]]
) -> Iterator[RunDirective]:
    reason = state.ending.outcome if state.ending else "failed"
    for name, path, step in running:
        job = nodes[name].job
        assert job is not None
        yield orders.stop(plan, state, path, step, job.spec, reason)


def _parts_of(state: RunState, name: str) -> Iterator[tuple[str, str, StepState]]:
    parts = state.steps[name].detail
    assert isinstance(parts, Parts)
    return ((name, path, part) for path, part in orders.parts_at_work(name, parts))


def _is_approval(state: RunState, path: str) -> bool:
    step = state.find(path)
    return step is not None and isinstance(step.detail, Asked)
