"""The task machine: what a task does next, decided without I/O.

An agent's task asks the model, carries out the tools that it wishes for (all of a turn at once), and asks again until
there is a final answer that fits; a tool's task is one call. The directives follow from the state alone, so that a
process that resumes a task asks for exactly what was under way and for nothing that is done.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final, assert_never

from paracle_domain import errors
from paracle_domain.errors import Finding, ParacleError
from paracle_domain.inference.response import FinishReason
from paracle_domain.machine import Decision
from paracle_domain.task import attached, compaction, prompt
from paracle_domain.task import events as ev
from paracle_domain.task import inputs as told
from paracle_domain.task.calling import (
    begin_calls,
    call_decided,
    delegate_ended,
    hold_or_intend,
    send,
    tool_failed,
    tool_succeeded,
)
from paracle_domain.task.doubts import find_out, leave, probed
from paracle_domain.task.inputs import TaskInput
from paracle_domain.task.messages import TaskStatus
from paracle_domain.task.raising import budget_lifted, held, raise_decided, shortage
from paracle_domain.task.state import TaskState
from paracle_domain.task.story import Story, TaskDecision, wishes
from paracle_domain.task.summing import can_shorten, explained, retry_at, summary_came, summary_failed

MODEL_RETRIES: Final = 6


def decide(state: TaskState, message: TaskInput) -> TaskDecision:
    """What `message` leads to. What comes twice, or too late, changes nothing."""
    if state.status.terminal:
        asked = isinstance(message, told.AcceptTask | told.Resume)
        return Decision(state, (), wishes(state)) if asked else Decision(state)
    story = Story(state)
    match message:
        case told.AcceptTask():
            _accept(story, message)
        case told.ReplyCame():
            _reply_came(story, message)
        case told.ModelFailed():
            _model_failed(story, message)
        case told.ToolSucceeded() | told.ToolFailed() | told.Probed() | told.DelegateEnded() | told.CallDecided():
            _call_came(story, message)
        case told.RaiseDecided():
            raise_decided(story, message)
        case told.BudgetLifted():
            budget_lifted(story, message)
        case told.OutputChecked():
            _output_checked(story, message)
        case told.CancelRequested():
            story.doubt(state.in_doubt(), "cancelled while it was being called")
            story.tell(ev.TaskCancelled(reason=message.reason))
        case told.DeadlinePassed():
            _deadline_passed(story, message)
        case told.Resume():
            return _resume(story, message)
        case _:
            assert_never(message)
    return story.decision()


type _CallInput = told.ToolSucceeded | told.ToolFailed | told.Probed | told.DelegateEnded | told.CallDecided


def _call_came(story: Story, message: _CallInput) -> None:
    """News of a call that is under way; of any other one there is none."""
    call = story.state.call(message.call_id)
    if call is None:
        return
    match message:
        case told.ToolSucceeded():
            tool_succeeded(story, call, message)
        case told.ToolFailed():
            tool_failed(story, call, message)
        case told.Probed():
            probed(story, call, message)
        case told.DelegateEnded():
            delegate_ended(story, call, message)
        case told.CallDecided():
            call_decided(story, call, message)
        case _:
            assert_never(message)


def _accept(story: Story, message: told.AcceptTask) -> None:
    if story.state.status is not TaskStatus.QUEUED:
        return
    job = story.state.job
    expires = _expiry(story.state, message.at)
    story.tell(
        ev.TaskAccepted(task=job.task, revision=job.target.revision, expires_at=expires, earlier=message.earlier)
    )
    if expires is not None and message.at >= expires:
        story.tell(_timed_out(story.state, message.at))
        return
    problems = message.problems or _shape_problems(story.state)
    if problems:
        story.fail(errors.InputInvalid.many(f"input of {job.task.target_kind} {job.task.target!r}", problems))
        return
    if job.agent is None:
        hold_or_intend(story, story.state.open_calls[0], message.at)
        send(story, message.at)
        return
    try:
        prompt.instructions(job.agent, job.task.input)
    except errors.ExpressionFailed as error:
        story.fail(error)


def _expiry(state: TaskState, at: datetime) -> datetime | None:
    limits, deadline = state.job.limits, state.job.task.deadline_at
    if limits is None:
        return deadline
    wall = at + timedelta(seconds=limits.wall_time_s)
    return wall if deadline is None else min(wall, deadline)


def _shape_problems(state: TaskState) -> tuple[Finding, ...]:
    value = state.job.task.input
    if state.job.agent is not None:
        return attached.problems(value)
    if isinstance(value, dict):
        return ()
    return (Finding(path="input", message=f"a tool takes named arguments, not {errors.quote(value)}"),)


def _reply_came(story: Story, message: told.ReplyCame) -> None:
    state, reply = story.state, message.completion
    if not state.wants_model or message.call_id != state.model_call_id:
        return
    upto = compaction.due(state)
    if upto is not None:
        summary_came(story, upto, message)
        return
    story.tell(
        ev.ModelReplied(
            call_id=message.call_id,
            turn=state.turn + 1,
            message=reply.message,
            finish_reason=reply.finish_reason,
            usage=reply.usage,
            saved=reply.saved,
            provider=reply.provider,
            model=reply.model,
            sandbox=reply.sandbox,
            latency_s=reply.latency_s,
            agent=state.job.task.target,
            step=state.job.task.step,
        )
    )
    if reply.finish_reason is FinishReason.CONTENT_FILTER:
        story.fail(errors.ContentRefused(f"the content filter of {reply.provider} stopped the reply of {reply.model}"))
    elif reply.message.tool_calls:
        begin_calls(story, message)
    elif reply.finish_reason is FinishReason.LENGTH:
        story.fail(errors.LimitExceeded("model.max_output_tokens cut the final answer off; raise it"))
    else:
        _answered(story, reply.message.text)


def _answered(story: Story, text: str) -> None:
    """Text is the answer of an agent without an output schema; JSON waits to be checked."""
    agent = story.state.job.agent
    if not text.strip():
        _reject(story, (Finding(path="", message="it is empty"),))
    elif agent is not None and agent.spec.output is None:
        story.tell(ev.TaskCompleted(output=text))


def _model_failed(story: Story, message: told.ModelFailed) -> None:
    state = story.state
    if not state.wants_model or message.call_id != state.model_call_id:
        return
    if compaction.due(state) is not None:
        summary_failed(story, message)
        return
    short = shortage(message.error)
    if short is not None:
        story.tell(ev.ModelCallFailed(call_id=message.call_id, error=message.error))
        story.tell(held(state, message.call_id, message.error, short, message.at))
        return
    shorten = can_shorten(state, message.error)
    again = message.at if shorten else retry_at(state, message, MODEL_RETRIES)
    story.tell(ev.ModelCallFailed(call_id=message.call_id, error=message.error, retry_at=again))
    if again is None:
        story.fail(explained(state, message.error))


def _output_checked(story: Story, message: told.OutputChecked) -> None:
    if story.state.answer is None or message.turn != story.state.turn:
        return
    if message.problems and story.state.handed_over:
        story.fail(errors.OutputInvalid.many("what the agent that took over answered does not fit", message.problems))
    elif message.problems:
        _reject(story, message.problems)
    else:
        story.tell(ev.TaskCompleted(output=message.value))


def _reject(story: Story, problems: tuple[Finding, ...]) -> None:
    agent = story.state.job.agent
    story.tell(ev.OutputRejected(problems=problems))
    if agent is not None and story.state.rejections > agent.spec.limits.output_repairs:
        times = f"after {agent.spec.limits.output_repairs} repairs"
        story.fail(errors.OutputInvalid.many(f"the answer of agent {agent.name!r} does not fit {times}", problems))


def _deadline_passed(story: Story, message: told.DeadlinePassed) -> None:
    state = story.state
    if state.due_at is None or message.at < state.due_at:
        return
    doubtful = state.in_doubt()
    if doubtful:
        leave(story, doubtful, "the time was up while it was being called")
    else:
        story.tell(_timed_out(state, message.at))


def _timed_out(state: TaskState, at: datetime) -> ev.TaskTimedOut:
    task, limits = state.job.task, state.job.limits
    error: ParacleError
    why = f"; its model did not answer: {state.trouble.message}" if state.tried and state.trouble is not None else ""
    if task.deadline_at is not None and at >= task.deadline_at:
        error = errors.DeadlineExceeded(f"the task was not done by {task.deadline_at.isoformat()}{why}")
    else:
        limit = limits.wall_time_s if limits else 0
        error = errors.LimitExceeded(f"limits.wall_time_s: the task took longer than {limit:g} s{why}")
    return ev.TaskTimedOut(error=error.to_info())


def _resume(story: Story, message: told.Resume) -> TaskDecision:
    """Ask again for all that was under way, except what may have been done and must not be repeated."""
    doubtful = [call for call in story.state.in_doubt() if call.doubt is None]
    find_out(story, doubtful, "the process that called it ended before it answered", message.at)
    return Decision(story.state, tuple(story.events), wishes(story.state))
