"""What follows from a task's state: what is to be done in it, how it stands, and the story of one decision."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import assert_never

from paracle_domain.errors import ErrorInfo, ParacleError
from paracle_domain.machine import Decision
from paracle_domain.run.commands import AskForCall
from paracle_domain.task import compaction
from paracle_domain.task import events as ev
from paracle_domain.task.approvals import exact_question
from paracle_domain.task.delegation import child_task
from paracle_domain.task.directives import (
    AskAgent,
    AskForRaise,
    AskPeople,
    CallModel,
    CheckOutput,
    InvokeTool,
    ProbeEffect,
    ReportResult,
    TaskDirective,
)
from paracle_domain.task.limits import next_turn_refused
from paracle_domain.task.messages import TaskResult
from paracle_domain.task.raising import ask_for_raise
from paracle_domain.task.state import MadeCall, TaskState, called_as, evolve

type TaskDecision = Decision[TaskState, ev.TaskEvent, TaskDirective]


def wishes(state: TaskState) -> tuple[TaskDirective, ...]:
    """Everything that is to be done in `state`, whether or not it is under way."""
    if state.status.terminal:
        return (ReportResult(result_of(state)),)
    if state.answer is not None:
        return (CheckOutput(state.turn, state.answer),)
    if state.held is not None:
        return (ask_for_raise(state.job, state.held),)
    if state.wants_model:
        return (CallModel(state.model_call_id, state.retry_at, sums_up=compaction.due(state) is not None),)
    return tuple(_wish(state, call) for call in state.open_calls)


def _wish(state: TaskState, call: MadeCall) -> TaskDirective:
    if call.delegated is not None:
        return AskAgent(call.id, call.tool, child_task(state, call))
    if call.held is not None:
        return _ask_people(state, call, call.held)
    if call.doubt is not None:
        doubt = call.doubt
        return ProbeEffect(call.id, call.tool, call.arguments, doubt.key, doubt.tried, doubt.retry_at)
    return InvokeTool(call.id, call.tool, call.arguments, call.key)


def _ask_people(state: TaskState, call: MadeCall, held: ev.CallHeld) -> AskPeople:
    task = state.job.task
    asked = exact_question(state.job, call)
    request = AskForCall(
        approval_id=asked.approval_id,
        run_id=task.run_id,
        task_id=task.task_id,
        step=task.step,
        tool=call.tool,
        ask=asked.ask,
        action=asked.action,
        digest=asked.digest,
        asked_at=held.at,
        principals=asked.rules.principals,
        roles=asked.rules.roles,
        quorum=asked.rules.quorum,
        own=asked.rules.own,
        expires_s=asked.rules.expires_s,
        escalate_to=asked.rules.escalate_to,
    )
    return AskPeople(call.id, request)


def result_of(state: TaskState) -> TaskResult:
    """How the task ended, or stands, for the orchestrator."""
    task = state.job.task
    return TaskResult(
        task_id=task.task_id,
        run_id=task.run_id,
        step=task.step,
        attempt=task.attempt,
        status=state.status,
        output=state.output,
        error=state.error,
        usage=state.spent,
        waited_s=state.waited_s,
    )


class Story:
    """The events of one decision, each folded in as it is told."""

    def __init__(self, state: TaskState) -> None:
        self.before = state
        self.state = state
        self.events: list[ev.TaskEvent] = []

    def tell(self, *events: ev.TaskEvent) -> None:
        for event in events:
            self.events.append(event)
            self.state = evolve(self.state, event)

    def fail(self, error: ParacleError | ErrorInfo, doubtful: Sequence[MadeCall] = (), reason: str = "") -> None:
        """End the task; for `reason`, nobody knows whether `doubtful` had their effects.

        What else it had sent, and must not repeat, is stopped with it, and so in doubt as well.
        """
        known = {call.id for call in doubtful}
        others = [call for call in self.state.in_doubt() if call.id not in known]
        self.doubt(doubtful, reason)
        self.doubt(others, "the task failed while it was being called")
        self.tell(ev.TaskFailed(error=error if isinstance(error, ErrorInfo) else error.to_info()))

    def doubt(
        self,
        calls: Sequence[MadeCall],
        reason: str,
        *,
        probe: str | None = None,
        error: ErrorInfo | None = None,
        at: datetime | None = None,
    ) -> None:
        """Nobody knows whether `calls` have had their effects; they are probed from `at` on, or not at all."""
        for call in calls:
            assert call.key is not None
            called = called_as(self.state, call)
            self.tell(
                ev.EffectInDoubt(
                    key=call.key,
                    call_id=call.id,
                    tool=call.tool,
                    reason=reason,
                    probe=probe,
                    called=called if called != call.key else None,
                    error=error,
                    at=at,
                )
            )

    def returned(self, event: ev.ToolReturned) -> None:
        """A tool's task ends with its call; an agent's goes on."""
        self.tell(event)
        if self.state.job.agent is not None:
            return
        if event.error is None:
            self.tell(ev.TaskCompleted(output=event.output))
        else:
            self.fail(event.error)

    def refuse(self, call: MadeCall, error: ParacleError) -> None:
        """Let the model know why `call` is not made."""
        self.tell(ev.ToolReturned(call_id=call.id, tool=call.tool, error=error.to_info()))

    def decision(self) -> TaskDecision:
        """The events, and what is to be done now that was not under way before."""
        if not self.events:
            return Decision(self.state)
        refused = next_turn_refused(self.state) if self.state.wants_model else None
        if refused is not None:
            self.fail(refused)
        due = wishes(self.state)
        if not self.state.status.terminal:  # nothing that was wished before is what an ended task wishes
            before = {_name(wish) for wish in wishes(self.before)}
            due = tuple(wish for wish in due if _name(wish) not in before)
        return Decision(self.state, tuple(self.events), due)


def _name(wish: TaskDirective) -> str:
    match wish:
        case CallModel():
            return f"{wish.call_id}@{wish.not_before}"  # one that nobody answered keeps its id
        case InvokeTool() | AskAgent():
            return wish.call_id
        case AskPeople():
            return f"ask.{wish.call_id}"
        case AskForRaise():
            return f"raise.{wish.request.approval_id}"
        case ProbeEffect():
            return f"probe.{wish.call_id}.{wish.tried}"
        case CheckOutput() | ReportResult():
            return type(wish).__name__  # there is one at a time
        case _:
            assert_never(wish)
