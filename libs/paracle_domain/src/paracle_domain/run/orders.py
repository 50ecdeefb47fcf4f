"""What those who work for a run are told: tasks, child runs, orders to stop, the answer to a parent.

Everything here follows from a run's state, so it can be said again at any time, and is the same then.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Literal, assert_never

from paracle_domain.errors import Conflict
from paracle_domain.ids import derive_id
from paracle_domain.machine import EventRecord
from paracle_domain.plan import Plan
from paracle_domain.run.commands import ApprovalStatus, ApprovalView, Parent, RunStatus, StepStatus
from paracle_domain.run.directives import (
    CancelChild,
    DispatchTask,
    PublishEvent,
    RunDirective,
    ShowApproval,
    StartChild,
    StopTask,
    TellParent,
)
from paracle_domain.run.events import RunStarted, StepEmitted, StepStarted
from paracle_domain.run.labels import project_of
from paracle_domain.run.messages import ChildCancel, ChildEnded, ChildStart
from paracle_domain.run.places import COMPENSATE, part_path
from paracle_domain.run.state import Asked, Parts, RunState, StepState
from paracle_domain.run.timing import soonest
from paracle_domain.subjects import DEFAULT_POOL
from paracle_domain.task.messages import CancelTask, Task
from paracle_domain.workflow.spec import WorkSpec


def task_id_of(run_id: str, path: str, attempt: int) -> str:
    return derive_id("task", run_id, path, attempt)


def child_id_of(run_id: str, path: str, attempt: int) -> str:
    return derive_id("run", run_id, path, attempt)


def approval_id_of(run_id: str, path: str) -> str:
    return derive_id("apr", run_id, path)


def order(plan: Plan, state: RunState, event: StepStarted, again: int = 0) -> RunDirective:
    """Hand out the attempt that `event` began."""
    match event.target_kind:
        case "workflow":
            return StartChild(_child_start(plan, state, event), again)
        case "agent" | "tool":
            # A pool with a name may be small, or somebody's own: there each task is a message by itself.
            light = event.target_kind == "tool" and event.pool is None and plan.is_light(event.target)
            task = _task(state, event, event.target_kind)
            return DispatchTask(task, again, event.pool or DEFAULT_POOL, light)
        case _ as unreachable:
            assert_never(unreachable)


def order_again(plan: Plan, state: RunState, path: str, step: StepState, work: WorkSpec, again: int) -> RunDirective:
    """Hand out once more what runs at `path`."""
    return order(plan, state, _started(plan, path, step, work), again)


def _started(plan: Plan, path: str, step: StepState, work: WorkSpec) -> StepStarted:
    return StepStarted(
        step=path,
        attempt=step.attempt,
        task_id=step.task_id,
        child_run_id=step.child_run_id,
        target_kind=work.target_kind,
        target=work.target,
        input=step.input,
        deadline_at=step.due_at,
        pool=plan.pool_of(work),
    )


def _task(state: RunState, event: StepStarted, kind: Literal["agent", "tool"]) -> Task:
    """The task that `event` handed out. Its effect scope leaves out the attempt: effects are keyed by path.

    Only an agent's says for whom it is: a tool asks no model.
    """
    started = state.started_event
    asks = kind == "agent"
    return Task(
        task_id=event.task_id or task_id_of(started.run_id, event.step, event.attempt),
        run_id=started.run_id,
        step=event.step,
        attempt=event.attempt,
        plan=started.plan,
        target_kind=kind,
        target=event.target,
        input=event.input,
        effect_scope=event.step,
        deadline_at=_deadline(state, event),
        forked_from=started.forked_from,
        principal=started.principal if asks else None,
        project=project_of(started.labels) if asks else None,
    )


def _deadline(state: RunState, event: StepStarted) -> datetime | None:
    """The attempt's, its map's or loop's, or the run's: what comes first. Undoing has only its own."""
    path = event.step
    if path in state.graph.index:
        own = event.deadline_at
        return state.deadline_at if own is None else soonest((own, state.deadline_at))
    if path.endswith(COMPENSATE):
        return event.deadline_at
    owner = state.steps[path.partition("[")[0]]
    return soonest((event.deadline_at, owner.deadline_at, state.deadline_at))


def _child_start(plan: Plan, state: RunState, event: StepStarted) -> ChildStart:
    started = state.started_event
    above = started.parent
    return ChildStart(
        run_id=event.child_run_id or child_id_of(started.run_id, event.step, event.attempt),
        parent=Parent(
            run_id=started.run_id,
            step=event.step,
            attempt=event.attempt,
            root_run_id=above.root_run_id if above else started.run_id,
            depth=above.depth + 1 if above else 1,
        ),
        workflow=event.target,
        plan=plan.children[event.target].digest,
        input=event.input,
        principal=started.principal,
        labels=started.labels,
        priority=started.priority,
        deadline_at=_deadline(state, event),
    )


def stop(
    plan: Plan, state: RunState, path: str, step: StepState, work: WorkSpec, reason: str, again: int = 0
) -> RunDirective:
    """Tell what runs at `path` to stop."""
    if work.target_kind == "workflow":
        start = _child_start(plan, state, _started(plan, path, step, work))
        return CancelChild(ChildCancel(start=start, reason=reason), again)
    run_id = state.started_event.run_id
    task_id = step.task_id or task_id_of(run_id, path, step.attempt)
    return StopTask(CancelTask(task_id=task_id, run_id=run_id, step=path, attempt=step.attempt, reason=reason), again)


def at_work(state: RunState) -> Iterator[tuple[str, str, StepState]]:
    """What still runs of a run that ends: the step, its path or that of a part of it, and its state."""
    for place, step in state.table.open_entries():
        name = state.graph.order[place]
        if isinstance(step.detail, Parts):
            yield from ((name, path, part) for path, part in parts_at_work(name, step.detail))
        else:
            yield name, name, step


def parts_at_work(name: str, parts: Parts) -> Iterator[tuple[str, StepState]]:
    """Items or iterations that run, or wait for their next attempt, by path."""
    return ((part_path(name, place), part) for place, part in parts.items.open_entries())


def tell_parent(state: RunState, again: str = "") -> TellParent:
    """Tell the parent how this run, which has ended, did."""
    started = state.started_event
    assert started.parent is not None
    return TellParent(
        ChildEnded(
            run_id=started.parent.run_id,
            step=started.parent.step,
            attempt=started.parent.attempt,
            child_run_id=started.run_id,
            status=state.status,
            output=state.output,
            error=state.error,
            usage=state.usage,
        ),
        again,
    )


def no_child(run_id: str, parent: Parent) -> TellParent:
    """Tell `parent` that run `run_id` is another's: somebody chose that id for a run, which will never answer it."""
    taken = Conflict(f"run {run_id}, which was to be the child, exists already and is another's")
    return TellParent(
        ChildEnded(
            run_id=parent.run_id,
            step=parent.step,
            attempt=parent.attempt,
            child_run_id=run_id,
            status=RunStatus.FAILED,
            error=taken.to_info(),
        )
    )


def publish(state: RunState, event: StepEmitted, at: datetime) -> PublishEvent:
    """Publish what an `emit` step says."""
    return PublishEvent(emitted(state.started_event, event, at))


def emitted(started: RunStarted, event: StepEmitted, at: datetime) -> EventRecord:
    """What an `emit` step of the run says: it follows from the run's history, whenever it is asked for."""
    return EventRecord(
        entity="emit",
        id=started.run_id,
        seq=event.number,
        type=event.event,
        at=at,
        correlation_id=started.run_id,
        data={"workflow": started.workflow, "step": event.step, "data": event.data},
    )


def show_approval(state: RunState, name: str) -> ShowApproval:
    """Show the approval of step `name` as it stands."""
    step = state.steps[name]
    detail = step.detail
    assert isinstance(detail, Asked)
    assert step.started_at is not None
    asked, approvers, started = detail.asked, detail.approvers, state.started_event
    view = ApprovalView(
        approval_id=asked.approval_id,
        run_id=started.run_id,
        workflow=started.workflow,
        step=name,
        status=_approval_status(step),
        ask=asked.ask,
        action=asked.action,
        digest=asked.digest,
        principals=approvers.principals,
        roles=approvers.roles,
        quorum=asked.quorum,
        own=asked.own,
        requested_by=started.principal,
        asked_at=step.started_at,
        expires_at=approvers.expires_at,
        escalated=detail.escalation is not None,
        decisions=detail.decisions,
        decided_at=step.finished_at,
    )
    return ShowApproval(view, state.seq)


def _approval_status(step: StepState) -> ApprovalStatus:
    match step.status:
        case StepStatus.WAITING:
            return ApprovalStatus.OPEN
        case StepStatus.COMPLETED:
            return ApprovalStatus.APPROVED
        case _ if step.error is not None and step.error.code == "approval_rejected":
            return ApprovalStatus.REJECTED
        case _ if step.error is not None and step.error.code == "approval_expired":
            return ApprovalStatus.EXPIRED
        case _:
            return ApprovalStatus.VOID
