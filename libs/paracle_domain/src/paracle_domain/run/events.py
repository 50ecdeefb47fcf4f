"""What happens to a run. Each event is kept once, as JSON with its `type`, and is never changed afterwards.

    run.started ─► step.started ─► step.completed ─► … ─► run.completed | run.degraded
    run.admitted   step.opened     step.retrying          run.failing    ─► run.failed | run.timed_out
    step.kept      step.waiting    step.failed            run.cancelling ─► run.cancelled
                   step.emitted    step.timed_out           └► run.compensating ─► step.started … ┘
                   step.skipped    step.cancelled
                   approval.asked ─► approval.decided, approval.escalated
                   step.failing (a map or loop stops what runs of it)
    run.paused ⇄ run.resumed       signal.received

`step` is a path: `pay` is a step, `each[3]` item or iteration 3 (from 0) of step `each`, `pay.compensate` what undoes
`pay`. The time of an event is that of the page which holds it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final, Literal

from pydantic import Field, TypeAdapter

from paracle_domain.errors import ErrorInfo
from paracle_domain.inference.usage import NOTHING, Used
from paracle_domain.messages import Json, Message
from paracle_domain.run.commands import Parent, Verdict

type Target = Literal["agent", "tool", "workflow"]


class RunStarted(Message, type_name="run.started"):
    """The run exists, with its plan pinned. `deadline_at` follows from the workflow's `timeout_s`.

    `queued`: it starts nothing until it is admitted, and its time begins then.
    """

    type: Literal["run.started"] = "run.started"
    run_id: str
    tenant: str
    principal: str
    workflow: str
    revision: int
    plan: str
    input: Json = None
    labels: dict[str, str] = {}
    deadline_at: datetime | None = None
    priority: int = 0
    queued: bool = False
    parent: Parent | None = None
    forked_from: str | None = None


class RunAdmitted(Message, type_name="run.admitted"):
    """A queued run may start. `deadline_at` follows from the workflow's `timeout_s`."""

    type: Literal["run.admitted"] = "run.admitted"
    deadline_at: datetime | None = None


class RunPaused(Message, type_name="run.paused"):
    """Nothing new starts until the run is resumed; what runs goes on."""

    type: Literal["run.paused"] = "run.paused"
    principal: str
    reason: str = ""


class RunResumed(Message, type_name="run.resumed"):
    """The run goes on."""

    type: Literal["run.resumed"] = "run.resumed"
    principal: str
    reason: str = ""


class SignalReceived(Message, type_name="signal.received"):
    """A signal came. It is kept until a step that waits for it takes it."""

    type: Literal["signal.received"] = "signal.received"
    id: str
    name: str
    payload: Json = None
    principal: str


class StepKept(Message, type_name="step.kept"):
    """The step had ended in the run that this one was forked from, and is not done again."""

    type: Literal["step.kept"] = "step.kept"
    step: str
    status: Literal["completed", "skipped"]
    output: Json = None
    degraded: bool = False


class StepStarted(Message, type_name="step.started"):
    """An attempt of a step was handed to a worker pool, with `input` as its expressions gave it.

    Where `target_kind` is `workflow`, it was handed to the run `child_run_id`, and there is no task. Without `pool`, it
    was the default one.
    """

    type: Literal["step.started"] = "step.started"
    step: str
    attempt: int
    task_id: str | None = None
    child_run_id: str | None = None
    target_kind: Target
    target: str
    input: Json = None
    deadline_at: datetime | None = None
    pool: str | None = None


class StepOpened(Message, type_name="step.opened"):
    """A map or loop began, of `count` items or at most as many iterations."""

    type: Literal["step.opened"] = "step.opened"
    step: str
    kind: Literal["map", "loop"]
    count: int
    deadline_at: datetime | None = None


class StepWaiting(Message, type_name="step.waiting"):
    """The step waits until a time, or for a signal."""

    type: Literal["step.waiting"] = "step.waiting"
    step: str
    until: datetime | None = None
    signal: str | None = None
    deadline_at: datetime | None = None


class StepEmitted(Message, type_name="step.emitted"):
    """The step published an event, the run's `number`th (from 1)."""

    type: Literal["step.emitted"] = "step.emitted"
    step: str
    number: int
    event: str
    data: Json = None


class ApprovalAsked(Message, type_name="approval.asked"):
    """People were asked. `digest` is what their decisions are bound to."""

    type: Literal["approval.asked"] = "approval.asked"
    step: str
    approval_id: str
    ask: str
    action: Json = None
    digest: str
    principals: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    quorum: int = 1
    own: bool = False
    expires_at: datetime | None = None
    deadline_at: datetime | None = None


class ApprovalDecided(Message, type_name="approval.decided"):
    """One of those who were asked decided; the step ends once there are enough."""

    type: Literal["approval.decided"] = "approval.decided"
    step: str
    approval_id: str
    principal: str
    decision: Verdict
    reason: str = ""


class ApprovalEscalated(Message, type_name="approval.escalated"):
    """Nobody, or too few, decided in time: others are asked."""

    type: Literal["approval.escalated"] = "approval.escalated"
    step: str
    approval_id: str
    principals: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    expires_at: datetime | None = None


class StepCompleted(Message, type_name="step.completed"):
    """The step gave its output; it is never run again.

    `degraded`: something within it (a child run, items of a map) failed, as the workflows allow. `signal` is the id of
    the signal that it took.
    """

    type: Literal["step.completed"] = "step.completed"
    step: str
    attempt: int
    output: Json = None
    usage: Used = NOTHING
    degraded: bool = False
    signal: str | None = None


class StepRetrying(Message, type_name="step.retrying"):
    """Attempt `attempt` failed with `error`; the next one starts at `due_at`."""

    type: Literal["step.retrying"] = "step.retrying"
    step: str
    attempt: int
    error: ErrorInfo
    due_at: datetime
    usage: Used = NOTHING


class StepFailing(Message, type_name="step.failing"):
    """A map or loop cannot succeed any more: nothing new of it starts; what runs of it is being stopped."""

    type: Literal["step.failing"] = "step.failing"
    step: str
    outcome: Literal["failed", "timed_out"]
    error: ErrorInfo


class StepFailed(Message, type_name="step.failed"):
    """The step failed for good. `tolerated`: the run goes on, since its `on_error` is `continue` or names a `fallback`.

    Where there is a `fallback`, steps that need this one wait for that.
    """

    type: Literal["step.failed"] = "step.failed"
    step: str
    attempt: int
    error: ErrorInfo
    tolerated: bool = False
    fallback: str | None = None
    usage: Used = NOTHING


class StepTimedOut(Message, type_name="step.timed_out"):
    """The last allowed attempt did not end within the step's `timeout_s`."""

    type: Literal["step.timed_out"] = "step.timed_out"
    step: str
    attempt: int
    error: ErrorInfo
    tolerated: bool = False
    fallback: str | None = None
    usage: Used = NOTHING


class StepSkipped(Message, type_name="step.skipped"):
    """The step's `when` was false, or it is of a branch not taken. Steps that need it go on; its output is null."""

    type: Literal["step.skipped"] = "step.skipped"
    step: str


class StepCancelled(Message, type_name="step.cancelled"):
    """The step was stopped, or never started, because its run ends. `attempt` is 0 if it never started."""

    type: Literal["step.cancelled"] = "step.cancelled"
    step: str
    attempt: int = 0
    usage: Used = NOTHING


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


class RunCompensating(Message, type_name="run.compensating"):
    """What completed is being undone: these steps, in this order."""

    type: Literal["run.compensating"] = "run.compensating"
    steps: tuple[str, ...]


class RunCompleted(Message, type_name="run.completed"):
    """Everything that the run needed succeeded."""

    type: Literal["run.completed"] = "run.completed"
    output: Json = None
    usage: Used = NOTHING


class RunDegraded(Message, type_name="run.degraded"):
    """The run finished, with failures that its workflow allowed: those of `failed_steps`."""

    type: Literal["run.degraded"] = "run.degraded"
    output: Json = None
    failed_steps: tuple[str, ...]
    usage: Used = NOTHING


class RunFailed(Message, type_name="run.failed"):
    """The run failed because of `error`."""

    type: Literal["run.failed"] = "run.failed"
    error: ErrorInfo
    usage: Used = NOTHING
    uncompensated: tuple[str, ...] = ()


class RunCancelled(Message, type_name="run.cancelled"):
    """The run was stopped on request."""

    type: Literal["run.cancelled"] = "run.cancelled"
    reason: str
    usage: Used = NOTHING
    uncompensated: tuple[str, ...] = ()


class RunTimedOut(Message, type_name="run.timed_out"):
    """The run did not end within its workflow's `timeout_s`."""

    type: Literal["run.timed_out"] = "run.timed_out"
    error: ErrorInfo
    usage: Used = NOTHING
    uncompensated: tuple[str, ...] = ()


type RunEvent = (
    RunStarted
    | RunAdmitted
    | RunPaused
    | RunResumed
    | SignalReceived
    | StepKept
    | StepStarted
    | StepOpened
    | StepWaiting
    | StepEmitted
    | ApprovalAsked
    | ApprovalDecided
    | ApprovalEscalated
    | StepCompleted
    | StepRetrying
    | StepFailing
    | StepFailed
    | StepTimedOut
    | StepSkipped
    | StepCancelled
    | RunCancelling
    | RunFailing
    | RunCompensating
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
