"""What the use cases of observability need: a log of events, and owners of histories to ask for what never came."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from paracle_chassis.dead_letters import Letter
from paracle_domain.audit import StoredEvent
from paracle_domain.dead_letters import DeadLetter, DeadLetterFilter
from paracle_domain.histories import Begun
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
    """Events that are looked for, in how many histories; and how many histories lack what nobody knows any more."""

    missing: int
    histories: int
    lost: int


class EventLog(Protocol):
    """Every event once, with what is projected from it. Its implementations pass one contract suite."""

    async def store(self, rows: Sequence[EventRow], spent: Sequence[Spent]) -> int:
        """Keep `rows` and count `spent`, all or nothing; rows that are there already change nothing.

        Returns how many events were new. Keys are distinct within `rows`.
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

    async def expect(self, entity: str, begun: Sequence[Begun], quiet_s: float) -> int:
        """There are these histories: those of which no event comes within `quiet_s` are suspects.

        Returns of how many none had come, and that was not known.
        """
        ...

    async def asked_until(self, entity: str) -> datetime | None:
        """Until when the owner of `entity` has said which histories began; `None`: he never has."""
        ...

    async def note_asked(self, entity: str, until: datetime) -> None:
        """He has until then."""
        ...

    async def give_up(self, suspect: Suspect) -> None:
        """What is missing of it is lost: it is no suspect any more, until something of it comes after all."""
        ...

    async def is_lost(self, tenant: str, entity: str, entity_id: str) -> bool:
        """Whether something of that entity is lost."""
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


class Roster(Protocol):
    """Which entities of one kind there are."""

    async def begun(self, since: datetime, after: str, until: datetime, limit: int) -> Sequence[Begun]:
        """Histories of all tenants in the order in which they began: from `since` (ids after `after`) to `until`."""
        ...


@dataclass(frozen=True, slots=True)
class Place:
    """Where a dead letter stands among all in time."""

    at: datetime
    id: str


class Shelf(Protocol):
    """Dead letters, by tenant. Its implementations pass one contract suite."""

    async def keep(self, letters: Sequence[Letter]) -> int:
        """Keep `letters`; how many are new. One that is here, or was and is settled, changes nothing."""
        ...

    async def newest(self, tenant: str, which: DeadLetterFilter, before: Place | None, limit: int) -> list[DeadLetter]:
        """Those that fit, newest first, from `before` on."""
        ...

    async def oldest(self, tenant: str, which: DeadLetterFilter, after: Place | None, limit: int) -> list[DeadLetter]:
        """Those that fit, oldest first, from `after` on."""
        ...

    async def get(self, tenant: str, id: str) -> Letter | None:
        """One, whole."""
        ...

    async def remove(self, tenant: str, id: str, event: EventRow) -> bool:
        """Take one away and put `event` into the audit log, both or neither; whether it was there."""
        ...

    async def older(self, before: datetime, limit: int) -> list[tuple[str, str]]:
        """Tenant and id of those that were given up before `before`, oldest first."""
        ...


class StreamCopies(Protocol):
    """The stream of dead letters, where each stays as long as it is on the shelf."""

    async def delete(self, letter: Letter) -> None:
        """Delete the copy of `letter`; nothing happens if it is gone."""
        ...
