"""What passes between the orchestrator and a worker pool: a task to do, and how it ended; and what happened to it."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Literal

from pydantic import Field

from paracle_domain.errors import ErrorInfo
from paracle_domain.ids import RunId, TaskId
from paracle_domain.inference.usage import NOTHING, Used
from paracle_domain.machine import EventRecord
from paracle_domain.messages import HIGHEST, Command, Json, Message, Received, Request, Value


class TaskStatus(StrEnum):
    """How a task stands; the last four are terminal."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"

    @property
    def terminal(self) -> bool:
        return self in {TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED, TaskStatus.TIMED_OUT}


class Allowance(Value):
    """What is left of its parent's limits for a delegate and all that it sets going."""

    turns: int = Field(ge=1)
    tool_calls: int = Field(ge=0)
    tokens: int = Field(ge=1)
    cost_usd: Decimal | None = Field(default=None, ge=0)
    wall_time_s: float = Field(gt=0)


class TaskParent(Value):
    """The call that a task answers, where an agent turned to another one. `depth` is 1 for the delegate of a step's.

    `lineage` tells the questions apart that were asked on the way here, the first one first. `root` is the step's own
    task, where that is another one.
    """

    task_id: TaskId
    call_id: str
    agent: str
    depth: int = Field(ge=1)
    lineage: tuple[str, ...] = ()
    root: TaskId | None = None


class Task(Message, type_name="task"):
    """One step attempt for a worker pool, on subject `task.{pool}`; its message id is its `task_id`.

    `target` names an agent or tool of the run's plan; `plan` is that plan's digest (`GetPlan` gives it).
    `effect_scope` is the same for every attempt of the step: idempotency keys are derived from it. The task of a
    delegate has a `parent` and its `allowance`; it never travels, since its parent's process works on it. `forked_from`
    is the run that the task's run was forked from: what is in doubt there is not simply done again here. `principal`
    (who started the run) and `project` (its label) are there for agents: their model calls are accounted under them.
    """

    task_id: TaskId
    run_id: RunId
    step: str
    attempt: int
    plan: str
    target_kind: Literal["agent", "tool"]
    target: str
    input: Json = None
    effect_scope: str
    deadline_at: datetime | None = None
    parent: TaskParent | None = None
    allowance: Allowance | None = None
    forked_from: RunId | None = None
    principal: str | None = None
    project: str | None = None

    @property
    def lineage(self) -> tuple[str, ...]:
        return self.parent.lineage if self.parent else ()

    @property
    def root(self) -> str | None:
        """Of a delegate: the task of the step, which people watch."""
        return None if self.parent is None else self.parent.root or self.parent.task_id


class TaskResult(Message, type_name="task.result"):
    """How a task ended, on subject `result.{run_id}`; its message id is `{task_id}.result`."""

    task_id: TaskId
    run_id: RunId
    step: str
    attempt: int
    status: TaskStatus
    output: Received = None
    error: ErrorInfo | None = None
    usage: Used = NOTHING
    waited_s: float = Field(default=0.0, ge=0, description="seconds that it waited for people to decide")


class CancelTask(Command, service="agent_runtime", verb="cancel_task"):
    """Stop a task: begin no further model or tool call, close what is open, and report `cancelled`."""

    task_id: TaskId
    run_id: RunId
    step: str
    attempt: int
    reason: str = "cancelled"


class TaskEvents(Message, type_name="task.events"):
    """Events of a task after a cursor, without gaps. `terminal`: there will be no more after these."""

    events: tuple[EventRecord, ...]
    terminal: bool


class GetTaskEvents(
    Request[TaskEvents], service="agent_runtime", method="get_task_events", answer=TaskEvents, query=True
):
    """A task's events after number `after`. Tasks of tools that change nothing have none: they are not found."""

    task_id: TaskId
    after: int = Field(default=0, ge=0, le=HIGHEST)
    limit: int = Field(default=500, ge=1, le=5_000)
