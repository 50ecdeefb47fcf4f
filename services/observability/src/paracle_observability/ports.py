"""What the use cases of observability need: a log of events, and owners of histories to ask for what never came."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from paracle_domain.audit import StoredEvent
from paracle_domain.machine import EventRecord
from paracle_observability.projections import EventRow, Spent, UsageRow


@dataclass(frozen=True, slots=True)
class Suspect:
    """A history that may miss events: it has a gap, or it is a run or task that fell silent without having ended.

    `first_missing` is the first number that is not stored; `checks` counts how often it has been looked at.
    """

    tenant: str
    entity: str
    id: str
    stored: int
    last_seq: int
    first_missing: int
    checks: int

    @property
    def missing(self) -> int:
        """Events that are known to be missing."""
        return self.last_seq - self.stored


@dataclass(frozen=True, slots=True)
class Gaps:
    """Events known to be missing in all, and in how many histories."""

    missing: int
    histories: int


class EventLog(Protocol):
    """Every event once, with what is projected from it. Its implementations pass one contract suite."""

    async def store(self, rows: Sequence[EventRow], spent: Sequence[Spent]) -> int:
        """Keep `rows` and count `spent`, all or nothing; events that are there already change nothing.

        Returns how many were new. Keys are distinct within `rows`.
        """
        ...

    async def of_run(self, tenant: str, run_id: str, after: int, limit: int) -> list[StoredEvent]:
        """Events of a run and of what it caused, after position `after`."""
        ...

    async def of_entity(self, tenant: str, entity: str, entity_id: str, after: int, limit: int) -> list[StoredEvent]:
        """Events of one entity, after position `after`."""
        ...

    async def usage(self, tenant: str, run_id: str) -> list[UsageRow]:
        """What a run used so far."""
        ...

    async def suspects(self, quiet_s: float, limit: int) -> list[Suspect]:
        """Histories to look into now: those that have been quiet for `quiet_s`, less and less often each."""
        ...

    async def gaps(self) -> Gaps:
        """How much is known to be missing."""
        ...


class History(Protocol):
    """The truth about the events of one kind of entity."""

    async def after(self, tenant: str, name: str, seq: int) -> tuple[Sequence[EventRecord], bool]:
        """Events of the entity `name` after number `seq`, without gaps, and whether there may be more already.

        Raises
        ------
        NotFound
            If there is no such entity.
        """
        ...
