"""What a task says while it is at work, on subject `out.{task_id}`, and as whoever follows it gets it.

None of it is part of the task's history: it is kept for minutes, and may be lost. What is lost is marked, never
made up: each model call numbers its deltas without gaps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, assert_never

from pydantic import Field

from paracle_domain.inference.deltas import Delta
from paracle_domain.inference.retrying import Retried, Retrying
from paracle_domain.messages import Message


class ToolProgress(Message, type_name="task.tool_progress"):
    """A call of a tool or another agent began or ended, or waits for people (`held`) to decide about `approval_id`.

    `error` is the code of what it failed with.
    """

    call_id: str
    tool: str
    stage: Literal["held", "started", "ended"]
    approval_id: str | None = None
    duration_s: float | None = Field(default=None, ge=0)
    error: str | None = None

    @property
    def message_id(self) -> str:
        return f"{self.call_id}.{self.stage}"


class SummaryProgress(Message, type_name="task.summary_progress"):
    """Summing up what was said before began or ended; `error` is the code of what it failed with."""

    call_id: str
    stage: Literal["started", "ended"]
    error: str | None = None

    @property
    def message_id(self) -> str:
        return f"{self.call_id}.{self.stage}"


class BudgetProgress(Message, type_name="task.budget_progress"):
    """A model call waits for people (`held`) to decide about a raise, `approval_id`. Or they have (`ended`)."""

    approval_id: str
    budget: str
    stage: Literal["held", "ended"]

    @property
    def message_id(self) -> str:
        return f"{self.approval_id}.{self.stage}"


type Progress = ToolProgress | SummaryProgress | BudgetProgress | Retrying | Retried
type Said = Delta | Progress


class TaskOutput(Message, type_name="task.output"):
    """One thing that a task said: a piece of a reply (words, thoughts, a tool call), progress of a tool, of a summary,
    or of a budget that people are asked to raise, or that a model call is tried again. Of the agents that it turned to
    it tells that their model calls wait (`retrying`), and no longer do (`retried`).

    `seq` is a cursor: asked for what comes after it, a follower gets the rest. `gap`: something before this is lost,
    since it was too long ago or a server was away; the task itself has all of it. `ended`: the task has, and this
    comes last.
    """

    seq: int = Field(ge=0)
    delta: Delta | None = None
    tool: ToolProgress | None = None
    summary: SummaryProgress | None = None
    budget: BudgetProgress | None = None
    retrying: Retrying | None = None
    retried: Retried | None = None
    gap: bool = False
    ended: bool = False


@dataclass(slots=True)
class Listening:
    """Numbers of deltas seen so far, so that what is missing among them shows.

    `after` is the cursor. A follower that comes back starts with the piece at its cursor, which `recall` takes.
    """

    after: int = 0
    _next: dict[tuple[str, int], int] = field(default_factory=dict)

    def recall(self, seq: int, said: Said) -> None:
        """Take what was seen before."""
        self.after = seq
        if isinstance(said, Delta):
            self._next[said.call_id, said.attempt] = said.seq + 1

    def take(self, seq: int, said: Said) -> Iterator[TaskOutput]:
        """What a follower is told of `said`; nothing, if it was told before."""
        if not isinstance(said, Delta):
            self.after = seq
            yield _progress(seq, said)
            return
        due = self._next.get((said.call_id, said.attempt), 0)
        self.after = seq
        if said.seq >= due:
            self._next[said.call_id, said.attempt] = said.seq + 1
            yield TaskOutput(seq=seq, delta=said, gap=said.seq > due)


def _progress(seq: int, said: Progress) -> TaskOutput:
    match said:
        case ToolProgress():
            return TaskOutput(seq=seq, tool=said)
        case SummaryProgress():
            return TaskOutput(seq=seq, summary=said)
        case BudgetProgress():
            return TaskOutput(seq=seq, budget=said)
        case Retrying():
            return TaskOutput(seq=seq, retrying=said)
        case Retried():
            return TaskOutput(seq=seq, retried=said)
        case _:
            assert_never(said)
