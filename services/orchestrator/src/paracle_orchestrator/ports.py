"""What the orchestrator needs from outside, besides the event store and the bus of the chassis."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from paracle_domain.envelope import Context
from paracle_domain.plan import Plan
from paracle_domain.run.commands import ApprovalPage, ApprovalView, ListApprovals, QueuePlace, RunFilter, RunPage, Stuck
from paracle_orchestrator.admission import Limits

type Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """The clock of a real service."""
    return datetime.now(UTC)


class News(Protocol):
    """Whether the registry may say something else by now than it did before."""

    @property
    def age(self) -> object | None:
        """What it said in this age is still so; `None`: that cannot be known."""
        ...


class PlanStore(Protocol):
    """Plans that runs have pinned, kept as long as the runs are."""

    async def put(self, tenant: str, plan: Plan) -> None:
        """Keep `plan`, which a run is about to pin; if it is there, it is only known to be used."""
        ...

    async def get(self, tenant: str, digest: str) -> Plan | None:
        """The plan with `digest`, or none."""
        ...


class RunIndex(Protocol):
    """Runs by their properties."""

    async def page(self, tenant: str, wanted: RunFilter, limit: int, cursor: str | None = None) -> RunPage:
        """Runs of `tenant` that meet `wanted`, newest first: `limit` of them, or, where it takes long, fewer.

        Raises
        ------
        InvalidInput
            If `cursor` is none of a page's.
        """
        ...

    async def turns_before(self, tenant: str, run_id: str, last: int | None = None) -> list[str]:
        """Runs of the same session that were accepted before this one and have not ended, in order; the `last` ones.

        Not those that wait for a slot: they may wait for its own.
        """
        ...


@dataclass(frozen=True, slots=True)
class Shown:
    """How an approval stood when its run had `version` events."""

    tenant: str
    approval: ApprovalView
    version: int


def newest(approvals: Iterable[Shown]) -> list[Shown]:
    """The newest of what is said of each approval, by id."""
    found: dict[str, Shown] = {}
    for one in approvals:
        known = found.get(one.approval.approval_id)
        if known is None or known.version < one.version:
            found[one.approval.approval_id] = one
    return [found[approval_id] for approval_id in sorted(found)]


class Approvals(Protocol):
    """The list of approvals: a copy of what runs say of them."""

    async def show(self, approvals: Sequence[Shown]) -> None:
        """Show `approvals` as they stand; what is older than what is shown, or of runs that are gone, is left out."""
        ...

    async def get(self, tenant: str, approval_id: str) -> ApprovalView | None:
        """The approval with that id, or none."""
        ...

    async def left_open(self, after: str, limit: int) -> list[tuple[str, str]]:
        """Approvals of all tenants that are shown as open though their runs have ended, and those runs; by id."""
        ...

    async def page(self, query: ListApprovals, call: Context) -> ApprovalPage:
        """Approvals of the caller's tenant that match `query`: open ones first, then the newest.

        Raises
        ------
        InvalidInput
            If its `cursor` is none of a page's.
        """
        ...


@dataclass(frozen=True, slots=True)
class Mark:
    """A dead letter that a run waits for. `stops_ticks`: it was a tick, and further ones would fare no better."""

    tenant: str
    run_id: str
    dead_letter: str
    code: str
    reason: str
    since: datetime
    stops_ticks: bool = False


class StuckIndex(Protocol):
    """Dead letters that runs wait for."""

    async def mark(self, marks: Sequence[Mark]) -> list[Mark]:
        """Keep `marks` of runs that are there and have not ended; those that are kept and not released.

        A letter that was released before it was marked (its readers are not equally fast) stays so.
        """
        ...

    async def release(self, letters: Sequence[tuple[str, str, str]], now: datetime) -> list[Mark]:
        """Forget letters (tenant, run, id); those marks that were there. Ticks that they stopped start at `now`."""
        ...

    async def of(self, tenant: str, run_ids: Sequence[str]) -> dict[str, Stuck]:
        """What those of the runs wait for that have not ended."""
        ...


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """Runs of a tenant whose workflows say the same of how long they are kept; `None`: they say nothing."""

    tenant: str
    keep_s: float | None


@dataclass(frozen=True, slots=True)
class Ended:
    """A run that has ended."""

    id: str
    events: int
    finished_at: datetime


class Retention(Protocol):
    """Where ended runs are dropped from."""

    async def policies(self) -> list[RetentionPolicy]:
        """Every policy that an ended run is under."""
        ...

    async def purge(
        self,
        policy: RetentionPolicy,
        before: datetime,
        runs: int,
        events: int,
        tell: Callable[[Sequence[Ended]], Awaitable[None]],
    ) -> int:
        """Drop runs under `policy` that had ended `before`, longest first, with all that is known of them; how many.

        At most `runs` of them, and not many more than `events` events. `tell` is called before they are gone: if it
        fails, nothing is dropped. A run whose parent has not ended stays.
        """
        ...

    async def forget_plans(self) -> int:
        """Drop some of the plans that no run pins and none can be about to pin; how many."""
        ...


class RunQueue(Protocol):
    """Runs that wait for a slot."""

    async def claim(self, limits: Limits, most: int) -> int:
        """Give the slots that are free to those who are next, at most so many; how many were given.

        At no time have more runs a slot than the limits allow, whoever else does this; but where all that have one wait
        for others that wait for one, a child gets one beyond (`admission.locked_out`).
        """
        ...

    async def claimed(self, most: int, but: Collection[str] = ()) -> list[tuple[str, str]]:
        """Runs that have a slot and are still queued, each with its tenant: they are to be admitted, `but` those."""
        ...

    async def place(self, tenant: str, run_id: str, limits: Limits) -> QueuePlace | None:
        """Where the run stands, if it is queued."""
        ...
