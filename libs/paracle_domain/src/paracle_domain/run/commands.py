"""What can be asked of runs: commands (durable, on `cmd.orchestrator.*`) and queries (RPC)."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Literal

from pydantic import Field, JsonValue

from paracle_domain.errors import ErrorInfo
from paracle_domain.ids import ApprovalId, DeadLetterId, RunId, TaskId
from paracle_domain.inference.usage import Usage
from paracle_domain.machine import EventRecord
from paracle_domain.messages import (
    HIGHEST,
    Command,
    Done,
    Given,
    JsonObject,
    Message,
    Moment,
    Plain,
    Request,
    Sent,
    Value,
)
from paracle_domain.plan import Plan
from paracle_domain.run.labels import Labels
from paracle_domain.workflow.spec import Approvers, SignalName

type Verdict = Literal["approve", "reject"]


class RunStatus(StrEnum):
    """How a run stands. `degraded`: finished, with failures that the workflow allowed."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    COMPLETED = "completed"
    DEGRADED = "degraded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"

    @property
    def terminal(self) -> bool:
        return self in TERMINAL_RUN


TERMINAL_RUN = frozenset(
    {RunStatus.COMPLETED, RunStatus.DEGRADED, RunStatus.FAILED, RunStatus.CANCELLED, RunStatus.TIMED_OUT}
)


class StepStatus(StrEnum):
    """How a step stands. `waiting`: for the time of its next attempt, for a time, a signal or a decision."""

    PENDING = "pending"
    RUNNING = "running"
    WAITING = "waiting"
    COMPLETED = "completed"
    SKIPPED = "skipped"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"

    @property
    def terminal(self) -> bool:
        return self in TERMINAL_STEP


TERMINAL_STEP = frozenset(
    {StepStatus.COMPLETED, StepStatus.SKIPPED, StepStatus.FAILED, StepStatus.CANCELLED, StepStatus.TIMED_OUT}
)


class Parent(Value):
    """The step attempt that a run is the child of. `depth` is 1 for a child of a run that is nobody's child."""

    run_id: RunId
    step: str
    attempt: int
    root_run_id: RunId
    depth: int = Field(ge=1)


class StartRun(Command, service="orchestrator", verb="start_run"):
    """Start a run of a workflow, or (`invoke`) of a single agent; answered with `RunAccepted`.

    Give `workflow` or `agent`. `run_id`, or the `Nats-Msg-Id` of the message, makes it idempotent: the same id with
    the same request is answered with the run that is there; with another request it is a conflict.
    """

    workflow: str | None = None
    agent: str | None = None
    revision: int | None = Field(default=None, ge=1, le=HIGHEST, description="of the workflow; the newest if absent")
    input: Given = Field(default_factory=dict)
    run_id: RunId | None = None
    labels: Labels = {}
    priority: int = Field(default=0, ge=-100, le=100, description="where starts queue, the highest goes first")


class RunAccepted(Message, type_name="run.accepted"):
    """The run is on disk and will reach a terminal state. `created` is false if it was there already."""

    run_id: RunId
    status: RunStatus
    created: bool = True


class CancelRun(Command, service="orchestrator", verb="cancel_run"):
    """Stop a run: once this is answered (with `RunAccepted`), no new step, model call or tool call of it begins.

    The exceptions are the `compensate` of steps that had completed: undoing them is what the workflow asks for.
    """

    run_id: RunId
    reason: str = Field(default="cancelled by request", max_length=1_000)


class PauseRun(Command, service="orchestrator", verb="pause_run"):
    """Start nothing new of a run until it is resumed; what runs goes on. Answered with `RunAccepted`."""

    run_id: RunId
    reason: str = Field(default="", max_length=1_000)


class ResumeRun(Command, service="orchestrator", verb="resume_run"):
    """Go on with a paused run. Answered with `RunAccepted`."""

    run_id: RunId
    reason: str = Field(default="", max_length=1_000)


class SignalRun(Command, service="orchestrator", verb="signal_run"):
    """Tell a run something that a `wait` step of it waits for, or will; answered with `RunAccepted`.

    The message id makes it idempotent. A signal goes to one step, the one that has waited longest.
    """

    run_id: RunId
    signal: SignalName
    payload: Sent = None


class DecideApproval(Command, service="orchestrator", verb="decide_approval"):
    """Approve or reject; answered with `RunAccepted`. `digest` is that of the approval as it was shown."""

    approval_id: ApprovalId
    run_id: RunId | None = Field(default=None, description="the approval's run, if known")
    digest: str
    decision: Verdict
    reason: str = Field(default="", max_length=4_000)


class ForkRun(Command, service="orchestrator", verb="fork_run"):
    """Start a new run from another one: `from_step`, and all that depends on it, runs anew; the other results stay.

    Answered with `RunAccepted` of the new run. Without `input` and `revision`, those of the old run are used.
    """

    run_id: RunId
    from_step: str
    revision: int | None = Field(
        default=None, ge=1, le=HIGHEST, description="of the workflow; the old run's plan if absent"
    )
    input: Sent = Field(default=None, description="the old run's if absent")
    new_run_id: RunId | None = None
    labels: Labels | None = Field(default=None, description="the old run's if absent")


class RunFilter(Value):
    """Which runs: those that meet all that is given. Labels must all be there with these values."""

    workflow: Plain | None = None
    statuses: tuple[RunStatus, ...] = ()
    labels: Labels = {}
    created_after: Moment | None = Field(default=None, description="created then or later")
    created_before: Moment | None = Field(default=None, description="created earlier than that")
    parent: RunId | None = None
    stuck: bool = Field(default=False, description="only runs with a message that could not be handled")


class CancelRuns(Command, service="orchestrator", verb="cancel_runs"):
    """Cancel every run that `filter` finds; answered with `RunsAccepted`."""

    filter: RunFilter
    reason: str = Field(default="cancelled by request", max_length=1_000)
    dry_run: bool = Field(default=False, description="only count them")


class ResumeRuns(Command, service="orchestrator", verb="resume_runs"):
    """Resume every paused run that `filter` finds; answered with `RunsAccepted`."""

    filter: RunFilter
    reason: str = Field(default="", max_length=1_000)
    dry_run: bool = Field(default=False, description="only count them")


class RunsAccepted(Message, type_name="runs.accepted"):
    """How many runs the order went to."""

    count: int


class StepView(Value):
    """A step of a run, as queries show it; so are items of a map, iterations of a loop, and compensations.

    `id` is the path: `pay`, `each[3]` (counted from 0), `pay.compensate`. `target_kind` is the kind of the step.
    `degraded`: it failed in part or as a whole, as its workflow allows.
    """

    id: str
    status: StepStatus
    target_kind: str
    target: str
    needs: tuple[str, ...] = ()
    attempts: int = 0
    task_id: str | None = None
    pool: str | None = Field(default=None, description="the worker pool that its tasks go to")
    started_at: datetime | None = None
    finished_at: datetime | None = None
    due_at: datetime | None = Field(default=None, description="when it starts again, goes on, expires or times out")
    output: JsonValue = None
    error: ErrorInfo | None = None
    usage: Usage = Usage()
    degraded: bool = False
    kept: bool = Field(default=False, description="taken over from the run that this one was forked from")
    compensated: bool = False
    compensation: StepView | None = None
    approval_id: str | None = None
    child_run_id: str | None = None
    signal: str | None = Field(default=None, description="the signal that it waits for")
    parts_total: int = Field(default=0, description="items of a map; iterations begun of a loop")
    parts_ended: int = 0
    parts: tuple[StepView, ...] = Field(default=(), description="items or iterations, as many as were asked for")


class Stuck(Value):
    """Why a run may not get on: a message for it could not be handled, and waits among the dead letters.

    `dead_letter` is the one that was given up first, `letters` how many there are. A run that has ended is not stuck.
    """

    dead_letter: DeadLetterId
    code: str
    since: datetime
    letters: int = 1


class RunSummary(Value):
    """A run in a list."""

    run_id: RunId
    workflow: str
    revision: int
    status: RunStatus
    created_at: datetime
    finished_at: datetime | None = None
    labels: dict[str, str] = {}
    plan: str
    priority: int = 0
    parent: RunId | None = None
    forked_from: RunId | None = None
    stuck: Stuck | None = None


class QueuePlace(Value):
    """Why a run is queued: how many go before it, and which limit is full. A limit that is none is not there."""

    ahead: int
    workflow_running: int
    workflow_limit: int | None = None
    tenant_running: int
    tenant_limit: int | None = None


class Outputs(StrEnum):
    """What a view of a run has of its data: all; what went into the run as a whole and came out of it; or nothing.

    All outputs together may be more than a message holds; those of one step, or of the run, never are.
    """

    ALL = "all"
    RUN = "run"
    NONE = "none"


class RunView(Message, type_name="run.view"):
    """One run with its steps. `last_seq` is the number of its newest event: the cursor to follow it from.

    `outputs` says which inputs and outputs are in it; others are left out, and not null.
    """

    run: RunSummary
    principal: str
    input: JsonValue = None
    output: JsonValue = None
    error: ErrorInfo | None = None
    usage: Usage = Usage()
    steps: tuple[StepView, ...] = ()
    last_seq: int
    deadline_at: datetime | None = None
    parent: Parent | None = None
    paused: bool = False
    uncompensated: tuple[str, ...] = Field(default=(), description="steps whose compensation failed")
    queue: QueuePlace | None = Field(default=None, description="where it stands, while it is queued")
    outputs: Outputs = Outputs.ALL


class ShownStep(Message, type_name="run.step"):
    """One step of a run with its output; items and iterations within it are without theirs."""

    run_id: RunId
    step: StepView


class RunPage(Message, type_name="run.page"):
    """Runs, newest first; `next_cursor` asks for the page after it.

    A page may be short, even empty, and still have a `next_cursor`: a search that no index fits rests after a while.
    """

    runs: tuple[RunSummary, ...]
    next_cursor: str | None = None


class RunEvents(Message, type_name="run.events"):
    """Events of a run after a cursor, without gaps. `terminal`: there will be no more after these.

    `stuck`, said where there are no events yet: the dead letter that the run may be waiting for.
    """

    events: tuple[EventRecord, ...]
    terminal: bool
    stuck: Stuck | None = None


class GetRun(Request[RunView], service="orchestrator", method="get_run", answer=RunView, query=True):
    """One run with its steps, and the first `parts` items or iterations of each."""

    run_id: RunId
    parts: int = Field(default=100, ge=0, le=10_000)
    outputs: Outputs = Outputs.ALL


class GetStep(Request[ShownStep], service="orchestrator", method="get_step", answer=ShownStep, query=True):
    """One step of a run, or an item, an iteration or a compensation: `pay`, `each[3]`, `pay.compensate`."""

    run_id: RunId
    step: Plain = Field(max_length=128)
    parts: int = Field(default=100, ge=0, le=10_000)


class ListRuns(Request[RunPage], service="orchestrator", method="list_runs", answer=RunPage, query=True):
    """Runs, newest first."""

    workflow: Plain | None = None
    status: RunStatus | None = None
    statuses: tuple[RunStatus, ...] = Field(default=(), description="any of these")
    labels: Labels = {}
    created_after: Moment | None = Field(default=None, description="created then or later")
    created_before: Moment | None = Field(default=None, description="created earlier than that")
    parent: RunId | None = None
    stuck: bool = Field(default=False, description="only runs with a message that could not be handled")
    limit: int = Field(default=50, ge=1, le=500)
    cursor: str | None = None


class ApprovalStatus(StrEnum):
    """How an approval stands. `void`: its step or run ended before it was decided."""

    OPEN = "open"
    APPROVED = "approved"
    REJECTED = "rejected"
    EXPIRED = "expired"
    VOID = "void"


class Decision(Value):
    """What one person decided, and why."""

    principal: str
    decision: Verdict
    reason: str = ""
    at: datetime


class ApprovalView(Message, type_name="approval.view"):
    """An approval: what is asked of whom, and what was decided. `digest` binds decisions to exactly this."""

    approval_id: ApprovalId
    run_id: RunId
    workflow: str
    step: str
    status: ApprovalStatus
    ask: str
    action: JsonValue = None
    digest: str
    principals: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    quorum: int = 1
    own: bool = False
    requested_by: str
    asked_at: datetime
    expires_at: datetime | None = None
    escalated: bool = False
    decisions: tuple[Decision, ...] = ()
    decided_at: datetime | None = None
    task_id: TaskId | None = Field(default=None, description="whose tool call it is about; absent for an approval step")
    tool: str | None = None
    escalate_to: Approvers | None = Field(default=None, description="who will be asked if these let it expire")


class ApprovalPage(Message, type_name="approval.page"):
    """Approvals, open ones first, then the newest; `next_cursor` asks for the page after it."""

    approvals: tuple[ApprovalView, ...]
    next_cursor: str | None = None


class AskForCall(Request[ApprovalView], service="orchestrator", method="ask_for_call", answer=ApprovalView):
    """Ask people before a tool is called, or (without `tool`) whether a budget is raised.

    The same again is answered with how the approval stands. For the agent runtime alone. `digest` binds decisions to
    what is asked, of whom, and about which call exactly.
    """

    approval_id: ApprovalId
    run_id: RunId
    task_id: TaskId
    step: str
    tool: str | None = None
    ask: str
    action: JsonObject
    digest: str
    asked_at: Moment
    principals: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    quorum: int = Field(default=1, ge=1)
    own: bool = False
    expires_s: float | None = Field(default=None, gt=0)
    escalate_to: Approvers | None = None


class WithdrawCall(Request[Done], service="orchestrator", method="withdraw_call", answer=Done):
    """Nobody waits for this approval any more: its task has ended. For the agent runtime alone.

    With `task_id`, only if it was asked for that task: others may wait for it, too.
    """

    approval_id: ApprovalId
    task_id: TaskId | None = None


class GetApproval(
    Request[ApprovalView], service="orchestrator", method="get_approval", answer=ApprovalView, query=True
):
    """One approval."""

    approval_id: ApprovalId


class ListApprovals(
    Request[ApprovalPage], service="orchestrator", method="list_approvals", answer=ApprovalPage, query=True
):
    """Approvals, open ones first, then the newest; `mine`: only those that whoever asks may approve now."""

    status: ApprovalStatus | None = None
    run_id: RunId | None = None
    workflow: Plain | None = None
    approver: Plain | None = Field(default=None, description="a principal or a role that they name")
    mine: bool = False
    limit: int = Field(default=50, ge=1, le=500)
    cursor: str | None = None


class GetRunEvents(Request[RunEvents], service="orchestrator", method="get_run_events", answer=RunEvents, query=True):
    """A run's events after number `after`."""

    run_id: RunId
    after: int = Field(default=0, ge=0, le=HIGHEST)
    limit: int = Field(default=500, ge=1, le=5_000)


class GetPlan(Request[Plan], service="orchestrator", method="get_plan", answer=Plan, query=True):
    """The plan that a run pinned, by its digest."""

    digest: str
