"""Runs as queries show them."""

from __future__ import annotations

from itertools import islice
from typing import Any

from paracle_domain.run.commands import Outputs, RunSummary, RunView, StepStatus, StepView
from paracle_domain.run.diff import Pins
from paracle_domain.run.places import COMPENSATE, part_path, place_of
from paracle_domain.run.state import Asked, Parts, RunState, StepState, Waiting
from paracle_domain.run.timing import soonest
from paracle_domain.subjects import DEFAULT_POOL
from paracle_domain.workflow.spec import WorkSpec
from paracle_orchestrator.mail import Entry


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


def view_of(entry: Entry, parts: int, outputs: Outputs = Outputs.ALL) -> RunView:
    """A run with its steps, in an order in which they could have run, and the first `parts` items of each map.

    One that is about to end says why already: it may take its time to stop and to undo, and its own is over.
    """
    state = entry.state
    started, undo = state.started_event, state.aside.undo
    ending = None if state.terminal else state.ending
    steps = (_step(entry, name, parts) for name in state.graph.order)
    return RunView(
        run=summary_of(entry),
        principal=started.principal,
        input=None if outputs is Outputs.NONE else started.input,
        output=None if outputs is Outputs.NONE else state.output,
        error=state.error if ending is None else ending.error,
        usage=state.usage,
        steps=tuple(steps if outputs is Outputs.ALL else map(_without_outputs, steps)),
        outputs=outputs,
        last_seq=state.seq,
        deadline_at=state.deadline_at if ending is None else None,
        parent=started.parent,
        paused=state.aside.paused and not state.terminal,
        uncompensated=undo.failed if undo is not None else (),
    )


def step_of(entry: Entry, path: str, parts: int) -> StepView | None:
    """The step, or what is within it, at `path`; nothing, if there is none, or it has not begun."""
    place = place_of(path)
    if place is None or place.step not in entry.state.graph.needs:
        return None
    if place.part is not None:
        return _part(entry, place.step, place.part)
    step = _step(entry, place.step, parts)
    if place.compensates:
        return step.compensation
    return step.model_copy(update={"parts": tuple(map(_without_outputs, step.parts))})


def _part(entry: Entry, name: str, number: int) -> StepView | None:
    spec, step = entry.machine.spec(name), entry.state.steps.get(name)
    if step is None or not isinstance(step.detail, Parts) or number >= step.detail.items.count:
        return None
    part = step.detail.items.entry(number)
    return None if part is None else _view(entry, part_path(name, number), part, spec.map or spec.loop)


def _without_outputs(step: StepView) -> StepView:
    undone = step.compensation
    return step.model_copy(
        update={
            "output": None,
            "parts": tuple(map(_without_outputs, step.parts)),
            "compensation": None if undone is None else _without_outputs(undone),
        }
    )


def _step(entry: Entry, name: str, most: int) -> StepView:
    spec, graph = entry.machine.spec(name), entry.state.graph
    step = entry.state.steps.get(name) or StepState(_unborn(entry.state))
    fields = _fields(step)
    match step.detail:
        case Parts(items=items) as all_parts:
            total = items.count if all_parts.kind == "map" else all_parts.next
            fields |= {"parts_total": total, "parts_ended": items.ended}
            shown = islice((item for item in items if isinstance(item, StepState)), most)
            work = spec.map or spec.loop
            fields["parts"] = tuple(_view(entry, part_path(name, n), part, work) for n, part in enumerate(shown))
        case Waiting(until=until, signal=signal):
            fields |= {"signal": signal, "due_at": soonest((until, step.deadline_at))}
        case Asked() as approval:
            due_at = None if step.ended else soonest((approval.expires_at, step.deadline_at))
            fields |= {"approval_id": approval.asked.approval_id, "due_at": due_at}
        case None:
            pass
    undone = step.compensation
    if undone is not None:
        fields["compensated"] = undone.status is StepStatus.COMPLETED
        fields["compensation"] = _view(entry, name + COMPENSATE, undone, spec.compensate)
    fields["pool"] = _pool(entry, spec.work or spec.map or spec.loop)
    return StepView(id=name, target_kind=spec.kind, target=spec.target, needs=graph.needs[name], **fields)


def _view(entry: Entry, path: str, step: StepState, work: WorkSpec | None) -> StepView:
    """Work that is not a step's own: an item, an iteration, a compensation."""
    kind, target = (work.target_kind, work.target) if work is not None else ("", "")
    return StepView(id=path, target_kind=kind, target=target, pool=_pool(entry, work), **_fields(step))


def _pool(entry: Entry, work: WorkSpec | None) -> str | None:
    """Where the tasks of `work`, if it has any, are handed to."""
    if work is None or work.target_kind == "workflow":
        return None
    return entry.machine.plan.pool_of(work) or DEFAULT_POOL


def _fields(step: StepState) -> dict[str, Any]:
    return {
        "status": step.status,
        "attempts": step.attempt,
        "task_id": step.task_id,
        "child_run_id": step.child_run_id,
        "started_at": step.started_at,
        "finished_at": step.finished_at,
        "due_at": step.due_at or step.deadline_at,
        "output": step.output,
        "error": step.error,
        "usage": step.usage,
        "degraded": step.degraded,
        "kept": step.kept,
    }


def _unborn(state: RunState) -> StepStatus:
    """How a step stands that never began: its run's end cancelled it."""
    return StepStatus.CANCELLED if state.terminal else StepStatus.PENDING
