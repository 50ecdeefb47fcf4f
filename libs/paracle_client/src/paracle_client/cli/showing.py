"""One run, for people: how it stands and why, and its steps as a tree with what they lead to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime

from paracle_client.cli.target import moment
from paracle_client.display import duration
from paracle_domain.errors import ErrorInfo
from paracle_domain.run.commands import ApprovalPage, QueuePlace, RunView, StepStatus, StepView
from paracle_domain.subjects import DEFAULT_POOL
from paracle_domain.task.pools import PoolState, PoolView

COLUMNS = ("STEP", "STATUS", "STARTED", "TOOK", "TRIES", "WHAT")

type Row = tuple[str, str, str, str, str, str]


def heading(view: RunView) -> Iterator[str]:
    """Lines about the run as a whole."""
    run = view.run
    yield f"{run.run_id}  {run.workflow}{of_revision(run.revision)}  {run.status}"
    took = "" if run.finished_at is None else f", took {_took(run.created_at, run.finished_at)}"
    yield f"started {moment(run.created_at)} by {view.principal}{took}"
    if run.labels:
        yield "labels " + ", ".join(f"{key}={value}" for key, value in run.labels.items())
    yield f"pinned {run.plan}"
    if view.parent is not None:
        yield f"child of {view.parent.run_id}, its step {view.parent.step}, attempt {view.parent.attempt}"
    if run.forked_from is not None:
        yield f"forked from {run.forked_from}"
    if view.deadline_at is not None and not run.status.terminal:
        yield f"times out {moment(view.deadline_at)}"
    if view.queue is not None:
        yield _queued(view.queue)
    if run.stuck is not None:
        yield f"stuck since {moment(run.stuck.since)}: paracle dlq show {run.stuck.dead_letter}"
    if view.error is not None:
        yield f"{'error' if run.status.terminal else 'ends with'} {_error(view.error)}"
    if view.uncompensated:
        yield f"not undone: {', '.join(view.uncompensated)}"


def of_revision(number: int) -> str:
    """Which revision of its workflow a run is of: none, if it is of one agent."""
    return f" (revision {number})" if number else ""


def _queued(place: QueuePlace) -> str:
    full = []
    if place.workflow_limit is not None:
        full.append(f"{place.workflow_running} of at most {place.workflow_limit} runs of the workflow are under way")
    if place.tenant_limit is not None:
        full.append(f"{place.tenant_running} of at most {place.tenant_limit} of the tenant")
    return f"queued: {', '.join(full) or 'about to start'}; {place.ahead:,} before it"


def pools_at_work(view: RunView) -> set[str]:
    """The worker pools that tasks of the run are with, or wait for."""
    return {step.pool for step in _at_work(view) if step.pool is not None}


def agents_at_work(view: RunView) -> Iterator[tuple[str, str]]:
    """Steps at which an agent is at work, with their tasks."""
    for step in _at_work(view):
        if step.target_kind == "agent" and step.task_id is not None:
            yield step.id, step.task_id


def _at_work(view: RunView) -> Iterator[StepView]:
    for step in view.steps:
        undone = () if step.compensation is None else (step.compensation,)
        yield from (one for one in (step, *step.parts, *undone) if one.status is StepStatus.RUNNING)


_WHY_NOT = {
    PoolState.UNSERVED: "nobody serves it",
    PoolState.DRAINING: "it is drained",
    PoolState.DRAINED: "it is drained",
    PoolState.OVER_MEMORY: "all its processes are at their memory ceiling",
}


def closed(pool: PoolView) -> str | None:
    """Why tasks of `pool` wait that nobody has begun, if it takes none just now."""
    why = _WHY_NOT.get(pool.state)
    return None if why is None else f"pool {pool.pool} takes no new tasks: {why} (paracle pools show {pool.pool})"


def held(view: RunView, page: ApprovalPage) -> Iterator[str]:
    """What people are asked besides what steps say; of many, that there are more."""
    known = {one.approval_id for step in view.steps for one in (step, *step.parts)}
    for one in page.approvals:
        if one.approval_id not in known:
            yield f"waits until people decide: {one.ask} (paracle approvals show {one.approval_id})"
    if page.next_cursor is not None:
        yield f"and more: paracle approvals --status open --run {view.run.run_id}"


def rows(view: RunView, said: Mapping[str, str] | None = None) -> Iterator[Row]:
    """A row for each step, below it its items or iterations and what undoes it; with what is `said` of some steps."""
    for step in view.steps:
        yield from _rows(step, 0, said or {})


def _rows(step: StepView, depth: int, said: Mapping[str, str]) -> Iterator[Row]:
    began = "" if step.started_at is None else f"{step.started_at.astimezone():%H:%M:%S}"
    took = "" if step.started_at is None else _took(step.started_at, step.finished_at)
    tries = str(step.attempts) if step.attempts else ""
    yield f"{'  ' * depth}{step.id}", _status(step), began, took, tries, "; ".join(_what(step, said))
    for part in step.parts:
        yield from _rows(part, depth + 1, said)
    if step.parts and (more := step.parts_total - len(step.parts)) > 0:
        yield f"{'  ' * (depth + 1)}and {more:,} more", "", "", "", "", ""
    if step.compensation is not None:
        yield from _rows(step.compensation, depth + 1, said)


def _status(step: StepView) -> str:
    return f"{step.status}, tolerated" if step.degraded and step.status is not StepStatus.COMPLETED else step.status


def _what(step: StepView, said: Mapping[str, str]) -> Iterator[str]:
    yield _does(step)
    if step.parts_total:
        yield f"{step.parts_ended:,} of {step.parts_total:,} ended"
    if step.child_run_id is not None:
        yield f"run {step.child_run_id}"
    if step.pool not in (None, DEFAULT_POOL) and not step.status.terminal:
        yield f"pool {step.pool}"
    if step.due_at is not None and not step.status.terminal:
        yield f"{'times out' if step.status is StepStatus.RUNNING else 'until'} {moment(step.due_at)}"
    if step.kept:
        yield "kept"
    if step.compensated:
        yield "undone"
    if step.error is not None:
        yield _error(step.error)
    if step.id in said:
        yield said[step.id]


def _does(step: StepView) -> str:
    """What kind of step it is, and of what."""
    if step.signal is not None:
        return f"wait for signal {step.signal}"
    return f"{step.target_kind} {step.target or step.approval_id or ''}".rstrip()


def _error(error: ErrorInfo) -> str:
    return f"{error.code}: {error.message}"


def _took(began: datetime, ended: datetime | None) -> str:
    return "–" if ended is None else duration((ended - began).total_seconds())
