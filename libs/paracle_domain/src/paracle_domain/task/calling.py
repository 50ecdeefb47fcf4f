"""Calls of tools and delegates: refused, held for people, entered into the ledger, sent, and ended."""

from __future__ import annotations

from datetime import datetime
from typing import Final, assert_never

from paracle_domain import errors
from paracle_domain.errors import ParacleError
from paracle_domain.inference.chat import ToolCallPart
from paracle_domain.run.commands import ApprovalStatus, ApprovalView
from paracle_domain.task import events as ev
from paracle_domain.task import inputs as told
from paracle_domain.task.approvals import exact_question, question, rejection
from paracle_domain.task.delegation import Helper, asked_again, child_id, share
from paracle_domain.task.doubts import fail_in_doubt, find_out
from paracle_domain.task.inputs import Outcome
from paracle_domain.task.limits import tool_calls_refused
from paracle_domain.task.messages import TaskStatus
from paracle_domain.task.state import MadeCall, TaskState, effect_key
from paracle_domain.task.story import Story
from paracle_domain.tool.spec import Effect

_ENDS_ALL: Final = frozenset({errors.EffectInDoubt.code, errors.LoopDetected.code})
"""Failures of a delegate that its parent cannot mend by asking again: that would repeat the effect, or the circle."""


def begin_calls(story: Story, message: told.ReplyCame) -> None:
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
            hold_or_intend(story, call, message.at)
    _delegate(story, [call for call in allowed if call.tool in story.state.job.helpers], message.at)
    send(story, message.at)


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


def _delegate(story: Story, calls: list[MadeCall], at: datetime) -> None:
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


def delegate_ended(story: Story, call: MadeCall, message: told.DelegateEnded) -> None:
    result = message.result
    if call.delegated is None:
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


def hold_or_intend(story: Story, call: MadeCall, at: datetime) -> None:
    """Have people asked about a call that they are to decide about; any other one goes ahead."""
    asked = question(story.state.job, call)
    if asked is None:
        _intend(story, call)
    else:
        held = ev.CallHeld(call_id=call.id, tool=call.tool, approval_id=asked.approval_id, digest=asked.digest, at=at)
        story.tell(held)


def call_decided(story: Story, call: MadeCall, message: told.CallDecided) -> None:
    """Make a call that was approved as it stands; of any other one the model is told, or the task fails."""
    view = message.view
    if call.held is None or view.status is ApprovalStatus.OPEN:
        return
    asked = exact_question(story.state.job, call)
    bound = asked.digest == call.held.digest == view.digest
    verdict = view.status if bound else ApprovalStatus.VOID
    story.tell(
        ev.CallReleased(
            call_id=call.id,
            approval_id=call.held.approval_id,
            verdict=verdict,
            decisions=view.decisions,
            waited_s=max(0.0, (message.at - call.held.at).total_seconds()),
        )
    )
    if verdict is ApprovalStatus.APPROVED:
        _intend(story, story.state.call(call.id) or call)
        send(story, message.at)
        return
    error = _not_approved(verdict, view)
    if asked.rules.on_rejection == "fail":
        story.fail(error)
    else:
        story.returned(ev.ToolReturned(call_id=call.id, tool=call.tool, error=error.to_info()))


def _not_approved(verdict: ApprovalStatus, view: ApprovalView) -> ParacleError:
    match verdict:
        case ApprovalStatus.REJECTED:
            who, why = rejection(view)
            return errors.ApprovalRejected(f"{who} rejected this call{why}")
        case ApprovalStatus.EXPIRED:
            return errors.ApprovalExpired("nobody, or too few, decided about this call in time")
        case _:
            return errors.Conflict("the approval of this call is void: something that it was bound to has changed")


def _intend(story: Story, call: MadeCall) -> None:
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
            arguments_digest=call.fingerprint,
        )
    )


def send(story: Story, at: datetime) -> None:
    """Send what is intended, unless an earlier attempt of the step has done it, or may have."""
    earlier = {effect.key: effect for effect in story.state.earlier}
    waiting = [call for call in story.state.open_calls if call.key and not call.sent and call.doubt is None]
    intended = [(call, earlier.get(call.key or "")) for call in waiting]
    doubtful = [call for call, known in intended if known and not known.done and _once(story.state, call)]
    find_out(story, doubtful, "an earlier attempt of the step called it and never heard of its outcome", at)
    if story.state.status.terminal:
        return
    for call, known in intended:
        if call in doubtful:
            continue
        assert call.key is not None
        if known is None or not known.done:
            story.tell(ev.EffectSent(key=call.key, call_id=call.id))
        else:
            story.tell(ev.EffectConfirmed(key=call.key, call_id=call.id))
            story.returned(ev.ToolReturned(call_id=call.id, tool=call.tool, output=known.output, error=known.error))


def _once(state: TaskState, call: MadeCall) -> bool:
    return state.effect(call.tool) is Effect.AT_MOST_ONCE


def _is_out(call: MadeCall) -> bool:
    """Whether a tool may answer it: it waits for no agent, no person and no probe."""
    return call.delegated is None and call.held is None and call.doubt is None


def tool_succeeded(story: Story, call: MadeCall, message: told.ToolSucceeded) -> None:
    if not _is_out(call):
        return
    if call.key is not None:
        story.tell(ev.EffectConfirmed(key=call.key, call_id=call.id))
    story.returned(
        ev.ToolReturned(call_id=call.id, tool=call.tool, output=message.output, duration_s=message.duration_s),
    )


def tool_failed(story: Story, call: MadeCall, message: told.ToolFailed) -> None:
    if not _is_out(call):
        return
    doubtful = call.key is not None and message.outcome is Outcome.UNKNOWN and _once(story.state, call)
    if doubtful and call.tool in story.state.job.probes:
        find_out(story, (call,), message.error.message, message.at, message.error)
        return
    _settle_effect(story, call, message)
    ended = ev.ToolReturned(call_id=call.id, tool=call.tool, error=message.error, duration_s=message.duration_s)
    if doubtful:
        story.tell(ended)
        fail_in_doubt(story, call, message.error.message)
    else:
        story.returned(ended)


def _settle_effect(story: Story, call: MadeCall, message: told.ToolFailed) -> None:
    if call.key is None:
        return
    match message.outcome:
        case Outcome.NOT_DONE:
            story.tell(ev.EffectFailed(key=call.key, call_id=call.id, error=message.error))
        case Outcome.DONE:
            story.tell(ev.EffectConfirmed(key=call.key, call_id=call.id))
        case Outcome.UNKNOWN:
            story.doubt((call,), message.error.message)
        case _:
            assert_never(message.outcome)
