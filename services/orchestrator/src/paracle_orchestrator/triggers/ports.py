"""What is kept of triggers, and what the store must be able to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Protocol

from paracle_domain.errors import ErrorInfo
from paracle_domain.registry import TriggerChange
from paracle_domain.run.commands import StartRun
from paracle_domain.trigger.commands import Cause, FireStatus, TriggerCounts, TriggerRun
from paracle_domain.trigger.spec import TriggerSpec

COMMANDS_KEPT: Final = 16
NO_COUNTS: Final = TriggerCounts()

type TriggerKey = tuple[str, str]
"""A trigger's tenant and name."""


@dataclass(frozen=True, slots=True)
class Trigger:
    """A trigger as it stands.

    Attributes
    ----------
    cursor
        The last time of its schedule that was dealt with, one way or another.
    due_at
        When the clock is to be looked at for it.
    commands
        Ids of the last commands that changed it, each with its number, the newest last.
    problem
        Why it cannot fire.
    """

    tenant: str
    name: str
    revision: int
    spec: TriggerSpec
    cursor: datetime
    due_at: datetime | None = None
    deleted: bool = False
    paused: bool = False
    paused_by: str | None = None
    paused_at: datetime | None = None
    paused_reason: str | None = None
    commands: tuple[tuple[str, int], ...] = ()
    problem: str | None = None
    counts: TriggerCounts = NO_COUNTS
    last_at: datetime | None = None

    @property
    def key(self) -> TriggerKey:
        return self.tenant, self.name

    def number_of(self, command_id: str) -> int | None:
        """The number of a command that it has obeyed."""
        return dict(self.commands).get(command_id)

    def after_command(self, command_id: str) -> Trigger:
        """Itself, with a command more obeyed."""
        number = self.commands[-1][1] + 1 if self.commands else 1
        return replace(self, commands=(*self.commands, (command_id, number))[-COMMANDS_KEPT:])


@dataclass(frozen=True, slots=True)
class Start:
    """A run that a trigger starts: decided, then attempted until it began or was refused."""

    run_id: str
    tenant: str
    trigger: str
    cause: Cause
    at: datetime
    command: StartRun | None
    scheduled_at: datetime | None = None
    cancels: tuple[str, ...] = ()
    status: FireStatus = FireStatus.PENDING
    error: ErrorInfo | None = None

    @property
    def key(self) -> TriggerKey:
        return self.tenant, self.trigger


@dataclass(frozen=True, slots=True)
class Decided:
    """What a look at the clock made of a trigger, and what is to be started."""

    trigger: Trigger
    starts: tuple[Start, ...] = ()


@dataclass(frozen=True, slots=True)
class MessageKey:
    """What a message has in common with others; `run_id` is that of the run which it would start."""

    tenant: str
    trigger: str
    key: str
    run_id: str
    expires_at: datetime

    @property
    def place(self) -> tuple[str, str, str]:
        """What one run has for itself."""
        return self.tenant, self.trigger, self.key


type Learn = Callable[[Trigger | None, TriggerChange], Trigger | None]
type Decide = Callable[[Trigger, Sequence[str]], Decided]
type Edit = Callable[[Trigger], Trigger]


class TriggerStore(Protocol):
    """Triggers of all tenants, durably; every method is one transaction."""

    async def version(self, tenant: str) -> int:
        """The version of the registry that is taken in; 0 for a tenant that is not known."""
        ...

    async def learn(
        self, tenant: str, changes: Sequence[TriggerChange], version: int, now: datetime, learn: Learn
    ) -> None:
        """Take `changes` in: what `learn` makes of each and of what is kept, unless that is none."""
        ...

    async def unchecked(self, now: datetime, before: datetime, limit: int) -> Sequence[str]:
        """Tenants for whom the registry was last asked before `before`; they now count as asked."""
        ...

    async def get(self, tenant: str, name: str) -> Trigger | None:
        """A trigger that is not deleted."""
        ...

    async def page(self, tenant: str, after: str, limit: int) -> Sequence[Trigger]:
        """Triggers that are not deleted, by name, after the name `after`."""
        ...

    async def on_messages(self, tenants: Sequence[str]) -> Sequence[Trigger]:
        """All triggers on messages of `tenants`."""
        ...

    async def change(self, tenant: str, name: str, edit: Edit) -> Trigger | None:
        """Put `edit` of a trigger in its place; what it is then."""
        ...

    async def decide_due(self, now: datetime, limit: int, decide: Decide) -> int:
        """Let `decide` look at triggers that are due, and at their runs under way; how many those were.

        Each is decided by one replica at a time. What it decides is kept, starts as pending.
        """
        ...

    async def soonest(self) -> datetime | None:
        """When the next trigger is due."""
        ...

    async def add(self, start: Start, retry_at: datetime) -> Start:
        """Keep a start that is about to be attempted; if it is kept already, that one."""
        ...

    async def claim_pending(self, now: datetime, until: datetime, limit: int) -> Sequence[Start]:
        """Starts to be attempted, nobody else's before `until`; those of a schedule one after the other."""
        ...

    async def settle(self, start: Start, error: ErrorInfo | None) -> None:
        """A pending start began its run, or was refused with `error`."""
        ...

    async def take_keys(self, keys: Sequence[MessageKey], now: datetime) -> set[str]:
        """Those of the runs that have their key for themselves, now or since before; of several, the first."""
        ...

    async def release_keys(self, keys: Sequence[MessageKey]) -> None:
        """The runs of these did not begin: as far as they have their keys, those are free."""
        ...

    async def record(self, starts: Sequence[Start], counts: Mapping[TriggerKey, TriggerCounts]) -> None:
        """Keep starts that are settled, and count them once however often they are recorded; add `counts`."""
        ...

    async def last(self, tenant: str, name: str, limit: int) -> Sequence[TriggerRun]:
        """What a trigger started last, newest first."""
        ...

    async def tidy(self, now: datetime) -> None:
        """Forget keys that have expired, and starts beyond the last of each trigger."""
        ...
