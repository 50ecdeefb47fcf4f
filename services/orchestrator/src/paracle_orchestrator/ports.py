"""What the orchestrator needs from outside, besides the event store and the bus of the chassis."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

from paracle_domain.plan import Plan
from paracle_domain.run.commands import RunFilter, RunPage

type Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """The clock of a real service."""
    return datetime.now(UTC)


class PlanStore(Protocol):
    """Plans that runs have pinned, kept as long as the runs are."""

    async def put(self, tenant: str, plan: Plan) -> None:
        """Keep `plan`; nothing happens if it is there."""
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
