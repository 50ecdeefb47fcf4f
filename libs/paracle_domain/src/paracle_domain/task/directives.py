"""What a task's machine wants done. Each directive has a name, so that the same wish is not carried out twice."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from paracle_domain.messages import JsonObject
from paracle_domain.run.commands import AskForCall
from paracle_domain.task.events import Shortage
from paracle_domain.task.messages import Task, TaskResult


@dataclass(frozen=True, slots=True)
class CallModel:
    """Ask the model for the next turn, not before `not_before`. `prompt.model_request` makes the question.

    `sums_up`: it is no turn, but a call that sums up what was said before, to make room for one.
    """

    call_id: str
    not_before: datetime | None = None
    sums_up: bool = False


@dataclass(frozen=True, slots=True)
class InvokeTool:
    """Call a tool of the plan. `key` is the idempotency key of one that changes the world."""

    call_id: str
    tool: str
    arguments: JsonObject
    key: str | None = None


@dataclass(frozen=True, slots=True)
class ProbeEffect:
    """Ask the probe of `tool` what became of its call with `arguments` and `key`, not before `not_before`.

    `tried` counts the probes of this doubt before it. The answer is a `Probed`.
    """

    call_id: str
    tool: str
    arguments: JsonObject
    key: str
    tried: int
    not_before: datetime | None = None


@dataclass(frozen=True, slots=True)
class AskAgent:
    """Have another agent work on `task`; the answer is a `DelegateEnded`. `tool` is what the model calls it by."""

    call_id: str
    tool: str
    task: Task


@dataclass(frozen=True, slots=True)
class AskPeople:
    """Have people decide about a call; how it came out is a `CallDecided`."""

    call_id: str
    request: AskForCall


@dataclass(frozen=True, slots=True)
class AskForRaise:
    """Have people decide whether a budget is raised because of `short`, and have it raised if they agree.

    The answer is a `RaiseDecided`; or a `BudgetLifted`, if there is room before they have.
    """

    request: AskForCall
    short: Shortage


@dataclass(frozen=True, slots=True)
class CheckOutput:
    """Read `text` as JSON and hold it against the agent's output schema; the answer is an `OutputChecked`."""

    turn: int
    text: str


@dataclass(frozen=True, slots=True)
class ReportResult:
    """Tell the orchestrator how the task ended."""

    result: TaskResult


type TaskDirective = (
    CallModel | InvokeTool | ProbeEffect | AskAgent | AskPeople | AskForRaise | CheckOutput | ReportResult
)
