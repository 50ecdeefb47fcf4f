"""What happens to a run. Each event is kept once, as JSON with its `type`, and is never changed afterwards.

    run.started ─► step.started ─► step.completed ─► … ─► run.completed | run.degraded
                   step.skipped    step.retrying          run.failing    ─► run.failed | run.timed_out
                                   step.failed            run.cancelling ─► run.cancelled
                                   step.timed_out
                                   step.cancelled

The time of an event is that of the page which holds it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final, Literal

from pydantic import Field, JsonValue, TypeAdapter

from paracle_domain.errors import ErrorInfo
from paracle_domain.inference.usage import Usage
from paracle_domain.messages import Message

type Target = Literal["agent", "tool"]


class RunStarted(Message, type_name="run.started"):
    """The run exists, with its plan pinned. `deadline_at` follows from the workflow's `timeout_s`."""

    type: Literal["run.started"] = "run.started"
    run_id: str
    tenant: str
    principal: str
    workflow: str
    revision: int
    plan: str
    input: JsonValue = None
    labels: dict[str, str] = {}
    deadline_at: datetime | None = None


class StepStarted(Message, type_name="step.started"):
    """An attempt of a step was handed to a worker pool, with `input` as its expressions gave it."""

    type: Literal["step.started"] = "step.started"
    step: str
    attempt: int
    task_id: str
    target_kind: Target
    target: str
    input: JsonValue = None
    deadline_at: datetime | None = None


class StepCompleted(Message, type_name="step.completed"):
    """The step gave its output; it is never run again."""

    type: Literal["step.completed"] = "step.completed"
    step: str
    attempt: int
    output: JsonValue = None
    usage: Usage = Usage()


class StepRetrying(Message, type_name="step.retrying"):
    """Attempt `attempt` failed with `error`; the next one starts at `due_at`."""

    type: Literal["step.retrying"] = "step.retrying"
    step: str
    attempt: int
    error: ErrorInfo
    due_at: datetime
    usage: Usage = Usage()


class StepFailed(Message, type_name="step.failed"):
    """The step failed for good. `tolerated`: its `on_error` is `continue`, so the run goes on."""

    type: Literal["step.failed"] = "step.failed"
    step: str
    attempt: int
    error: ErrorInfo
    tolerated: bool = False
    usage: Usage = Usage()


class StepTimedOut(Message, type_name="step.timed_out"):
    """The last allowed attempt did not end within the step's `timeout_s`."""

    type: Literal["step.timed_out"] = "step.timed_out"
    step: str
    attempt: int
    error: ErrorInfo
    tolerated: bool = False
    usage: Usage = Usage()


class StepSkipped(Message, type_name="step.skipped"):
    """The step's `when` was false. Steps that need it go on; its output is null."""

    type: Literal["step.skipped"] = "step.skipped"
    step: str


class StepCancelled(Message, type_name="step.cancelled"):
    """The step was stopped, or never started, because its run ends. `attempt` is 0 if it never started."""

    type: Literal["step.cancelled"] = "step.cancelled"
    step: str
    attempt: int = 0
    usage: Usage = Usage()


class RunCancelling(Message, type_name="run.cancelling"):
    """Somebody asked for the end: nothing new starts; what runs is being stopped."""

    type: Literal["run.cancelling"] = "run.cancelling"
    principal: str
    reason: str


class RunFailing(Message, type_name="run.failing"):
    """The run cannot succeed any more: nothing new starts; what runs is being stopped."""

    type: Literal["run.failing"] = "run.failing"
    outcome: Literal["failed", "timed_out"]
    error: ErrorInfo


class RunCompleted(Message, type_name="run.completed"):
    """Everything that the run needed succeeded."""

    type: Literal["run.completed"] = "run.completed"
    output: JsonValue = None
    usage: Usage = Usage()


class RunDegraded(Message, type_name="run.degraded"):
    """The run finished, with failures that its workflow allowed: those of `failed_steps`."""

    type: Literal["run.degraded"] = "run.degraded"
    output: JsonValue = None
    failed_steps: tuple[str, ...]
    usage: Usage = Usage()


class RunFailed(Message, type_name="run.failed"):
    """The run failed because of `error`."""

    type: Literal["run.failed"] = "run.failed"
    error: ErrorInfo
    usage: Usage = Usage()


class RunCancelled(Message, type_name="run.cancelled"):
    """The run was stopped on request."""

    type: Literal["run.cancelled"] = "run.cancelled"
    reason: str
    usage: Usage = Usage()


class RunTimedOut(Message, type_name="run.timed_out"):
    """The run did not end within its workflow's `timeout_s`."""

    type: Literal["run.timed_out"] = "run.timed_out"
    error: ErrorInfo
    usage: Usage = Usage()


type RunEvent = (
    RunStarted
    | StepStarted
    | StepCompleted
    | StepRetrying
    | StepFailed
    | StepTimedOut
    | StepSkipped
    | StepCancelled
    | RunCancelling
    | RunFailing
    | RunCompleted
    | RunDegraded
    | RunFailed
    | RunCancelled
    | RunTimedOut
)

_EVENT: Final[TypeAdapter[RunEvent]] = TypeAdapter(Annotated[RunEvent, Field(discriminator="type")])


def decode_event(body: bytes) -> RunEvent:
    """The run event that `body` (JSON with a `type`) holds."""
    return _EVENT.validate_json(body)
