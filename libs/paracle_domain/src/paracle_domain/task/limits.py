"""Limits of an agent's task: what stops it, and all that it set going, before the next model or tool call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from paracle_domain.errors import ErrorInfo, LimitExceeded, LoopDetected
from paracle_domain.task.state import MadeCall, TaskState

LAPS: Final = 3
_LONGEST_LAP: Final = 4


def next_turn_refused(state: TaskState) -> ErrorInfo | None:
    """Why no further model call may begin."""
    limits, used = state.job.limits, state.spent
    if limits is None:
        return None
    if state.turns >= limits.turns:
        return _exceeded(f"limits.turns: all {limits.turns} turns are used up without a final answer")
    if used.total_tokens >= limits.tokens:
        return _exceeded(f"limits.tokens: {used.total_tokens:,} of {limits.tokens:,} tokens are used")
    if limits.cost_usd is None:
        return None
    if used.cost_usd is None:
        return _exceeded("limits.cost_usd: the price of a call is unknown, so the limit cannot be held; remove it")
    if used.cost_usd >= limits.cost_usd and used.cost_usd > 0:
        return _exceeded(f"limits.cost_usd: {used.cost_usd} of {limits.cost_usd} USD are spent")
    return None


def tool_calls_refused(state: TaskState) -> ErrorInfo | None:
    """Why the tool calls of the newest turn may not begin."""
    limits = state.job.limits
    if limits is None:
        return None
    made = state.spent.tool_calls
    if made > limits.tool_calls:
        return _exceeded(f"limits.tool_calls: the model asks for call {made} of {limits.tool_calls}")
    lap = _circle(state.calls)
    if lap is None:
        return None
    names = " and ".join(dict.fromkeys(repr(call.tool) for call in lap))
    return LoopDetected(
        f"the model called {names} {LAPS} times over with the same arguments, and the results were the same"
    ).to_info()


def _circle(calls: Sequence[MadeCall]) -> Sequence[MadeCall] | None:
    """The lap that the newest turn would begin once more, after `LAPS` of them in which nothing changed.

    A call whose result differs from that of its like is progress.
    """
    first = next(index for index, call in enumerate(calls) if call.turn == calls[-1].turn)
    for newest in range(first, len(calls)):
        for length in range(1, _LONGEST_LAP + 1):
            start = newest - LAPS * length
            if start >= 0 and all(_alike(calls[at], calls[at + length]) for at in range(start, newest + 1 - length)):
                return calls[newest - length : newest]
    return None


def _alike(one: MadeCall, later: MadeCall) -> bool:
    """Whether `later` is the same call again, with the same result if that is known. Until one has a result, who asks
    for the same besides does not know what comes of it: that is no circle.
    """
    if one.fingerprint != later.fingerprint or one.result is None:
        return False
    if later.result is None:
        return True
    return (one.result.content, one.result.is_error) == (later.result.content, later.result.is_error)


def _exceeded(message: str) -> ErrorInfo:
    return LimitExceeded(message).to_info()
