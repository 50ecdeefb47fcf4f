"""What can be asked of triggers: commands (durable, on `cmd.orchestrator.*`) and queries (RPC)."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from pydantic import Field

from paracle_domain.errors import ErrorInfo
from paracle_domain.ids import RunId
from paracle_domain.messages import Command, JsonObject, Message, Plain, Request, Sent, Value
from paracle_domain.run.commands import RunStatus
from paracle_domain.workflow.spec import Name


class Cause(StrEnum):
    """Why a trigger fired: its schedule, a message, or somebody's command."""

    SCHEDULE = "schedule"
    MESSAGE = "message"
    COMMAND = "command"


class FireStatus(StrEnum):
    """How a start stands. `failed`: it was refused for good, and no run began."""

    PENDING = "pending"
    STARTED = "started"
    FAILED = "failed"


class TriggerCounts(Value):
    """What became of a trigger's times and messages.

    `fired`: a run began. `skipped`: a run was still under way. `dropped`: missed for longer than may be made up for, or
    it came while the trigger was paused. `duplicates`: messages with a key that had come before. `failed`: no run could
    begin.
    """

    fired: int = 0
    skipped: int = 0
    dropped: int = 0
    duplicates: int = 0
    failed: int = 0


class TriggerRun(Value):
    """A run that a trigger started, or tried to. `run_status` is that of the run, as long as the run is kept."""

    run_id: RunId
    cause: Cause
    at: datetime
    scheduled_at: datetime | None = None
    status: FireStatus
    run_status: RunStatus | None = None
    error: ErrorInfo | None = None


class TriggerSummary(Value):
    """A trigger in a list.

    `on` is its cron expression with the time zone, or its topic; `problem` is why it cannot fire.
    """

    name: str
    revision: int
    workflow: str
    on: str
    paused: bool = False
    next_at: datetime | None = None
    last_at: datetime | None = None
    counts: TriggerCounts = TriggerCounts()
    problem: str | None = None


class TriggerView(Message, type_name="trigger.view"):
    """One trigger: what it is, when it fires next, and what it did last (newest first)."""

    trigger: TriggerSummary
    spec: JsonObject
    next_fires: tuple[datetime, ...] = ()
    last_runs: tuple[TriggerRun, ...] = ()
    paused_by: str | None = None
    paused_at: datetime | None = None
    paused_reason: str | None = None


class TriggerPage(Message, type_name="trigger.page"):
    """Triggers by name; `next_cursor` asks for the page after it."""

    triggers: tuple[TriggerSummary, ...]
    next_cursor: str | None = None


class Taker(Value):
    """A trigger that takes a message, and the run that it starts for it."""

    trigger: str
    run_id: RunId


class MessageTaken(Message, type_name="trigger.message_taken"):
    """The answer to a message for triggers: the runs that it starts; none if nobody takes it, or it is a duplicate."""

    runs: tuple[Taker, ...] = ()


class GetTrigger(Request[TriggerView], service="orchestrator", method="get_trigger", answer=TriggerView, query=True):
    """One trigger with its next times and last runs."""

    name: Name


class ListTriggers(
    Request[TriggerPage], service="orchestrator", method="list_triggers", answer=TriggerPage, query=True
):
    """Triggers, by name."""

    limit: int = Field(default=100, ge=1, le=500)
    cursor: str | None = Field(default=None, max_length=64)


class PauseTrigger(Command, service="orchestrator", verb="pause_trigger"):
    """Let a trigger start nothing until it is resumed; answered with its `TriggerView`."""

    name: Name
    reason: Plain | None = Field(default=None, max_length=1_000)


class ResumeTrigger(Command, service="orchestrator", verb="resume_trigger"):
    """Let a paused trigger go on, from now: what it missed meanwhile is not made up for."""

    name: Name


class FireTrigger(Command, service="orchestrator", verb="fire_trigger"):
    """Start one run of a trigger now, paused or not, whatever else of it runs; answered with `RunAccepted`.

    `message` is what a trigger on messages takes for one; its filter and its de-duplication are not asked.
    """

    name: Name
    message: Sent = None
