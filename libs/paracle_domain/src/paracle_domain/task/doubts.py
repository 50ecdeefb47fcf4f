"""Calls in doubt: probed where their tool says how, and otherwise the end of their task, for people to find out."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import assert_never

from paracle_domain import errors
from paracle_domain.errors import ErrorInfo, ParacleError
from paracle_domain.task import events as ev
from paracle_domain.task import inputs as told
from paracle_domain.task.backoff import pause_s
from paracle_domain.task.inputs import Outcome
from paracle_domain.task.state import Doubt, MadeCall, TaskState
from paracle_domain.task.story import Story
from paracle_domain.tool.spec import Probe

_NO_TIME = "there is no time left to wait until the call can no longer be on its way"


def find_out(
    story: Story, calls: Sequence[MadeCall], reason: str, at: datetime, error: ErrorInfo | None = None
) -> None:
    """Have `calls`, which may have been carried out and must not be repeated, probed; all of them, or the task ends.

    They may have failed with `error`.
    """
    probes = story.state.job.probes
    hopeless = [call for call in calls if call.tool not in probes]
    if hopeless:
        story.fail(_doubt_error(hopeless[0], reason), calls, reason)
        return
    for call in calls:
        story.doubt((call,), reason, probe=probes[call.tool].name, error=error, at=at)


def leave(story: Story, calls: Sequence[MadeCall], reason: str) -> None:
    """End the task: there is no time to find out what became of `calls`."""
    story.fail(_doubt_error(calls[0], reason), calls, reason)


def probed(story: Story, call: MadeCall, message: told.Probed) -> None:
    """Believe what a probe says of `call`, or ask it again."""
    doubt = call.doubt
    if doubt is None or message.tried != doubt.tried:
        return
    assert call.key is not None
    probe = story.state.job.tools[call.tool].spec.probe
    assert probe is not None
    outcome, reason, retry_at = _judged(story.state, call, doubt, probe, message)
    story.tell(
        ev.EffectProbed(
            key=call.key,
            call_id=call.id,
            probe=probe.tool,
            outcome=outcome.value,
            reason=reason,
            tried=doubt.tried + 1,
            retry_at=retry_at,
            duration_s=message.duration_s,
        )
    )
    if retry_at is None:
        _believe(story, call, doubt, outcome, message, reason)


def _believe(
    story: Story, call: MadeCall, doubt: Doubt, outcome: Outcome, message: told.Probed, reason: str | None
) -> None:
    assert call.key is not None
    match outcome:
        case Outcome.DONE:
            story.tell(ev.EffectConfirmed(key=call.key, call_id=call.id))
            story.returned(
                ev.ToolReturned(
                    call_id=call.id,
                    tool=call.tool,
                    output=message.output,
                    error=message.error,
                    duration_s=message.duration_s,
                )
            )
        case Outcome.NOT_DONE if doubt.error is not None:
            story.tell(ev.EffectFailed(key=call.key, call_id=call.id, error=doubt.error))
            story.returned(ev.ToolReturned(call_id=call.id, tool=call.tool, error=doubt.error))
        case Outcome.NOT_DONE:
            story.tell(ev.EffectSent(key=call.key, call_id=call.id))
        case Outcome.UNKNOWN:
            leave(story, (call,), f"{doubt.reason}; {reason}")
        case _:
            assert_never(outcome)


def _judged(
    state: TaskState, call: MadeCall, doubt: Doubt, probe: Probe, message: told.Probed
) -> tuple[Outcome, str | None, datetime | None]:
    """What is to be believed and why, and when the probe is asked again.

    That something was not done says little as long as it may still be on its way; and a probe that took its time may
    have looked when it began.
    """
    match message.outcome:
        case Outcome.DONE:
            return Outcome.DONE, None, None
        case Outcome.NOT_DONE:
            settled = doubt.since + timedelta(seconds=probe.settle_s)
            if message.at - timedelta(seconds=message.duration_s) >= settled:
                return Outcome.NOT_DONE, None, None
            again = max(settled, message.at)
            if _in_time(state, again):
                return Outcome.NOT_DONE, "it may still be on its way", again
            return Outcome.UNKNOWN, _NO_TIME, None
        case Outcome.UNKNOWN:
            again = message.at + timedelta(seconds=pause_s(f"{call.id}.{doubt.tried}", doubt.tried))
            hopeful = doubt.tried + 1 < probe.attempts and _in_time(state, again)
            return Outcome.UNKNOWN, message.reason, again if hopeful else None
        case _:
            assert_never(message.outcome)


def _in_time(state: TaskState, at: datetime) -> bool:
    return state.due_at is None or at < state.due_at


def _doubt_error(call: MadeCall, reason: str) -> ParacleError:
    return errors.EffectInDoubt(
        f"tool {call.tool!r} may or may not have done what it was asked ({reason}); it is at_most_once, so it is not "
        f"called again. Find out what became of it, and say so with `paracle effects resolve {call.key}`"
    )


def fail_in_doubt(story: Story, call: MadeCall, reason: str) -> None:
    """End the task after `call`, which has returned, and of which nobody can find out by a probe what became of it."""
    story.fail(_doubt_error(call, reason))
