"""Runs as queries show them."""

from __future__ import annotations

from paracle_domain.run.commands import RunSummary, RunView, StepStatus, StepView
from paracle_domain.run.diff import Pins
from paracle_domain.run.state import RunState, StepState
from paracle_orchestrator.host import Entry


def summary_of(entry: Entry) -> RunSummary:
    """A run as lists show it."""
    state, facts = entry.state, entry.facts
    started = state.started_event
    assert state.created_at is not None
    return RunSummary(
        run_id=entry.id,
        workflow=facts["workflow"],
        revision=facts["revision"],
        status=state.status,
        created_at=state.created_at,
        finished_at=state.finished_at,
        labels=started.labels,
        plan=facts["plan"],
        priority=facts["priority"],
        parent=facts["parent"],
        forked_from=facts["forked_from"],
    )


def pins_of(entry: Entry) -> Pins:
    """What a run pinned."""
    plan = entry.machine.plan
    return Pins(
        run_id=entry.id,
        workflow=plan.workflow.name,
        revision=plan.workflow.revision,
        plan=plan.digest,
        contract=plan.contract,
    )


def view_of(entry: Entry) -> RunView:
    """A run with its steps, in an order in which they could have run."""
    state = entry.state
    started = state.started_event
    return RunView(
        run=summary_of(entry),
        principal=started.principal,
        input=started.input,
        output=state.output,
        error=state.error,
        usage=state.usage,
        steps=tuple(_step(entry, name) for name in state.graph.order),
        last_seq=state.seq,
    )


def _step(entry: Entry, name: str) -> StepView:
    spec = entry.machine.spec(name)
    step = entry.state.steps.get(name) or StepState(_unborn(entry.state))
    return StepView(
        id=name,
        status=step.status,
        target_kind=spec.kind,
        target=spec.target,
        needs=entry.state.graph.needs[name],
        attempts=step.attempt,
        task_id=step.task_id,
        started_at=step.started_at,
        finished_at=step.finished_at,
        output=step.output,
        error=step.error,
        usage=step.usage,
    )


def _unborn(state: RunState) -> StepStatus:
    """How a step stands that never began: its run's end cancelled it."""
    return StepStatus.CANCELLED if state.terminal else StepStatus.PENDING
