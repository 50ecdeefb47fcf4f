"""What each event makes of a run: the fold. Live runs and replayed ones go through here alike."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import assert_never

from pydantic import JsonValue

from paracle_domain.errors import ErrorInfo
from paracle_domain.inference.usage import NOTHING, Usage
from paracle_domain.run.commands import Decision, RunStatus, StepStatus
from paracle_domain.run.events import (
    ApprovalAsked,
    ApprovalDecided,
    ApprovalEscalated,
    RunAdmitted,
    RunCancelled,
    RunCancelling,
    RunCompensating,
    RunCompleted,
    RunDegraded,
    RunEvent,
    RunFailed,
    RunFailing,
    RunPaused,
    RunResumed,
    RunStarted,
    RunTimedOut,
    SignalReceived,
    StepCancelled,
    StepCompleted,
    StepEmitted,
    StepFailed,
    StepFailing,
    StepKept,
    StepOpened,
    StepRetrying,
    StepSkipped,
    StepStarted,
    StepTimedOut,
    StepWaiting,
)
from paracle_domain.run.places import Place, place_of
from paracle_domain.run.state import Asked, Ending, Parts, RunState, StepState, Undo, Waiting
from paracle_domain.run.table import Table


def evolve(state: RunState, events: Iterable[RunEvent], at: datetime) -> RunState:
    """The state after `events`, which happened at `at`."""
    draft = state.draft()
    for event in events:
        apply(draft, event, at)
    return draft


def apply(draft: RunState, event: RunEvent, at: datetime) -> None:
    """Change `draft` as `event` says."""
    draft.seq += 1
    match event:  # what happens most comes first
        case StepStarted():
            _start(draft, event, at)
        case StepCompleted():
            _complete(draft, event, at)
        case StepSkipped():
            _end(draft, event.step, StepStatus.SKIPPED, at)
        case StepFailed():
            _fail(draft, event, StepStatus.FAILED, at)
        case StepTimedOut():
            _fail(draft, event, StepStatus.TIMED_OUT, at)
        case StepCancelled():
            _end(draft, event.step, StepStatus.CANCELLED, at, usage=event.usage, unlock=False)
        case StepRetrying():
            _retry(draft, event)
        case StepOpened() | StepWaiting() | ApprovalAsked():
            _open(draft, event, at)
        case _:
            _apply_rest(draft, event, at)


type _RunEvent = (
    RunStarted
    | RunAdmitted
    | RunPaused
    | RunResumed
    | RunCancelling
    | RunFailing
    | RunCompensating
    | RunCompleted
    | RunDegraded
    | RunFailed
    | RunCancelled
    | RunTimedOut
)


def _apply_rest(
    draft: RunState,
    event: StepKept | StepEmitted | StepFailing | ApprovalDecided | ApprovalEscalated | SignalReceived | _RunEvent,
    at: datetime,
) -> None:
    match event:
        case StepKept():
            _keep(draft, event, at)
        case StepEmitted():
            draft.aside = replace(draft.aside, emitted=event.number)
        case StepFailing():
            _stop_parts(draft, event, at)
        case ApprovalDecided() | ApprovalEscalated():
            _note_approval(draft, event, at)
        case SignalReceived():
            aside = draft.aside
            draft.aside = replace(aside, signals=(*aside.signals, event), heard=aside.heard | {event.id})
        case _:
            _apply_to_run(draft, event, at)


def _apply_to_run(draft: RunState, event: _RunEvent, at: datetime) -> None:
    match event:
        case RunStarted():
            draft.started = event.slim()
            draft.status = RunStatus.QUEUED if event.queued else RunStatus.RUNNING
            draft.queued = event.queued
            draft.created_at = at
            draft.deadline_at = event.deadline_at
        case RunAdmitted():
            draft.queued = False
            draft.status = RunStatus.PAUSED if draft.aside.paused else RunStatus.RUNNING
            draft.deadline_at = event.deadline_at
        case RunPaused():
            draft.aside = replace(draft.aside, paused=True)
            draft.status = RunStatus.PAUSED
        case RunResumed():
            draft.aside = replace(draft.aside, paused=False)
            draft.status = RunStatus.QUEUED if draft.queued else RunStatus.RUNNING
        case RunCancelling():
            _begin_end(draft, RunStatus.CANCELLING, Ending("cancelled", at, reason=event.reason))
        case RunFailing():
            _begin_end(draft, RunStatus.RUNNING, Ending(event.outcome, at, error=event.error))
        case RunCompensating():
            draft.aside = replace(draft.aside, undo=Undo(event.steps))
        case RunCompleted() | RunDegraded() | RunFailed() | RunCancelled() | RunTimedOut():
            _finish(draft, event, at)
        case _ as unreachable:
            assert_never(unreachable)


def _begin_end(draft: RunState, status: RunStatus, ending: Ending) -> None:
    """An end that has begun ends a pause: what is left to do is to stop, and to undo."""
    draft.status = status
    draft.ending = ending
    draft.queued = False
    if draft.aside.paused:
        draft.aside = replace(draft.aside, paused=False)


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


def _start(draft: RunState, event: StepStarted, at: datetime) -> None:
    index = draft.graph.index.get(event.step)
    if index is not None:
        before = draft.table.entry(index)
        draft.table = draft.table.put(index, _begun(before, event, at), draft.token)
    else:
        place = _place(event.step)
        before = draft.find(event.step)
        _put(draft, place, _begun(before, event, at))
        if place.compensates:
            return
    if before is None:
        draft.flying += 1


def _begun(before: StepState | None, event: StepStarted, at: datetime) -> StepState:
    return StepState(
        StepStatus.RUNNING,
        event.attempt,
        event.task_id,
        event.child_run_id,
        before.started_at if before else at,
        at,
        None,
        event.deadline_at,
        None,
        event.input,
        usage=before.usage if before else NOTHING,
    )


def _complete(draft: RunState, event: StepCompleted, at: datetime) -> None:
    if event.signal is not None:
        kept = tuple(signal for signal in draft.aside.signals if signal.id != event.signal)
        draft.aside = replace(draft.aside, signals=kept)
    _end(
        draft,
        event.step,
        StepStatus.COMPLETED,
        at,
        usage=event.usage,
        output=event.output,
        degraded=event.degraded,
    )
    _step_in(draft, event.step, event.output)


def _step_in(draft: RunState, name: str, output: JsonValue) -> None:
    """The output of a fallback is also that of the step that it stepped in for."""
    primaries = draft.graph.primaries
    while (primary := primaries.get(name)) is not None:
        failed = draft.steps[primary]
        draft.table = draft.table.put(draft.graph.index[primary], replace(failed, output=output), draft.token)
        name = primary


def _fail(draft: RunState, event: StepFailed | StepTimedOut, status: StepStatus, at: datetime) -> None:
    _end(
        draft,
        event.step,
        status,
        at,
        usage=event.usage,
        error=event.error,
        degraded=event.tolerated,
        unlock=event.tolerated,
    )


def _retry(draft: RunState, event: StepRetrying) -> None:
    step = draft.find(event.step)
    assert step is not None
    waits = replace(
        step, status=StepStatus.WAITING, due_at=event.due_at, error=event.error, usage=step.usage + event.usage
    )
    _put(draft, _place(event.step), waits, event.usage)
    draft.usage += event.usage


def _end(
    draft: RunState,
    path: str,
    status: StepStatus,
    at: datetime,
    *,
    usage: Usage = NOTHING,
    output: JsonValue = None,
    error: ErrorInfo | None = None,
    degraded: bool = False,
    unlock: bool = True,
) -> None:
    draft.usage += usage
    index = draft.graph.index.get(path)
    before = draft.table.entry(index) if index is not None else draft.find(path)
    if before is None:
        before = _UNBORN
    ended = StepState(
        status,
        before.attempt,
        before.task_id,
        before.child_run_id,
        before.started_at,
        before.attempt_at,
        at,
        None,
        None,
        before.input,
        output,
        error,
        before.usage + usage,
        degraded,
        place=draft.seq,
        detail=before.detail,
    )
    if index is None:
        _end_part(draft, _place(path), before, ended, usage)
        return
    if before is not _UNBORN and before.detail is None:
        draft.flying -= 1
    draft.table = draft.table.put(index, ended, draft.token)
    if path in draft.hungry:
        draft.hungry = tuple(name for name in draft.hungry if name != path)
    if unlock:
        _unlock(draft, path)


_UNBORN = StepState(StepStatus.PENDING)


def _unlock(draft: RunState, name: str) -> None:
    index = draft.graph.index
    for dependent in draft.graph.dependents[name]:
        place = index[dependent]
        waits = draft.table[place]
        if isinstance(waits, int):  # a branch that was not taken may have ended before all that it needs
            draft.table = draft.table.put(place, waits - 1, draft.token)


def _end_part(draft: RunState, place: Place, before: StepState, ended: StepState, used: Usage) -> None:
    _put(draft, place, ended, used)
    if place.compensates:
        undo = draft.aside.undo
        assert undo is not None
        failed = undo.failed if ended.status is StepStatus.COMPLETED else (*undo.failed, place.step)
        draft.aside = replace(draft.aside, undo=Undo(undo.steps, undo.done + 1, failed))
    elif before is not _UNBORN:
        draft.flying -= 1


def _put(draft: RunState, place: Place, step: StepState, used: Usage = NOTHING) -> None:
    """Put `step` where its path says: into the table of steps, or into that of its map or loop, or beside its step."""
    index = draft.graph.index[place.step]
    if place.part is None and not place.compensates:
        draft.table = draft.table.put(index, step, draft.token)
        return
    owner = draft.table.entry(index)
    assert owner is not None
    if place.compensates:
        changed = replace(owner, compensation=step)
    else:
        changed = _with_part(owner, place.part or 0, step, used, draft.token)
        _note_hunger(draft, place.step, changed)
    draft.table = draft.table.put(index, changed, draft.token)


def _with_part(owner: StepState, part: int, step: StepState, used: Usage, token: object) -> StepState:
    parts = owner.detail
    assert isinstance(parts, Parts)
    changed = Parts(
        parts.kind,
        parts.items.put(part, step, token),
        max(parts.next, part + 1),
        parts.ending,
        parts.degraded or step.degraded,
        parts.memo,
    )
    return owner.with_parts(changed, used)


def _note_hunger(draft: RunState, name: str, step: StepState) -> None:
    hungry = isinstance(step.detail, Parts) and step.detail.hungry
    if hungry and name not in draft.hungry:
        draft.hungry = (*draft.hungry, name)
    elif not hungry and name in draft.hungry:
        draft.hungry = tuple(other for other in draft.hungry if other != name)


def _keep(draft: RunState, event: StepKept, at: datetime) -> None:
    kept = StepState(
        StepStatus(event.status),
        finished_at=at,
        output=event.output,
        degraded=event.degraded,
        kept=True,
        place=draft.seq,
    )
    draft.table = draft.table.put(draft.graph.index[event.step], kept, draft.token)
    _unlock(draft, event.step)


def _open(draft: RunState, event: StepOpened | StepWaiting | ApprovalAsked, at: datetime) -> None:
    status = StepStatus.RUNNING if isinstance(event, StepOpened) else StepStatus.WAITING
    step = StepState(status, started_at=at, attempt_at=at, deadline_at=event.deadline_at, detail=_detail(event))
    draft.table = draft.table.put(draft.graph.index[event.step], step, draft.token)
    _note_hunger(draft, event.step, step)
    if isinstance(event, ApprovalAsked):
        approvals = {**draft.aside.approvals, event.approval_id: event.step}
        draft.aside = replace(draft.aside, approvals=approvals)


def _detail(event: StepOpened | StepWaiting | ApprovalAsked) -> Parts | Waiting | Asked:
    match event:
        case StepOpened():
            return Parts(event.kind, Table.blocked(event.count))
        case StepWaiting():
            return Waiting(event.until, event.signal)
        case ApprovalAsked():
            return Asked(event)
        case _ as unreachable:
            assert_never(unreachable)


def _stop_parts(draft: RunState, event: StepFailing, at: datetime) -> None:
    step = draft.steps[event.step]
    assert isinstance(step.detail, Parts)
    stopped = replace(step, detail=replace(step.detail, ending=Ending(event.outcome, at, error=event.error)))
    draft.table = draft.table.put(draft.graph.index[event.step], stopped, draft.token)
    _note_hunger(draft, event.step, stopped)


def _note_approval(draft: RunState, event: ApprovalDecided | ApprovalEscalated, at: datetime) -> None:
    step = draft.steps[event.step]
    assert isinstance(step.detail, Asked)
    changed = replace(step, detail=_decided(step.detail, event, at))
    draft.table = draft.table.put(draft.graph.index[event.step], changed, draft.token)


def _decided(approval: Asked, event: ApprovalDecided | ApprovalEscalated, at: datetime) -> Asked:
    match event:
        case ApprovalDecided():
            made = Decision(principal=event.principal, decision=event.decision, reason=event.reason, at=at)
            return replace(approval, decisions=(*approval.decisions, made))
        case ApprovalEscalated():
            return replace(approval, escalation=event)
        case _ as unreachable:
            assert_never(unreachable)


def _place(path: str) -> Place:
    place = place_of(path)
    assert place is not None
    return place
