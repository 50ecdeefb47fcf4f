"""What happens to a task: its history, as deltas. A conversation is the fold of these, never stored again per turn."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Final, Literal

from pydantic import Field, JsonValue, TypeAdapter, ValidationError

from paracle_domain.agent.spec import DelegateMode
from paracle_domain.budget.spec import BudgetApproval, BudgetName, SubjectName, Tokens, Usd
from paracle_domain.errors import ErrorInfo, Finding, MalformedMessage, from_validation
from paracle_domain.ids import ApprovalId
from paracle_domain.inference.chat import ChatMessage
from paracle_domain.inference.response import FinishReason
from paracle_domain.inference.usage import Usage
from paracle_domain.machine import EventRecord
from paracle_domain.messages import Value
from paracle_domain.run.commands import ApprovalStatus, Decision
from paracle_domain.task.messages import Allowance, Task
from paracle_domain.tool.spec import Effect


class EarlierEffect(Value):
    """What earlier attempts of the step have in the ledger under `key`: a result, or (not `done`) nothing certain.

    `called` is the key that the tool was given, where it was another: that of the run which this one is forked from.
    """

    key: str
    called: str | None = None
    done: bool
    output: JsonValue = None
    error: ErrorInfo | None = None


class TaskAccepted(Value):
    """The runtime has taken the task on. `expires_at` is the earlier of its deadline and its agent's wall time."""

    type: Literal["task.accepted"] = "task.accepted"
    task: Task
    revision: int
    expires_at: datetime | None = None
    earlier: tuple[EarlierEffect, ...] = ()


class ModelReplied(Value):
    """Turn number `turn`: what the model said, and what that used. `agent` and `step` are there for accounting.

    `saved`: it came from the cache of answers, and had used that when it was made.
    """

    type: Literal["task.model_replied"] = "task.model_replied"
    call_id: str
    turn: int
    message: ChatMessage
    finish_reason: FinishReason
    usage: Usage
    saved: Usage | None = None
    provider: str
    model: str
    sandbox: bool = False
    latency_s: float
    agent: str
    step: str


class ModelCallFailed(Value):
    """A model call failed; it is tried again at `retry_at`. Without that it is not, unless people raise a budget."""

    type: Literal["task.model_call_failed"] = "task.model_call_failed"
    call_id: str
    error: ErrorInfo
    retry_at: datetime | None = None


class TaskCompacted(Value):
    """What was said first was summed up, to make room: from now on the model is told `summary` instead of it.

    `upto`: that many messages, counted from the first that the task knows of, an earlier summary among them; the
    question of the task is told word by word all the same. `tokens_before` and `tokens_after`: how long the next
    question would have been, and is, as far as it was counted.
    """

    type: Literal["task.compacted"] = "task.compacted"
    call_id: str
    upto: int
    summary: str
    tokens_before: int
    tokens_after: int
    usage: Usage
    provider: str
    model: str
    sandbox: bool = False
    latency_s: float
    agent: str
    step: str


class CompactionFailed(Value):
    """Summing up failed; it is tried again at `retry_at`, or, without that, before the model call after the next.

    A summary that came and could not be used has its `usage`.
    """

    type: Literal["task.compaction_failed"] = "task.compaction_failed"
    call_id: str
    error: ErrorInfo
    retry_at: datetime | None = None
    usage: Usage | None = None
    provider: str = ""
    model: str = ""
    agent: str = ""
    step: str = ""


class ToolReturned(Value):
    """A tool call ended: with `output`, or with the `error` that the model is told.

    `duration_s` is absent where nothing was called (an unknown tool, arguments that do not fit).
    """

    type: Literal["task.tool_returned"] = "task.tool_returned"
    call_id: str
    tool: str
    output: JsonValue = None
    error: ErrorInfo | None = None
    duration_s: float | None = None
    usage: Usage | None = Field(default=None, description="what a delegate used, with all that it set going")
    waited_s: float = Field(default=0.0, description="seconds that a delegate waited for people")


class TaskDelegated(Value):
    """A call of the model's goes to another agent, which works on the task `task_id` within `allowance`."""

    type: Literal["task.delegated"] = "task.delegated"
    call_id: str
    agent: str
    mode: DelegateMode
    task_id: str
    allowance: Allowance


class CallHeld(Value):
    """A tool call waits for people to approve it; `digest` is that of exactly what they are asked."""

    type: Literal["task.call_held"] = "task.call_held"
    call_id: str
    tool: str
    approval_id: ApprovalId
    digest: str
    at: datetime


class CallReleased(Value):
    """People have decided about a held call, or nobody did in time. Only an `approved` one is made."""

    type: Literal["task.call_released"] = "task.call_released"
    call_id: str
    approval_id: ApprovalId
    verdict: ApprovalStatus
    decisions: tuple[Decision, ...] = ()
    waited_s: float = 0.0


class Shortage(Value):
    """A budget that is used up, and by how much it is to be raised, in money or in tokens, for the window `period`.

    `question` is the same for all calls that find it so; `limit_usd` and `limit_tokens` are what its limits were then,
    raises included.
    """

    budget: BudgetName
    subject: SubjectName
    period: str
    usd: Usd | None = None
    tokens: Tokens | None = None
    approval: BudgetApproval = BudgetApproval()
    question: str = ""
    limit_usd: Decimal | None = None
    limit_tokens: int | None = None


class BudgetHeld(Value):
    """The model call `call_id` found a budget used up (`error`), and people are asked whether it is raised.

    `digest` is that of exactly what they are asked.
    """

    type: Literal["task.budget_held"] = "task.budget_held"
    call_id: str
    approval_id: ApprovalId
    short: Shortage
    error: ErrorInfo
    digest: str
    at: datetime


class BudgetReleased(Value):
    """People have decided about a budget, or nobody did in time. One that was `approved` has been raised.

    `void`: what was asked is over without a decision that this task waited for, or one was made of a budget that is
    another by now. Then the call is made again without a raise (`lifted`), or the same is asked anew.
    """

    type: Literal["task.budget_released"] = "task.budget_released"
    call_id: str
    approval_id: ApprovalId
    verdict: ApprovalStatus
    decisions: tuple[Decision, ...] = ()
    waited_s: float = 0.0
    lifted: bool = False


class EffectIntended(Value):
    """A tool that changes the world is about to be called. `key` names the effect and is its idempotency key."""

    type: Literal["effect.intended"] = "effect.intended"
    key: str
    call_id: str
    tool: str
    revision: int
    effect: Effect
    arguments_digest: str


class EffectSent(Value):
    """From here on the tool may have been called."""

    type: Literal["effect.sent"] = "effect.sent"
    key: str
    call_id: str


class EffectConfirmed(Value):
    """The tool said that it is done; its result stands in `task.tool_returned`."""

    type: Literal["effect.confirmed"] = "effect.confirmed"
    key: str
    call_id: str


class EffectFailed(Value):
    """The tool is known not to have done it."""

    type: Literal["effect.failed"] = "effect.failed"
    key: str
    call_id: str
    error: ErrorInfo


class EffectInDoubt(Value):
    """An `at_most_once` tool may or may not have done it; it is not called again by itself.

    With `probe`, the tool of that name is asked now what became of it. `called`: see `EarlierEffect`. `error` is what
    the call failed with, if it did; that is what comes of it if it turns out not to be done.
    """

    type: Literal["effect.in_doubt"] = "effect.in_doubt"
    key: str
    call_id: str
    tool: str
    reason: str
    probe: str | None = None
    called: str | None = None
    error: ErrorInfo | None = None
    at: datetime | None = Field(default=None, description="when the doubt arose; there if it is probed")


class EffectProbed(Value):
    """A probe said what became of an effect in doubt; it is asked once more at `retry_at`, if that is there.

    Without `retry_at` it is believed: what is `done` is confirmed, what is `not_done` is sent (or has failed, if the
    call had), and what is `unknown` stays in doubt.
    """

    type: Literal["effect.probed"] = "effect.probed"
    key: str
    call_id: str
    probe: str
    outcome: Literal["done", "not_done", "unknown"]
    reason: str | None = None
    tried: int
    retry_at: datetime | None = None
    duration_s: float


class OutputRejected(Value):
    """The answer does not fit the agent's output schema; the model is told `problems` and asked again."""

    type: Literal["task.output_rejected"] = "task.output_rejected"
    problems: tuple[Finding, ...]


class TaskCompleted(Value):
    type: Literal["task.completed"] = "task.completed"
    output: JsonValue = None


class TaskFailed(Value):
    type: Literal["task.failed"] = "task.failed"
    error: ErrorInfo


class TaskCancelled(Value):
    """Stopped on request; the first event of all if the request came before the task."""

    type: Literal["task.cancelled"] = "task.cancelled"
    reason: str


class TaskTimedOut(Value):
    type: Literal["task.timed_out"] = "task.timed_out"
    error: ErrorInfo


type TaskEvent = Annotated[
    TaskAccepted
    | ModelReplied
    | ModelCallFailed
    | TaskCompacted
    | CompactionFailed
    | ToolReturned
    | TaskDelegated
    | CallHeld
    | CallReleased
    | BudgetHeld
    | BudgetReleased
    | EffectIntended
    | EffectSent
    | EffectConfirmed
    | EffectFailed
    | EffectInDoubt
    | EffectProbed
    | OutputRejected
    | TaskCompleted
    | TaskFailed
    | TaskCancelled
    | TaskTimedOut,
    Field(discriminator="type"),
]

_EVENTS: Final[TypeAdapter[TaskEvent]] = TypeAdapter(TaskEvent)


def dump_event(event: TaskEvent) -> bytes:
    """`event` as one JSON object with its `type`."""
    return _EVENTS.dump_json(event, exclude_none=True)


def load_event(body: bytes | str) -> TaskEvent:
    """The event that `dump_event` wrote.

    Raises
    ------
    MalformedMessage
        If `body` is no event of a task that this version knows.
    """
    try:
        return _EVENTS.validate_json(body)
    except ValidationError as error:
        wrong = from_validation(error, "task event")
        raise MalformedMessage(wrong.message, path=wrong.path, problems=wrong.problems) from error


def untyped(body: bytes) -> bytes:
    """What `dump_event` wrote, without the `type` that it begins with: a published event has that beside its data."""
    _, _, rest = body.partition(b",")
    return b"{%b" % rest if rest else b"{}"


def event_record(task_id: str, run_id: str, event: TaskEvent, *, seq: int, at: datetime, cause: str) -> EventRecord:
    """`event` as it is published: number `seq` of its task, correlated by its run."""
    return EventRecord(
        entity="task",
        id=task_id,
        seq=seq,
        type=event.type,
        at=at,
        cause=cause,
        correlation_id=run_id,
        data=event.model_dump(mode="json", exclude={"type"}, exclude_none=True),
    )
