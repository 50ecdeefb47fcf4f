"""What a run is told: the messages that its machine decides upon."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pydantic import JsonValue

from paracle_domain.errors import ErrorInfo
from paracle_domain.records import record
from paracle_domain.run.commands import CancelRun, Parent, StartRun, Verdict
from paracle_domain.run.events import StepKept
from paracle_domain.run.messages import ChildEnded
from paracle_domain.task.messages import TaskResult


@record
class Begin:
    """A start command whose plan is resolved and whose input has been checked against the plan's schema.

    `queued`: it is to wait for an `Admit`. `kept`: what a fork takes over. `refused` and `cancelled`: a child run that
    ends as it begins, since its input is wrong, or since its parent wants it no more.
    """

    run_id: str
    tenant: str
    principal: str
    command: StartRun
    parent: Parent | None = None
    deadline_at: datetime | None = None
    queued: bool = False
    forked_from: str | None = None
    kept: tuple[StepKept, ...] = ()
    refused: ErrorInfo | None = None
    cancelled: str | None = None


@dataclass(frozen=True, slots=True)
class Cancel:
    """A cancel command, and who gave it."""

    principal: str
    command: CancelRun


@dataclass(frozen=True, slots=True)
class Pause:
    """Start nothing new."""

    principal: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Resume:
    """Go on."""

    principal: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Admit:
    """A queued run may start."""


@dataclass(frozen=True, slots=True)
class Signal:
    """A signal; `id` is that of the message that brought it: the same one counts once."""

    id: str
    name: str
    payload: JsonValue
    principal: str


@dataclass(frozen=True, slots=True)
class Decide:
    """What somebody decided. `RunMachine.objection` says whether it counts."""

    principal: str
    roles: tuple[str, ...]
    approval_id: str
    digest: str
    decision: Verdict
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Tick:
    """The time at which the run wanted to be woken has come."""


type RunMessage = Begin | TaskResult | Cancel | Tick | Pause | Resume | Admit | Signal | Decide | ChildEnded
