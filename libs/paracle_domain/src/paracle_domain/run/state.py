"""A run as its events have made it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal, assert_never

from pydantic import JsonValue

from paracle_domain.errors import ErrorInfo
from paracle_domain.inference.usage import NOTHING, Usage
from paracle_domain.run.commands import RunStatus, StepStatus
from paracle_domain.run.events import (
    RunCancelled,
    RunCancelling,
    RunCompleted,
    RunDegraded,
    RunEvent,
    RunFailed,
    RunFailing,
    RunStarted,
    RunTimedOut,
    StepCancelled,
    StepCompleted,
    StepFailed,
    StepRetrying,
    StepSkipped,
    StepStarted,
    StepTimedOut,
)
from paracle_domain.workflow.graph import Graph

type Outcome = Literal["failed", "timed_out", "cancelled"]


@dataclass(frozen=True, slots=True)
class StepState:
    """A step that has begun, or has ended without beginning. Steps without one are pending.

    `attempt_at` is when the running attempt started; `due_at` its deadline, or the time at which the next one starts.
    """

    status: StepStatus
    attempt: int = 0
    task_id: str | None = None
    started_at: datetime | None = None
    attempt_at: datetime | None = None
    finished_at: datetime | None = None
    due_at: datetime | None = None
    input: JsonValue = None
    output: JsonValue = None
    error: ErrorInfo | None = None
    usage: Usage = NOTHING


@dataclass(frozen=True, slots=True)
class Ending:
    """Why nothing new starts any more, and since when."""

    outcome: Outcome
    since: datetime
    error: ErrorInfo | None = None
    reason: str = ""


@dataclass(slots=True)
class RunState:
    """Fold of a run's events over the graph of its plan. Treat it as immutable: `evolve` gives a new one.

    `waiting_for` counts, for each pending step with needs, those that are not satisfied yet; `open` are the steps that
    run or wait. They spare a look at every step after each event.
    """

    graph: Graph
    seq: int = 0
    started: RunStarted | None = None
    status: RunStatus = RunStatus.QUEUED
    created_at: datetime | None = None
    finished_at: datetime | None = None
    steps: dict[str, StepState] = field(default_factory=dict)
    waiting_for: dict[str, int] = field(default_factory=dict)
    open: dict[str, None] = field(default_factory=dict)
    ending: Ending | None = None
    tolerated: tuple[str, ...] = ()
    output: JsonValue = None
    error: ErrorInfo | None = None
    usage: Usage = NOTHING

    @property
    def terminal(self) -> bool:
        return self.status.terminal

    @property
    def started_event(self) -> RunStarted:
        """The run's first event.

        Raises
        ------
        ValueError
            If the run has not started, so that there is none.
        """
        if self.started is None:
            message = "the run has not started"
            raise ValueError(message)
        return self.started

    def draft(self) -> RunState:
        """A copy that can be changed in place without touching this one."""
        return RunState(  # spelled out, since `replace` takes eight times as long and every decision needs a draft
            self.graph,
            self.seq,
            self.started,
            self.status,
            self.created_at,
            self.finished_at,
            self.steps.copy(),
            self.waiting_for.copy(),
            self.open.copy(),
            self.ending,
            self.tolerated,
            self.output,
            self.error,
            self.usage,
        )


def evolve(state: RunState, events: Iterable[RunEvent], at: datetime) -> RunState:
    """The state after `events`, which happened at `at`."""
    draft = state.draft()
    for event in events:
        apply(draft, event, at)
    return draft


def apply(draft: RunState, event: RunEvent, at: datetime) -> None:
    """Change `draft` as `event` says."""
    draft.seq += 1
    match event:
        case RunStarted():
            _begin(draft, event, at)
        case StepStarted():
            _start(draft, event, at)
        case StepCompleted():
            _end(draft, event.step, StepStatus.COMPLETED, at, usage=event.usage, output=event.output)
        case StepRetrying():
            _retry(draft, event)
        case StepFailed():
            _fail(draft, event, StepStatus.FAILED, at)
        case StepTimedOut():
            _fail(draft, event, StepStatus.TIMED_OUT, at)
        case StepSkipped():
            _end(draft, event.step, StepStatus.SKIPPED, at)
        case StepCancelled():
            _end(draft, event.step, StepStatus.CANCELLED, at, usage=event.usage)
        case RunCancelling():
            draft.status = RunStatus.CANCELLING
            draft.ending = Ending("cancelled", at, reason=event.reason)
        case RunFailing():
            draft.ending = Ending(event.outcome, at, error=event.error)
        case RunCompleted() | RunDegraded() | RunFailed() | RunCancelled() | RunTimedOut():
            _finish(draft, event, at)
        case _ as unreachable:
            assert_never(unreachable)


def _begin(draft: RunState, event: RunStarted, at: datetime) -> None:
    draft.started = event
    draft.status = RunStatus.RUNNING
    draft.created_at = at
    draft.waiting_for = {step: len(needs) for step, needs in draft.graph.needs.items() if needs}


def _start(draft: RunState, event: StepStarted, at: datetime) -> None:
    before = draft.steps.get(event.step)
    draft.steps[event.step] = StepState(
        StepStatus.RUNNING,
        attempt=event.attempt,
        task_id=event.task_id,
        started_at=before.started_at if before else at,
        attempt_at=at,
        due_at=event.deadline_at,
        input=event.input,
        usage=before.usage if before else NOTHING,
    )
    draft.open[event.step] = None


def _retry(draft: RunState, event: StepRetrying) -> None:
    step = draft.steps[event.step]
    draft.steps[event.step] = replace(
        step, status=StepStatus.WAITING, due_at=event.due_at, error=event.error, usage=step.usage + event.usage
    )
    draft.usage += event.usage


def _fail(draft: RunState, event: StepFailed | StepTimedOut, status: StepStatus, at: datetime) -> None:
    _end(draft, event.step, status, at, usage=event.usage, error=event.error, unlock=event.tolerated)
    if event.tolerated:
        draft.tolerated = (*draft.tolerated, event.step)


def _end(
    draft: RunState,
    name: str,
    status: StepStatus,
    at: datetime,
    *,
    usage: Usage = NOTHING,
    output: JsonValue = None,
    error: ErrorInfo | None = None,
    unlock: bool = True,
) -> None:
    before = draft.steps.get(name) or StepState(status)
    draft.steps[name] = StepState(
        status,
        attempt=before.attempt,
        task_id=before.task_id,
        started_at=before.started_at,
        finished_at=at,
        input=before.input,
        output=output,
        error=error,
        usage=before.usage + usage,
    )
    draft.usage += usage
    draft.open.pop(name, None)
    draft.waiting_for.pop(name, None)
    if unlock and status is not StepStatus.CANCELLED:
        for dependent in draft.graph.dependents[name]:
            draft.waiting_for[dependent] -= 1


def _finish(
    draft: RunState, event: RunCompleted | RunDegraded | RunFailed | RunCancelled | RunTimedOut, at: datetime
) -> None:
    draft.finished_at = at
    draft.status = RunStatus(event.type.removeprefix("run."))
    match event:
        case RunCompleted() | RunDegraded():
            draft.output = event.output
        case RunFailed() | RunTimedOut():
            draft.error = event.error
        case RunCancelled():
            pass
        case _ as unreachable:
            assert_never(unreachable)
