"""What an agent says while it is at work, by lines, for screens that show many at once; nothing is drawn here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from paracle_domain.inference.deltas import Delta, ReasoningDelta, TextDelta
from paracle_domain.inference.retrying import Retrying
from paracle_domain.task.output import BudgetProgress, SummaryProgress, TaskOutput, ToolProgress
from paracle_domain.wording import count

_NUMBER: Final = re.compile(r"\w*\d\w*")
BROKE_OFF: Final = "the reply broke off and begins anew"
MISSING: Final = "something is missing here"


def progress(told: ToolProgress) -> str:
    """How a call of a tool or an agent stands: `search…`, `search 1.3s done`, `search 0.1s tool_failed`."""
    if told.stage == "held":
        return f"{told.tool} waits until people decide: paracle approvals show {told.approval_id}"
    if told.stage == "started":
        return f"{told.tool}…"
    took = "" if told.duration_s is None else f" {told.duration_s:.1f}s"
    return f"{told.tool}{took} {told.error or 'done'}"


def summing_up(told: SummaryProgress) -> str | None:
    """How a summary stands, where that says anything new."""
    if told.stage == "started":
        return "the conversation is long: summing up its beginning…"
    return None if told.error is None else f"summing up failed ({told.error}); nothing is left out"


def raising(told: BudgetProgress) -> str:
    """What is to be done about a budget that is used up, or that it was decided."""
    if told.stage == "held":
        return f"budget {told.budget} is used up, unless people raise it: paracle approvals show {told.approval_id}"
    return f"budget {told.budget}: it was decided"


def asking(ask: str, approval_id: str) -> str:
    """What people are to decide, and how they see it."""
    return f"{ask} (paracle approvals show {approval_id})"


def waits(output: TaskOutput) -> bool:
    """Whether it says that people are to decide, or that they did."""
    return output.budget is not None or (output.tool is not None and output.tool.stage == "held")


def retrying(told: Retrying) -> str:
    """Why a model's reply does not come, and from when on it is asked again."""
    why, at = f"{told.error.code}: {told.error.message}", f"{told.at.astimezone():%H:%M:%S}"
    if told.tried == 0:
        return _of(told.agent, f"the reply has to wait, till {at} at least: {why}")
    return _of(told.agent, f"the model call failed, and is tried again from {at} on: {why}")


def _of(agent: str | None, line: str) -> str:
    return line if agent is None else f"{agent}: {line}"


class Retries:
    """What there is to say of model calls that are tried again: each reason once, and how often that was in the end.

    They are those of the task, and of agents that it turned to. Reasons take turns (a failure, the rest that it led to,
    the next failure), and differ by numbers alone: seconds, ids of requests.
    """

    def __init__(self) -> None:
        self._of: dict[str | None, list[Retrying]] = {}

    @property
    def latest(self) -> list[Retrying]:
        """What was told last of each call that still waits."""
        return [waits[-1] for waits in self._of.values()]

    def hear(self, output: TaskOutput) -> str | None:
        """What there is to say now, before anything else about `output`."""
        if (told := output.retrying) is not None:
            before = self._of.setdefault(told.agent, [])
            known = _reason(told) in map(_reason, before)
            before.append(told)
            return None if known else retrying(told)
        if (over := output.retried) is not None:
            return self._ended(over.agent, answered=over.error is None)
        return self._ended(None, answered=output.delta is not None)

    def _ended(self, agent: str | None, *, answered: bool) -> str | None:
        waits = self._of.pop(agent, ())
        return _of(agent, f"the model answers, after {count(len(waits), 'wait')}") if waits and answered else None


def _reason(told: Retrying) -> tuple[str, str]:
    return told.error.code, _NUMBER.sub("#", told.error.message)


class Speech:
    """The lines of what one task says; `tail` is the end of the one that is being said."""

    def __init__(self) -> None:
        self.tail = ""
        self._retries = Retries()
        self._source: tuple[str, int] | None = None

    def hear(self, output: TaskOutput) -> Iterator[str]:
        """Take one thing more; the lines that are whole by it."""
        if (line := self._retries.hear(output)) is not None:
            yield from self.end()
            yield f"· {line}"
        if output.gap:
            yield from self.end()
            yield f"· {MISSING}"
        if output.tool is not None:
            yield from self.end()
            yield f"· {progress(output.tool)}"
        elif output.summary is not None:
            yield from self.end()
            line = summing_up(output.summary)
            yield from () if line is None else (f"· {line}",)
        elif output.budget is not None:
            yield from self.end()
            yield f"· {raising(output.budget)}"
        elif output.delta is not None:
            yield from self._take(output.delta)

    def end(self) -> Iterator[str]:
        """What is left, as the last line."""
        rest, self.tail = self.tail, ""
        if rest.strip():
            yield rest

    def _take(self, delta: Delta) -> Iterator[str]:
        source = (delta.call_id, delta.attempt)
        if source != self._source:
            again = self._source is not None and self._source[0] == delta.call_id
            self._source = source
            yield from self.end()
            if again:
                yield f"· {BROKE_OFF}"
        if isinstance(delta.change, TextDelta | ReasoningDelta):
            *whole, self.tail = (self.tail + delta.change.text).split("\n")
            yield from filter(str.strip, whole)
