"""The ledger as accounts use it: batches of attempts are opened and settled, each batch at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import IntEnum, StrEnum
from typing import Protocol
from uuid import UUID

from paracle_domain.budget.matching import Tally
from paracle_domain.budget.spec import Budget
from paracle_domain.inference.usage import NOTHING, Usage
from paracle_domain.provider.spec import DeploymentLimits


@dataclass(frozen=True, slots=True)
class Count:
    """A counter that attempts go on.

    `born` tells a budget from an earlier one of the same name.
    """

    id: UUID
    tenant: str
    budget: Budget
    born: int
    subject: str
    period: str


class Mode(IntEnum):
    """How an attempt is opened.

    `ANYWAY`: although another replica had the call. `AGAIN`: it was granted before; what holds it may have been lost.
    """

    USUAL = 0
    ANYWAY = 1
    AGAIN = 2


@dataclass(slots=True, eq=False)
class Order:
    """An attempt with what it may use and whose limits it is under.

    Attributes
    ----------
    serial
        Tells it from all other attempts of its call; `number` counts from 1 again where a call is repeated, or
        turned to another model by a budget.
    load
        Key of its deployment, if that has limits that replicas share.
    counts
        What it goes on, and whether that may hold it back.
    revision
        Of the tenant's book of budgets by which they were found.
    """

    tenant: str
    call_id: str
    serial: int
    number: int
    labels: tuple[str | None, ...]
    provider: str
    model: str
    usd: Decimal | None
    tokens: int
    load: str | None
    limits: DeploymentLimits
    counts: tuple[tuple[Count, bool], ...]
    revision: int
    mode: Mode = Mode.USUAL

    @property
    def key(self) -> tuple[str, str, int]:
        return self.tenant, self.call_id, self.serial


LABELS = ("project", "principal", "agent", "run_id", "task_id", "parent_task_id", "step")
"""What `Order.labels` are, in order."""


@dataclass(frozen=True, slots=True)
class Stale:
    """The tenant's budgets have changed: look again."""


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """`replica` has the call in the air, or had it and got an answer."""

    replica: str


@dataclass(frozen=True, slots=True)
class Over:
    """`count` was spent."""

    count: Count
    tally: Tally


@dataclass(frozen=True, slots=True)
class NoRoom:
    """Not now: a budget's rest is reserved (`count`), or a limit of the deployment (`limit`) is full."""

    after_s: float
    count: Count | None = None
    limit: str = ""


type Verdict = Stale | Elsewhere | Over | NoRoom | None
"""`None`: granted."""


class Ending(StrEnum):
    """How an attempt ended; `UNKNOWN`: its replica died with it. `CACHED`: it was not made, as its answer was kept."""

    COMPLETED = "completed"
    CACHED = "cached"
    FAILED = "failed"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"


@dataclass(slots=True, eq=False)
class Settlement:
    """What an attempt came to. `counted_*` is what budgets are charged, `saved` what a kept answer had used."""

    order: Order
    ending: Ending
    error: str | None
    model: str | None
    usage: Usage
    counted_usd: Decimal
    counted_tokens: int
    latency_s: float
    first_token_s: float | None
    saved: Usage = NOTHING


@dataclass(frozen=True, slots=True)
class KnownBudget:
    """A budget as a book has it."""

    budget: Budget
    born: int


@dataclass(frozen=True, slots=True)
class Page:
    """A tenant's book: all its budgets at a revision."""

    revision: int = 0
    budgets: tuple[KnownBudget, ...] = field(default=())


class Ledger(Protocol):
    """Where reservations and records are kept for all replicas. `replica` is who asks.

    Whatever it does, it does to a batch as a whole or not at all. It may be lost for a moment in which PostgreSQL dies:
    who opened an attempt opens it once more (`Mode.AGAIN`), who settled it settles it once more, and neither counts
    twice.
    """

    async def page(self, tenant: str) -> Page:
        """The tenant's budgets as they are now."""

    async def open(self, orders: Sequence[Order]) -> Sequence[Verdict]:
        """Reserve what each may use, in order; what is not granted reserves nothing."""

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settlement]:
        """Turn reservations into what was used; those that nothing is known of come back."""

    async def note(self, cached: Sequence[Settlement]) -> None:
        """Write down attempts that were spared; none of them was opened."""

    async def is_gone(self, replica: str) -> bool:
        """Whether `replica` has left, or has shown no sign of life for so long that two of them are missing."""

    async def close_call(self, tenant: str, call_id: str, replica: str) -> None:
        """`replica` is gone, and what it had of the call with it: what it may have used counts as used."""

    async def close_orphans(self, most: int) -> int:
        """The same for up to `most` attempts of all replicas that are gone; how many there were."""
