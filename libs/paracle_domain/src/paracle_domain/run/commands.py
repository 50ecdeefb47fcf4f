"""What can be asked of runs: commands (durable, on `cmd.orchestrator.*`) and queries (RPC)."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from pydantic import Field, JsonValue

from paracle_domain.errors import ErrorInfo
from paracle_domain.ids import RunId
from paracle_domain.inference.usage import Usage
from paracle_domain.machine import EventRecord
from paracle_domain.messages import Command, Given, Message, Request, Value
from paracle_domain.plan import Plan


class RunStatus(StrEnum):
    """How a run stands. `degraded`: finished, with failures that the workflow allowed."""

    QUEUED = "queued"
    RUNNING = "running"
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
    """How a step stands. `waiting`: for the time of its next attempt."""

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


class StartRun(Command, service="orchestrator", verb="start_run"):
    """Start a run of a workflow, or (`invoke`) of a single agent; answered with `RunAccepted`.

    Give `workflow` or `agent`. `run_id`, or the `Nats-Msg-Id` of the message, makes it idempotent: the same id with
    the same request is answered with the run that is there; with another request it is a conflict.
    """

    workflow: str | None = None
    agent: str | None = None
    revision: int | None = Field(default=None, ge=1, description="of the workflow; the newest if absent")
    input: Given = Field(default_factory=dict)
    run_id: RunId | None = None
    labels: dict[str, str] = {}


class RunAccepted(Message, type_name="run.accepted"):
    """The run is on disk and will reach a terminal state. `created` is false if it was there already."""

    run_id: RunId
    status: RunStatus
    created: bool = True


class CancelRun(Command, service="orchestrator", verb="cancel_run"):
    """Stop a run: once this is answered (with `RunAccepted`), no new step, model call or tool call of it begins."""

    run_id: RunId
    reason: str = Field(default="cancelled by request", max_length=1_000)


class StepView(Value):
    """A step of a run, as queries show it."""

    id: str
    status: StepStatus
    target_kind: str
    target: str
    needs: tuple[str, ...] = ()
    attempts: int = 0
    task_id: str | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    output: JsonValue = None
    error: ErrorInfo | None = None
    usage: Usage = Usage()


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


class RunView(Message, type_name="run.view"):
    """One run, whole. `last_seq` is the number of its newest event: the cursor to follow it from."""

    run: RunSummary
    principal: str
    input: JsonValue = None
    output: JsonValue = None
    error: ErrorInfo | None = None
    usage: Usage = Usage()
    steps: tuple[StepView, ...] = ()
    last_seq: int


class RunPage(Message, type_name="run.page"):
    """Runs, newest first; `next_cursor` asks for the page after it."""

    runs: tuple[RunSummary, ...]
    next_cursor: str | None = None


class RunEvents(Message, type_name="run.events"):
    """Events of a run after a cursor, without gaps. `terminal`: there will be no more after these."""

    events: tuple[EventRecord, ...]
    terminal: bool


class GetRun(Request[RunView], service="orchestrator", method="get_run", answer=RunView):
    """One run with its steps."""

    run_id: RunId


class ListRuns(Request[RunPage], service="orchestrator", method="list_runs", answer=RunPage):
    """Runs, newest first."""

    workflow: str | None = None
    status: RunStatus | None = None
    limit: int = Field(default=50, ge=1, le=500)
    cursor: str | None = None


class GetRunEvents(Request[RunEvents], service="orchestrator", method="get_run_events", answer=RunEvents):
    """A run's events after number `after`."""

    run_id: RunId
    after: int = Field(default=0, ge=0)
    limit: int = Field(default=500, ge=1, le=5_000)


class GetPlan(Request[Plan], service="orchestrator", method="get_plan", answer=Plan):
    """The plan that a run pinned, by its digest."""

    digest: str
