"""A run as one follows it: a view that events change, without any drawing (that is `display`).

`begin(run)` makes a view of what is known, `fold(view, event)` is the view after an event; both are pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from pydantic import JsonValue

from paracle_client.speech import asking
from paracle_domain.errors import ErrorInfo
from paracle_domain.inference.usage import Usage
from paracle_domain.machine import EventRecord
from paracle_domain.messages import CATALOG
from paracle_domain.run import events as happened
from paracle_domain.run.commands import RunStatus, RunView, StepStatus, StepView

_NOTHING: Final = Usage()


@dataclass(frozen=True, slots=True)
class StepLine:
    """One step in the view. `depth` is the longest way to it from a step that needs nothing.

    Items of a map and iterations of a loop have no lines of their own: there may be many thousands. The step counts
    them. `detail` says more of how it stands: what it waits for, or whom it asks.
    """

    id: str
    target: str = ""
    needs: tuple[str, ...] = ()
    depth: int = 0
    status: StepStatus = StepStatus.PENDING
    attempt: int = 0
    started_at: datetime | None = None
    finished_at: datetime | None = None
    usage: Usage = _NOTHING
    error: ErrorInfo | None = None
    detail: str = ""
    parts_total: int = 0
    parts_ended: int = 0

    def duration_s(self, now: datetime) -> float | None:
        """Seconds that it took, or has taken by `now`; `None` if it never started."""
        if self.started_at is None:
            return None
        return max(0.0, ((self.finished_at or now) - self.started_at).total_seconds())


@dataclass(frozen=True, slots=True)
class View:
    """A run and its steps in an order in which each comes after those that it needs."""

    run_id: str
    workflow: str = ""
    status: RunStatus = RunStatus.QUEUED
    steps: Mapping[str, StepLine] = field(default_factory=dict)
    started_at: datetime | None = None
    finished_at: datetime | None = None
    output: JsonValue = None
    error: ErrorInfo | None = None
    note: str = ""
    last_seq: int = 0
    queued: bool = False

    @property
    def usage(self) -> Usage:
        """What the steps used so far."""
        total = _NOTHING
        for step in self.steps.values():
            total += step.usage
        return total

    @property
    def own_error(self) -> ErrorInfo | None:
        """What the run failed with, unless a step says it."""
        if self.error is None or any(says(step.id, step.error, self.error) for step in self.steps.values()):
            return None
        return self.error

    def counts(self) -> dict[StepStatus, int]:
        """How many steps stand how."""
        counts: dict[StepStatus, int] = {}
        for step in self.steps.values():
            counts[step.status] = counts.get(step.status, 0) + 1
        return counts

    def duration_s(self, now: datetime) -> float:
        """Seconds that the run took, or has taken by `now`."""
        if self.started_at is None:
            return 0.0
        return max(0.0, ((self.finished_at or now) - self.started_at).total_seconds())


def says(step: str, error: ErrorInfo | None, of_run: ErrorInfo) -> bool:
    """Whether the error of a step is the one that the run failed with."""
    return error is not None and of_run.path == f"steps.{step}" and of_run.message.endswith(error.message)


def begin(run: RunView) -> View:
    """The view to start from: the steps in their order, nothing yet done. Events from the first on tell the rest."""
    return View(
        run_id=run.run.run_id,
        workflow=run.run.workflow,
        started_at=run.run.created_at,
        steps={step.id: step for step in ordered(_line(step) for step in run.steps)},
    )


def _line(step: StepView) -> StepLine:
    return StepLine(id=step.id, target=step.target, needs=step.needs)


def ordered(steps: Iterable[StepLine]) -> list[StepLine]:
    """`steps` so that each comes after those that it needs, else as they were, with their depths."""
    waiting = {step.id: step for step in steps}
    depths: dict[str, int] = {}
    done: list[StepLine] = []
    while waiting:
        ready = [one for one in waiting.values() if not any(need in waiting for need in one.needs)]
        for step in ready or list(waiting.values()):  # a cycle cannot be applied; if one came, show it as it is
            depths[step.id] = 1 + max((depths.get(need, -1) for need in step.needs), default=-1)
            done.append(replace(step, depth=depths[step.id]))
            del waiting[step.id]
    return done


def fold(view: View, record: EventRecord) -> View:
    """The view after `record`. Seen events change nothing; unknown ones count only as seen.

    That the run is stuck, or no more, is no event of it; it is noted.
    """
    if record.entity != "run":
        note = f"stuck: paracle dlq show {record.id}"
        return replace(view, note=note if record.type == "run.stuck" else view.note.replace(note, ""))
    if record.seq <= view.last_seq:
        return view
    view = replace(view, last_seq=record.seq)
    kind = CATALOG.get(record.type)
    if kind is None:
        return view
    return _apply(view, kind.model_validate(record.data), record.at)


def _apply(view: View, event: object, at: datetime) -> View:
    match event:
        case happened.StepStarted():
            return _started(view, event, at)
        case happened.StepRetrying(step=path) if "[" in path:
            return _step(view, path.partition("[")[0], usage=event.usage)
        case happened.StepRetrying():
            return _step(view, event.step, status=StepStatus.WAITING, error=event.error, usage=event.usage)
        case happened.StepCompleted():
            return _ended(view, event.step, StepStatus.COMPLETED, at, event.usage)
        case happened.StepFailed():
            return _ended(view, event.step, StepStatus.FAILED, at, event.usage, event.error)
        case happened.StepTimedOut():
            return _ended(view, event.step, StepStatus.TIMED_OUT, at, event.usage, event.error)
        case happened.StepCancelled():
            return _ended(view, event.step, StepStatus.CANCELLED, at, event.usage)
        case happened.StepSkipped():
            return _ended(view, event.step, StepStatus.SKIPPED, at)
        case _:
            return _waits(view, event, at)


def _waits(view: View, event: object, at: datetime) -> View:
    """What is of the kinds of steps that do no work themselves."""
    match event:
        case happened.StepOpened():
            return _step(view, event.step, status=StepStatus.RUNNING, started_at=at, parts_total=event.count)
        case happened.StepFailing():
            return _step(view, event.step, error=event.error)
        case happened.StepWaiting():
            what = f"for signal {event.signal}" if event.until is None else f"until {_when(event.until, at)}"
            return _step(view, event.step, status=StepStatus.WAITING, started_at=at, detail=what)
        case happened.StepEmitted():
            return _step(view, event.step, started_at=at)
        case happened.StepKept():
            return _step(view, event.step, status=StepStatus(event.status), detail="kept")
        case happened.ApprovalAsked():
            asks = asking(event.ask, event.approval_id)
            return _step(view, event.step, status=StepStatus.WAITING, started_at=at, detail=asks)
        case happened.ApprovalDecided():
            why = f": {event.reason}" if event.reason else ""
            return _step(view, event.step, detail=f"{event.decision} by {event.principal}{why}")
        case happened.ApprovalEscalated():
            return _step(view, event.step, detail=f"not decided in time, so others are asked ({event.approval_id})")
        case _:
            return _run_changed(view, event, at)


def _when(until: datetime, at: datetime) -> str:
    """`until` as people here write it at `at`: with its date, unless that is the day's own."""
    here = until.astimezone()
    return f"{here:%H:%M:%S}" if here.date() == at.astimezone().date() else f"{here:%Y-%m-%d %H:%M:%S}"


def _run_changed(view: View, event: object, at: datetime) -> View:
    match event:
        case happened.RunStarted():
            status = RunStatus.QUEUED if event.queued else RunStatus.RUNNING
            return replace(view, workflow=event.workflow, status=status, started_at=at, queued=event.queued)
        case happened.RunAdmitted() if view.status is RunStatus.PAUSED:
            return replace(view, queued=False)
        case happened.RunAdmitted():
            return replace(view, status=RunStatus.RUNNING, queued=False)
        case happened.RunResumed():
            return replace(view, status=RunStatus.QUEUED if view.queued else RunStatus.RUNNING, note="")
        case happened.RunPaused():
            return replace(view, status=RunStatus.PAUSED, note=event.reason)
        case happened.RunCompensating():
            return replace(view, note=f"undoing {', '.join(event.steps)}")
        case happened.RunCancelling():
            return replace(view, status=RunStatus.CANCELLING, note=event.reason)
        case _:
            return _run_ended(view, event, at)


def _run_ended(view: View, event: object, at: datetime) -> View:
    match event:
        case happened.RunFailing():
            return replace(view, error=event.error)
        case happened.RunCompleted():
            return replace(view, status=RunStatus.COMPLETED, output=event.output, finished_at=at)
        case happened.RunDegraded():
            note = f"failed, as the workflow allows: {', '.join(event.failed_steps)}"
            return replace(view, status=RunStatus.DEGRADED, output=event.output, finished_at=at, note=note)
        case happened.RunFailed():
            return replace(view, status=RunStatus.FAILED, error=event.error, finished_at=at)
        case happened.RunTimedOut():
            return replace(view, status=RunStatus.TIMED_OUT, error=event.error, finished_at=at)
        case happened.RunCancelled():
            return replace(view, status=RunStatus.CANCELLED, note=event.reason, finished_at=at)
        case _:
            return view


def _started(view: View, event: happened.StepStarted, at: datetime) -> View:
    if "[" in event.step:
        return view
    known = view.steps.get(event.step, StepLine(event.step))
    return _step(
        view,
        event.step,
        target=event.target,
        status=StepStatus.RUNNING,
        attempt=event.attempt,
        started_at=known.started_at or at,
        error=None,
        detail="" if event.child_run_id is None else f"as run {event.child_run_id}",
    )


def _ended(
    view: View, step: str, status: StepStatus, at: datetime, usage: Usage = _NOTHING, error: ErrorInfo | None = None
) -> View:
    owner, bracket, _ = step.partition("[")
    if bracket:
        known = view.steps.get(owner, StepLine(owner))
        return _step(view, owner, usage=usage, parts_ended=known.parts_ended + 1)
    return _step(view, step, status=status, finished_at=at, usage=usage, error=error, detail="")


def _step(view: View, step: str, *, usage: Usage = _NOTHING, **changes: object) -> View:
    """`step` changed; the usage of an attempt adds to that of those before it."""
    known = view.steps.get(step, StepLine(step))
    changed = replace(known, usage=known.usage + usage, **changes)  # type: ignore[arg-type]  # each is a field of StepLine
    return replace(view, steps={**view.steps, step: changed})
