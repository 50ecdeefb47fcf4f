"""The task machine: what a task does next, decided without I/O.

An agent's task asks the model, carries out the tools that it wishes for (all of a turn at once), and asks again until
there is a final answer that fits; a tool's task is one call. The directives follow from the state alone, so that a
process that resumes a task asks for exactly what was under way and for nothing that is done.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final, assert_never

from paracle_domain import errors
from paracle_domain.errors import ErrorInfo, Finding, ParacleError
from paracle_domain.inference.chat import ToolCallPart
from paracle_domain.inference.response import FinishReason
from paracle_domain.machine import Decision
from paracle_domain.task import events as ev
from paracle_domain.task import inputs as told
from paracle_domain.task import prompt
from paracle_domain.task.delegation import Helper, asked_again, child_id, child_task, share
from paracle_domain.task.directives import AskAgent, CallModel, CheckOutput, InvokeTool, ReportResult, TaskDirective
from paracle_domain.task.inputs import Outcome, TaskInput
from paracle_domain.task.limits import next_turn_refused, tool_calls_refused
from paracle_domain.task.messages import TaskResult, TaskStatus
from paracle_domain.task.state import MadeCall, TaskState, effect_key, evolve, fingerprint
from paracle_domain.tool.spec import Effect

MODEL_RETRIES: Final = 6
_FIRST_WAIT_S: Final = 0.5
_LONGEST_WAIT_S: Final = 15.0

_ENDS_ALL: Final = frozenset({errors.EffectInDoubt.code, errors.LoopDetected.code})
"""Failures of a delegate that its parent cannot mend by asking again: that would repeat the effect, or the circle."""

type TaskDecision = Decision[ev.TaskEvent, TaskDirective]


def decide(state: TaskState, message: TaskInput) -> TaskDecision:
    """What `message` leads to. What comes twice, or too late, changes nothing."""
    if state.status.terminal:
        asked = isinstance(message, told.AcceptTask | told.Resume)
        return Decision((), wishes(state)) if asked else Decision()
    story = _Story(state)
    match message:
        case told.AcceptTask():
            _accept(story, message)
        case told.ReplyCame():
            _reply_came(story, message)
        case told.ModelFailed():
            _model_failed(story, message)
        case told.ToolSucceeded():
            _tool_succeeded(story, message)
        case told.ToolFailed():
            _tool_failed(story, message)
        case told.DelegateEnded():
            _delegate_ended(story, message)
        case told.OutputChecked():
            _output_checked(story, message)
        case told.CancelRequested():
            _doubt(story, state.in_doubt(), "cancelled while it was being called")
            story.tell(ev.TaskCancelled(reason=message.reason))
        case told.DeadlinePassed():
            _deadline_passed(story, message)
        case told.Resume():
            return _resume(story)
        case _:
            assert_never(message)
    return story.decision()


def wishes(state: TaskState) -> tuple[TaskDirective, ...]:
    """Everything that is to be done in `state`, whether or not it is under way."""
    if state.status.terminal:
        return (ReportResult(result_of(state)),)
    if state.answer is not None:
        return (CheckOutput(state.turn, state.answer),)
    if state.wants_model:
        return (CallModel(state.model_call_id, state.retry_at),)
    return tuple(_wish(state, call) for call in state.open_calls)


def _wish(state: TaskState, call: MadeCall) -> TaskDirective:
    if call.delegated is not None:
        return AskAgent(call.id, child_task(state, call))
    return InvokeTool(call.id, call.tool, call.arguments, call.key)


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


class _Story:
    """The events of one decision, each folded in as it is told."""

    def __init__(self, state: TaskState) -> None:
        self.before = state
        self.state = state
        self.events: list[ev.TaskEvent] = []

    def tell(self, *events: ev.TaskEvent) -> None:
        for event in events:
            self.events.append(event)
            self.state = evolve(self.state, event)

    def fail(self, error: ParacleError | ErrorInfo) -> None:
        self.tell(ev.TaskFailed(error=error if isinstance(error, ErrorInfo) else error.to_info()))

    def refuse(self, call: MadeCall, error: ParacleError) -> None:
        """Let the model know why `call` is not made."""
        self.tell(ev.ToolReturned(call_id=call.id, tool=call.tool, error=error.to_info()))

    def decision(self) -> TaskDecision:
        """The events, and what is to be done now that was not under way before."""
        if not self.events:
            return Decision()
        refused = next_turn_refused(self.state) if self.state.wants_model else None
        if refused is not None:
            self.fail(refused)
        before = {_name(wish) for wish in wishes(self.before)}
        return Decision(tuple(self.events), tuple(wish for wish in wishes(self.state) if _name(wish) not in before))


def _name(wish: TaskDirective) -> str:
    match wish:
        case CallModel() | InvokeTool() | AskAgent():
            return wish.call_id
        case CheckOutput():
            return f"check.{wish.turn}"
        case ReportResult():
            return "report"
        case _:
            assert_never(wish)


def _accept(story: _Story, message: told.AcceptTask) -> None:
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
        _intend(story, story.state.open_calls[0])
        _send(story)
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
    if state.job.agent is not None or isinstance(value, dict):
        return ()
    return (Finding(path="input", message=f"a tool takes named arguments, not {errors.quote(value)}"),)


def _reply_came(story: _Story, message: told.ReplyCame) -> None:
    state, reply = story.state, message.completion
    if not state.wants_model or message.call_id != state.model_call_id:
        return
    story.tell(
        ev.ModelReplied(
            call_id=message.call_id,
            turn=state.turn + 1,
            message=reply.message,
            finish_reason=reply.finish_reason,
            usage=reply.usage,
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
        _begin_calls(story, message)
    elif reply.finish_reason is FinishReason.LENGTH:
        story.fail(errors.LimitExceeded("model.max_output_tokens cut the final answer off; raise it"))
    else:
        _answered(story, reply.message.text)


def _answered(story: _Story, text: str) -> None:
    """Text is the answer of an agent without an output schema; JSON waits to be checked."""
    agent = story.state.job.agent
    if not text.strip():
        _reject(story, (Finding(path="", message="it is empty"),))
    elif agent is not None and agent.spec.output is None:
        story.tell(ev.TaskCompleted(output=text))


def _begin_calls(story: _Story, message: told.ReplyCame) -> None:
    refused = tool_calls_refused(story.state)
    if refused is not None:
        story.fail(refused)
        return
    allowed: list[MadeCall] = []
    for index, (call, wish) in enumerate(
        zip(story.state.open_calls, message.completion.message.tool_calls, strict=True)
    ):
        error = _call_refused(story.state, wish, message.refused.get(index))
        if isinstance(error, errors.LoopDetected):
            story.fail(error)
            return
        if error is None:
            allowed.append(call)
        else:
            story.refuse(call, error)
    for call in allowed:
        if call.tool in story.state.job.tools:
            _intend(story, call)
    _delegate(story, [call for call in allowed if call.tool in story.state.job.helpers], message.at)
    _send(story)


def _call_refused(state: TaskState, wish: ToolCallPart, problem: str | None) -> ParacleError | None:
    job = state.job
    helper = job.helpers.get(wish.name)
    if wish.name not in job.tools and helper is None:
        known = ", ".join([*job.tools, *job.helpers]) or "none"
        return errors.NotFound(f"there is no tool {errors.quote(wish.name)}; your tools are: {known}")
    if wish.invalid is not None:
        return errors.InputInvalid(f"the arguments are no JSON object: {errors.quote(wish.invalid)}")
    if problem is not None:
        return errors.InputInvalid(problem)
    return _delegation_refused(state, wish, helper) if helper is not None else None


def _delegation_refused(state: TaskState, wish: ToolCallPart, helper: Helper) -> ParacleError | None:
    if helper.handoff and sum(call.turn == state.turn for call in state.calls) > 1:
        return errors.InputInvalid("hand over in a turn of its own: nobody would read what the other calls give")
    return asked_again(state.job.task, helper.agent.name, helper.input_of(wish.arguments))


def _delegate(story: _Story, calls: list[MadeCall], at: datetime) -> None:
    """Set the delegates of a turn to work, each with its share of what is left."""
    state = story.state
    if not calls:
        return
    assert state.job.limits is not None
    assert state.expires_at is not None
    left_s = (state.expires_at - at).total_seconds()
    given = share(state.job.limits, state.turns, state.spent, left_s, len(calls))
    for call in calls:
        if isinstance(given, ParacleError):
            story.refuse(call, given)
            continue
        delegate = state.job.helpers[call.tool].delegate
        story.tell(
            ev.TaskDelegated(
                call_id=call.id,
                agent=delegate.agent,
                mode=delegate.mode,
                task_id=child_id(state.job.task, call.id),
                allowance=given,
            )
        )


def _delegate_ended(story: _Story, message: told.DelegateEnded) -> None:
    call, result = story.state.call(message.call_id), message.result
    if call is None or call.delegated is None:
        return
    error = result.error if result.status is not TaskStatus.COMPLETED else None
    story.tell(
        ev.ToolReturned(
            call_id=call.id,
            tool=call.tool,
            output=result.output,
            error=error,
            duration_s=message.duration_s,
            usage=result.usage,
            waited_s=result.waited_s,
        )
    )
    if error is not None:
        if call.delegated.mode == "handoff" or error.code in _ENDS_ALL:
            story.fail(error)
    elif story.state.handed_over and story.state.answer is None:
        story.tell(ev.TaskCompleted(output=result.output))


def _intend(story: _Story, call: MadeCall) -> None:
    """Enter a call that changes the world into the ledger."""
    effect = story.state.effect(call.tool)
    if effect is Effect.NONE:
        return
    story.tell(
        ev.EffectIntended(
            key=effect_key(story.state, call),
            call_id=call.id,
            tool=call.tool,
            revision=story.state.job.tools[call.tool].revision,
            effect=effect,
            arguments_digest=fingerprint(call.tool, call.arguments),
        )
    )


def _send(story: _Story) -> None:
    """Send what is intended, unless an earlier attempt of the step has done it, or may have."""
    earlier = {effect.key: effect for effect in story.state.earlier}
    intended = [(call, earlier.get(call.key)) for call in story.state.open_calls if call.key and not call.sent]
    doubtful = tuple(call for call, known in intended if known and not known.done and _once(story.state, call))
    if doubtful:
        reason = "an earlier attempt of the step called it and never heard of its outcome"
        _doubt(story, doubtful, reason)
        story.fail(_doubt_error(doubtful[0], reason))
        return
    for call, known in intended:
        assert call.key is not None
        if known is None or not known.done:
            story.tell(ev.EffectSent(key=call.key, call_id=call.id))
        else:
            story.tell(ev.EffectConfirmed(key=call.key, call_id=call.id))
            _tool_ended(story, ev.ToolReturned(call_id=call.id, tool=call.tool, output=known.output, error=known.error))


def _once(state: TaskState, call: MadeCall) -> bool:
    return state.effect(call.tool) is Effect.AT_MOST_ONCE


def _tool_ended(story: _Story, event: ev.ToolReturned) -> None:
    """A tool's task ends with its call; an agent's goes on."""
    story.tell(event)
    if story.state.job.agent is not None:
        return
    if event.error is None:
        story.tell(ev.TaskCompleted(output=event.output))
    else:
        story.fail(event.error)


def _model_failed(story: _Story, message: told.ModelFailed) -> None:
    state = story.state
    if not state.wants_model or message.call_id != state.model_call_id:
        return
    retry_at = _retry_at(state, message) if message.error.retryable and state.tried < MODEL_RETRIES else None
    if retry_at is not None and state.expires_at is not None and retry_at >= state.expires_at:
        retry_at = None
    story.tell(ev.ModelCallFailed(call_id=message.call_id, error=message.error, retry_at=retry_at))
    if retry_at is None:
        story.fail(message.error)


def _retry_at(state: TaskState, message: told.ModelFailed) -> datetime:
    """Exponential back-off varied by ± half; the variation follows from the call, so it is the same in a replay."""
    share = int(fingerprint(message.call_id, {})[:8], 16) / 0xFFFF_FFFF
    wait = min(_FIRST_WAIT_S * 2**state.tried, _LONGEST_WAIT_S) * (0.5 + share)
    return message.at + timedelta(seconds=max(wait, message.error.retry_after_s or 0.0))


def _tool_succeeded(story: _Story, message: told.ToolSucceeded) -> None:
    call = story.state.call(message.call_id)
    if call is None:
        return
    if call.key is not None:
        story.tell(ev.EffectConfirmed(key=call.key, call_id=call.id))
    _tool_ended(
        story,
        ev.ToolReturned(call_id=call.id, tool=call.tool, output=message.output, duration_s=message.duration_s),
    )


def _tool_failed(story: _Story, message: told.ToolFailed) -> None:
    call = story.state.call(message.call_id)
    if call is None:
        return
    doubtful = call.key is not None and message.outcome is Outcome.UNKNOWN
    _settle_effect(story, call, message)
    ended = ev.ToolReturned(call_id=call.id, tool=call.tool, error=message.error, duration_s=message.duration_s)
    if doubtful and _once(story.state, call):
        story.tell(ended)
        story.fail(_doubt_error(call, message.error.message))
    else:
        _tool_ended(story, ended)


def _settle_effect(story: _Story, call: MadeCall, message: told.ToolFailed) -> None:
    if call.key is None:
        return
    match message.outcome:
        case Outcome.NOT_DONE:
            story.tell(ev.EffectFailed(key=call.key, call_id=call.id, error=message.error))
        case Outcome.DONE:
            story.tell(ev.EffectConfirmed(key=call.key, call_id=call.id))
        case Outcome.UNKNOWN:
            _doubt(story, (call,), message.error.message)
        case _:
            assert_never(message.outcome)


def _doubt(story: _Story, calls: tuple[MadeCall, ...], reason: str) -> None:
    for call in calls:
        assert call.key is not None
        story.tell(ev.EffectInDoubt(key=call.key, call_id=call.id, tool=call.tool, reason=reason))


def _doubt_error(call: MadeCall, reason: str) -> ParacleError:
    return errors.EffectInDoubt(
        f"tool {call.tool!r} may or may not have done what it was asked ({reason}); it is at_most_once, so it is not "
        f"called again. Find out by its key {call.key} what happened"
    )


def _output_checked(story: _Story, message: told.OutputChecked) -> None:
    if story.state.answer is None or message.turn != story.state.turn:
        return
    if message.problems and story.state.handed_over:
        story.fail(errors.OutputInvalid.many("what the agent that took over answered does not fit", message.problems))
    elif message.problems:
        _reject(story, message.problems)
    else:
        story.tell(ev.TaskCompleted(output=message.value))


def _reject(story: _Story, problems: tuple[Finding, ...]) -> None:
    agent = story.state.job.agent
    story.tell(ev.OutputRejected(problems=problems))
    if agent is not None and story.state.rejections > agent.spec.limits.output_repairs:
        times = f"after {agent.spec.limits.output_repairs} repairs"
        story.fail(errors.OutputInvalid.many(f"the answer of agent {agent.name!r} does not fit {times}", problems))


def _deadline_passed(story: _Story, message: told.DeadlinePassed) -> None:
    state = story.state
    if state.due_at is None or message.at < state.due_at:
        return
    doubtful = state.in_doubt()
    if doubtful:
        _doubt(story, doubtful, "the time was up while it was being called")
        story.fail(_doubt_error(doubtful[0], "the time was up"))
    else:
        story.tell(_timed_out(state, message.at))


def _timed_out(state: TaskState, at: datetime) -> ev.TaskTimedOut:
    task, limits = state.job.task, state.job.limits
    error: ParacleError
    if task.deadline_at is not None and at >= task.deadline_at:
        error = errors.DeadlineExceeded(f"the task was not done by {task.deadline_at.isoformat()}")
    else:
        limit = limits.wall_time_s if limits else 0
        error = errors.LimitExceeded(f"limits.wall_time_s: the task took longer than {limit:g} s")
    return ev.TaskTimedOut(error=error.to_info())


def _resume(story: _Story) -> TaskDecision:
    """Ask again for all that was under way, except what may have been done and must not be repeated."""
    doubtful = story.state.in_doubt()
    if doubtful:
        reason = "the process that called it ended before it answered"
        _doubt(story, doubtful, reason)
        story.fail(_doubt_error(doubtful[0], reason))
    return Decision(tuple(story.events), wishes(story.state))
