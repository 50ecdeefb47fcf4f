"""Work and its attempts: of steps, of items and iterations, and of compensations, which differ only in what follows."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from pydantic import JsonValue

from paracle_domain.errors import DeadlineExceeded, ErrorInfo
from paracle_domain.inference.usage import NOTHING, Usage
from paracle_domain.run import orders, parts, stopping
from paracle_domain.run.commands import RunStatus, StepStatus
from paracle_domain.run.events import (
    StepCancelled,
    StepCompleted,
    StepFailed,
    StepRetrying,
    StepStarted,
    StepTimedOut,
)
from paracle_domain.run.messages import ChildEnded
from paracle_domain.run.places import Place, place_of
from paracle_domain.run.state import Parts, RunState, StepState
from paracle_domain.run.timing import due, repeats, retry_delay, retryable
from paracle_domain.task.messages import TaskResult, TaskStatus

if TYPE_CHECKING:
    from paracle_domain.run.draft import Draft
    from paracle_domain.run.nodes import Job


def launch(draft: Draft, path: str, job: Job, attempt: int, value: JsonValue) -> None:
    """Begin attempt number `attempt` of the work at `path`."""
    run_id, timeout_s = draft.state.started_event.run_id, job.spec.timeout_s
    child = job.kind == "workflow"
    event = StepStarted(
        step=path,
        attempt=attempt,
        task_id=None if child else orders.task_id_of(run_id, path, attempt),
        child_run_id=orders.child_id_of(run_id, path, attempt) if child else None,
        target_kind=job.kind,
        target=job.target,
        input=value,
        deadline_at=draft.now + timedelta(seconds=timeout_s) if timeout_s else None,
        pool=draft.plan.pool_of(job.spec),
    )
    draft.happen(event)
    draft.send(orders.order(draft.plan, draft.state, event))


def take_result(draft: Draft, message: TaskResult) -> None:
    """A worker pool says how a task ended. What is not about the running attempt is late, or never was."""
    place, step = _place(draft, message.step), draft.state.find(message.step)
    if draft.state.terminal or place is None or step is None or not runs(step, message.attempt):
        return
    if step.task_id is None or step.task_id != message.task_id:
        return
    match message.status:
        case TaskStatus.COMPLETED:
            _completed(draft, place, step, message.output, message.usage)
        case TaskStatus.FAILED | TaskStatus.TIMED_OUT:
            error = message.error or _silent("task", message.status)
            timed_out = message.status is TaskStatus.TIMED_OUT
            if timed_out:
                _time_out(draft, place)
            failed(draft, place, step, error, message.usage, timed_out=timed_out)
        case TaskStatus.CANCELLED:
            error = message.error or ErrorInfo(code="cancelled", message="the task was stopped from outside the run")
            _cancelled(draft, place, step, error, message.usage)
        case _:
            pass  # on its way


def take_child_end(draft: Draft, message: ChildEnded) -> None:
    """A child run says how it ended."""
    place, step = _place(draft, message.step), draft.state.find(message.step)
    if draft.state.terminal or place is None or step is None or not runs(step, message.attempt):
        return
    if step.child_run_id != message.child_run_id or not message.status.terminal:
        return
    match message.status:
        case RunStatus.COMPLETED | RunStatus.DEGRADED:
            degraded = message.status is RunStatus.DEGRADED
            _completed(draft, place, step, message.output, message.usage, degraded=degraded)
        case RunStatus.CANCELLED:
            error = ErrorInfo(code="cancelled", message=f"child run {message.child_run_id} was cancelled")
            _cancelled(draft, place, step, error, message.usage)
        case _:
            error = message.error or _silent("child run", message.status)
            timed_out = message.status is RunStatus.TIMED_OUT
            if timed_out:
                _time_out(draft, place)
            failed(draft, place, step, error, message.usage, timed_out=timed_out)


def _time_out(draft: Draft, place: Place) -> None:
    """Work has the time of its run, and of its map or loop: where that is over, whoever does it may see it first."""
    stopping.time_out(draft)
    if place.part is not None:
        parts.time_out(draft, draft.nodes[place.step])


def _place(draft: Draft, path: str) -> Place | None:
    """`path` taken apart; that of a step needs no taking apart."""
    node = draft.nodes.get(path)
    return node.at if node is not None else place_of(path)


def runs(step: StepState | None, attempt: int) -> bool:
    return step is not None and step.status is StepStatus.RUNNING and step.attempt == attempt


def wants(state: RunState, path: str, attempt: int, task_id: str) -> bool:
    """Whether the run wants this task done: it is the running attempt of what is at `path`, which is not stopped."""
    step, place = state.find(path), place_of(path)
    if place is None or step is None or state.terminal or not runs(step, attempt) or step.task_id != task_id:
        return False
    return not _stopped(state, place)


def _silent(what: str, status: str) -> ErrorInfo:
    return ErrorInfo(code="internal", message=f"the {what} {status} without saying why")


def _completed(
    draft: Draft, place: Place, step: StepState, output: JsonValue, usage: Usage, *, degraded: bool = False
) -> None:
    node = draft.nodes[place.step]
    if place.part is None and not place.compensates:
        draft.complete(node, output, usage, attempt=step.attempt, degraded=degraded)
        return
    event = StepCompleted(step=str(place), attempt=step.attempt, output=output, usage=usage, degraded=degraded)
    draft.happen(event)
    if place.part is not None:
        parts.completed(draft, node, place.part, output)


def failed(
    draft: Draft, place: Place, step: StepState, error: ErrorInfo, usage: Usage = NOTHING, *, timed_out: bool = False
) -> None:
    """An attempt failed: try again later, if that is allowed and still wanted."""
    retry = draft.job_of(place).spec.retry
    if not _stopped(draft.state, place) and retryable(retry, error, step.attempt):
        key = f"{draft.state.started_event.run_id}.{place}"
        due_at = draft.now + retry_delay(retry, step.attempt, key, error)
        draft.happen(StepRetrying(step=str(place), attempt=step.attempt, error=error, due_at=due_at, usage=usage))
        return
    _failed_for_good(draft, place, step.attempt, error, usage, timed_out=timed_out)


def _failed_for_good(
    draft: Draft, place: Place, attempt: int, error: ErrorInfo, usage: Usage, *, timed_out: bool = False
) -> None:
    node = draft.nodes[place.step]
    if place.compensates:
        kind = StepTimedOut if timed_out else StepFailed
        draft.happen(kind(step=str(place), attempt=attempt, error=error, usage=usage))
    elif place.part is not None:
        parts.failed(draft, node, place.part, error, usage, attempt=attempt, timed_out=timed_out)
    else:
        draft.fail(node, error, usage, attempt=attempt, timed_out=timed_out)


def _cancelled(draft: Draft, place: Place, step: StepState, error: ErrorInfo, usage: Usage) -> None:
    """Work was stopped: because the run wanted it, or by somebody else, which is a failure."""
    if not _stopped(draft.state, place):
        _failed_for_good(draft, place, step.attempt, error, usage)
        return
    draft.happen(StepCancelled(step=str(place), attempt=step.attempt, usage=usage))
    if place.part is not None:
        parts.after_part(draft, draft.nodes[place.step])


def _stopped(state: RunState, place: Place) -> bool:
    """Whether the work at `place` was told to stop."""
    if place.compensates:
        return False
    if state.ending is not None:
        return True
    owner = state.find(place.step) if place.part is not None else None
    return owner is not None and isinstance(owner.detail, Parts) and owner.detail.ending is not None


def tick(draft: Draft, place: Place, step: StepState) -> None:
    """Time has come to work: for its next attempt, for its end, or for being handed out again."""
    job = draft.job_of(place)
    if step.status is StepStatus.WAITING:
        if due(step.due_at, draft.now) and (draft.moves or place.compensates):
            launch(draft, str(place), job, step.attempt + 1, step.input)
    elif due(step.due_at, draft.now):
        path = str(place)
        draft.send(orders.stop(draft.plan, draft.state, path, step, job.spec, "timed out"))
        limit = f"timeout_s of {job.spec.timeout_s:g} s"
        late = DeadlineExceeded(f"attempt {step.attempt} did not end within the step's {limit}")
        failed(draft, place, step, late.to_info(), timed_out=True)
    elif step.attempt_at is not None and (again := repeats(draft.now - step.attempt_at)[0]):
        draft.send(orders.order_again(draft.plan, draft.state, str(place), step, job.spec, again))
