"""Dead letters within one process, for tests: held to the same contract suite as those in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from paracle_chassis.dead_letters import Letter
from paracle_domain.dead_letters import DeadLetter, DeadLetterFilter
from paracle_observability.adapters.memory import MemoryEventLog
from paracle_observability.ports import Place
from paracle_observability.projections import EventRow


@dataclass(slots=True)
class MemoryShelf:
    """A `Shelf` of a dictionary, beside the audit log."""

    log: MemoryEventLog
    letters: dict[tuple[str, str], Letter] = field(default_factory=dict)

    async def keep(self, letters: Sequence[Letter]) -> int:
        """See `Shelf.keep`."""
        before = len(self.letters)
        for letter in letters:
            if (letter.tenant, "dead_letter", letter.about.id, 1) not in self.log.rows:
                self.letters.setdefault((letter.tenant, letter.about.id), letter)
        return len(self.letters) - before

    async def newest(self, tenant: str, which: DeadLetterFilter, before: Place | None, limit: int) -> list[DeadLetter]:
        """See `Shelf.newest`."""
        found = [one for one in self._fitting(tenant, which) if before is None or _key(one) < (before.at, before.id)]
        return found[::-1][:limit]

    async def oldest(self, tenant: str, which: DeadLetterFilter, after: Place | None, limit: int) -> list[DeadLetter]:
        """See `Shelf.oldest`."""
        found = [one for one in self._fitting(tenant, which) if after is None or _key(one) > (after.at, after.id)]
        return found[:limit]

    def _fitting(self, tenant: str, which: DeadLetterFilter) -> list[DeadLetter]:
        found = (letter.about for (owner, _), letter in self.letters.items() if owner == tenant)
        return sorted((one for one in found if _fits(one, which)), key=_key)

    async def get(self, tenant: str, id: str) -> Letter | None:
        """See `Shelf.get`."""
        return self.letters.get((tenant, id))

    async def remove(self, tenant: str, id: str, event: EventRow) -> bool:
        """See `Shelf.remove`."""
        if self.letters.pop((tenant, id), None) is None:
            return False
        await self.log.store([event], [])
        return True

    async def older(self, before: datetime, limit: int) -> list[tuple[str, str]]:
        """See `Shelf.older`."""
        found = sorted((letter.about.at, *key) for key, letter in self.letters.items() if letter.about.at < before)
        return [(tenant, name) for _, tenant, name in found[:limit]]


def _key(one: DeadLetter) -> tuple[datetime, str]:
    return one.at, one.id


def _fits(one: DeadLetter, which: DeadLetterFilter) -> bool:
    return (
        which.service in {None, one.service}
        and which.code in {None, one.code}
        and which.run_id in {None, one.run_id}
        and (which.since is None or one.at >= which.since)
        and (which.until is None or one.at < which.until)
    )
