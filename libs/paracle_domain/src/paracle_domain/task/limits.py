"""Limits of an agent's task: what stops it before the next model or tool call."""

from __future__ import annotations

from typing import Final

from paracle_domain.errors import ErrorInfo
from paracle_domain.task.state import TaskState

LOOP_LENGTH: Final = 4


def next_turn_refused(state: TaskState) -> ErrorInfo | None:
    """Why no further model call may begin."""
    agent = state.job.agent
    if agent is None:
        return None
    limits, used = agent.spec.limits, state.usage
    if state.turn >= limits.turns:
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
    agent = state.job.agent
    if agent is None:
        return None
    allowed = agent.spec.limits.tool_calls
    if len(state.calls) > allowed:
        return _exceeded(f"limits.tool_calls: the model asks for call {len(state.calls)} of {allowed}")
    last = state.calls[-LOOP_LENGTH:]
    if len(last) == LOOP_LENGTH and len({call.fingerprint for call in last}) == 1:
        name = last[0].tool
        return _exceeded(f"loop: the model called {name!r} {LOOP_LENGTH} times in a row with the same arguments")
    return None


def _exceeded(message: str) -> ErrorInfo:
    return ErrorInfo(code="limit_exceeded", message=message)
