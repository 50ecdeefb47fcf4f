"""What a task's machine is told. Every input says when it came; a result says which call it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from pydantic import JsonValue

from paracle_domain.errors import ErrorInfo, Finding
from paracle_domain.inference.response import Completion
from paracle_domain.run.commands import ApprovalView
from paracle_domain.task.events import EarlierEffect
from paracle_domain.task.messages import TaskResult


class Outcome(StrEnum):
    """What is known of a failed tool call: nothing was done, it was done, or nobody knows."""

    NOT_DONE = "not_done"
    DONE = "done"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class AcceptTask:
    """Begin. `problems`: how the input breaks the target's input schema; `earlier`: the ledger of earlier attempts."""

    at: datetime
    problems: tuple[Finding, ...] = ()
    earlier: tuple[EarlierEffect, ...] = ()


@dataclass(frozen=True, slots=True)
class ReplyCame:
    """The model answered. `refused` says for the tool calls whose arguments do not fit, by index, what is wrong."""

    at: datetime
    call_id: str
    completion: Completion
    refused: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ModelFailed:
    at: datetime
    call_id: str
    error: ErrorInfo


@dataclass(frozen=True, slots=True)
class ToolSucceeded:
    at: datetime
    call_id: str
    output: JsonValue
    duration_s: float


@dataclass(frozen=True, slots=True)
class ToolFailed:
    """A tool call failed; `outcome` matters for tools that change the world."""

    at: datetime
    call_id: str
    error: ErrorInfo
    duration_s: float
    outcome: Outcome = Outcome.NOT_DONE


@dataclass(frozen=True, slots=True)
class Probed:
    """What a probe found out about a call in doubt; `tried` is that of the `ProbeEffect` which this answers.

    `error` says what is wrong with an `output` of what was done; `reason`, why the probe cannot tell.
    """

    at: datetime
    call_id: str
    tried: int
    outcome: Outcome
    duration_s: float
    output: JsonValue = None
    error: ErrorInfo | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class DelegateEnded:
    """The agent that `call_id` asked is done, well or not."""

    at: datetime
    call_id: str
    result: TaskResult
    duration_s: float


@dataclass(frozen=True, slots=True)
class CallDecided:
    """How the approval of a held call came out."""

    at: datetime
    call_id: str
    view: ApprovalView


@dataclass(frozen=True, slots=True)
class RaiseDecided:
    """How the approval of a raise came out. `error`: it was approved, and the budget was not raised, as it says."""

    at: datetime
    view: ApprovalView
    error: ErrorInfo | None = None


@dataclass(frozen=True, slots=True)
class BudgetLifted:
    """Calls may go on the budget again that is asked about as `approval_id`, whatever people decide."""

    at: datetime
    approval_id: str


@dataclass(frozen=True, slots=True)
class OutputChecked:
    """The final answer of turn `turn` as JSON, and how it breaks the output schema (nothing: it fits)."""

    at: datetime
    turn: int
    value: JsonValue = None
    problems: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class CancelRequested:
    at: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class DeadlinePassed:
    at: datetime


@dataclass(frozen=True, slots=True)
class Resume:
    """A process has loaded this state and knows nothing of what the last one had under way."""

    at: datetime


type TaskInput = (
    AcceptTask
    | ReplyCame
    | ModelFailed
    | ToolSucceeded
    | ToolFailed
    | Probed
    | DelegateEnded
    | CallDecided
    | RaiseDecided
    | BudgetLifted
    | OutputChecked
    | CancelRequested
    | DeadlinePassed
    | Resume
)
