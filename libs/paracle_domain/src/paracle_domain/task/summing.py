"""Summing up within a task: what comes of the model call that is to do it, and of calls that were too long.

A summary that fails never trims anything: the model is asked with all there is, as long as that is not too long for it.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from paracle_domain.errors import ContextExceeded, ErrorInfo, OutputInvalid
from paracle_domain.inference.response import Completion, FinishReason
from paracle_domain.task import compaction
from paracle_domain.task import events as ev
from paracle_domain.task import inputs as told
from paracle_domain.task.backoff import pause_s
from paracle_domain.task.past import summed_up
from paracle_domain.task.state import TaskState
from paracle_domain.task.story import Story

SUMMARY_RETRIES: Final = 3


def retry_at(state: TaskState, message: told.ModelFailed, retries: int) -> datetime | None:
    """When a model call that failed is made again, if it is."""
    if not message.error.retryable or state.tried >= retries:
        return None
    wait = pause_s(message.call_id, state.tried)
    at = message.at + timedelta(seconds=max(wait, message.error.retry_after_s or 0.0))
    return None if state.expires_at is not None and at >= state.expires_at else at


def summary_came(story: Story, upto: int, message: told.ReplyCame) -> None:
    """The messages before `upto` were summed up, if what came is of use."""
    state, reply = story.state, message.completion
    summary = reply.message.text.strip()
    saved, spent = compaction.spared(state, upto), sum(map(compaction.weight, summed_up(summary)))
    why = _useless(reply, summary, spent, saved)
    task = state.job.task
    if why is None:
        story.tell(
            ev.TaskCompacted(
                call_id=message.call_id,
                upto=upto,
                summary=summary,
                tokens_before=compaction.size(state),
                tokens_after=compaction.length_after(state, upto, spent),
                usage=reply.usage,
                provider=reply.provider,
                model=reply.model,
                sandbox=reply.sandbox,
                latency_s=reply.latency_s,
                agent=task.target,
                step=task.step,
            )
        )
        return
    error = OutputInvalid(f"the summary by {reply.provider}/{reply.model} is of no use: {why}").to_info()
    story.tell(
        ev.CompactionFailed(
            call_id=message.call_id,
            error=error,
            usage=reply.usage,
            provider=reply.provider,
            model=reply.model,
            agent=task.target,
            step=task.step,
        )
    )
    _go_on_without(story, error)


def _useless(reply: Completion, summary: str, spent: int, saved: int) -> str | None:
    if reply.finish_reason is not FinishReason.STOP:
        return f"it did not come to its end ({reply.finish_reason})"
    if not summary:
        return "it is empty"
    return "it is as long as what it sums up" if spent >= saved else None


def summary_failed(story: Story, message: told.ModelFailed) -> None:
    """Nobody summed up: try again later, or go on without."""
    again = retry_at(story.state, message, SUMMARY_RETRIES)
    story.tell(ev.CompactionFailed(call_id=message.call_id, error=message.error, retry_at=again))
    if again is None:
        _go_on_without(story, message.error)


def _go_on_without(story: Story, error: ErrorInfo) -> None:
    if story.state.overflowed:
        story.fail(
            ContextExceeded(
                f"the conversation is too long for the model, and summing it up failed: {error.code}: {error.message}"
            )
        )


def can_shorten(state: TaskState, error: ErrorInfo) -> bool:
    """Whether a model call that failed with `error` was too long, and something can be done about that."""
    return error.code == ContextExceeded.code and compaction.due(replace(state, overflowed=True)) is not None


def explained(state: TaskState, error: ErrorInfo) -> ErrorInfo:
    """`error`, and why nothing is done about it where a call was too long."""
    agent = state.job.agent
    if error.code != ContextExceeded.code or agent is None:
        return error
    if agent.spec.compaction.when == "never":
        why = "compaction.when is never; let it be auto, or choose a model that reads more at once"
    elif state.unsummed == state.turn:
        why = "summing up what was said before failed"
    else:
        why = "nothing is left to sum up; ask for less at once, or choose a model that reads more"
    return error.model_copy(update={"message": f"{error.message} ({why})"})
