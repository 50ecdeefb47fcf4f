"""The audit log within one process, for tests: held to the same contract suite as the one in PostgreSQL."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from paracle_domain.audit import StoredEvent
from paracle_domain.histories import Begun
from paracle_domain.inference.usage import Usage
from paracle_observability.ports import Gaps, Suspect
from paracle_observability.projections import ENDS, LAST, EventKey, EventRow, Spent, UsageRow, stored

_LONGEST_WAIT_S = 3600.0


@dataclass(slots=True)
class _Look:
    """When a history is looked at next, and how often it was; `lost`: it is not any more."""

    stored: int
    at: float
    checks: int = 0
    lost: bool = False


@dataclass(slots=True)
class MemoryEventLog:
    """An `EventLog` of dictionaries; `clock` gives seconds."""

    clock: Callable[[], float] = time.monotonic
    rows: dict[EventKey, tuple[int, EventRow]] = field(default_factory=dict)
    spent: list[Spent] = field(default_factory=list)
    _looks: dict[tuple[str, str, str], _Look] = field(default_factory=dict)
    _asked: dict[str, datetime] = field(default_factory=dict)

    async def store(self, rows: Sequence[EventRow], spent: Sequence[Spent]) -> int:
        """See `EventLog.store`."""
        fresh = {row.key for row in rows if row.key not in self.rows}
        for row in rows:
            if row.key in fresh:
                self.rows[row.key] = (len(self.rows) + 1, row)
        self.spent.extend(item for item in spent if item.key in fresh)
        return sum(row.events for row in rows if row.key in fresh)

    async def of_run(self, tenant: str, run_id: str, after: int, limit: int) -> list[StoredEvent]:
        """See `EventLog.of_run`."""
        return self._page(lambda row: (row.tenant, row.run_id) == (tenant, run_id), after, limit)

    async def of_entity(self, tenant: str, entity: str, entity_id: str, after: int, limit: int) -> list[StoredEvent]:
        """See `EventLog.of_entity`."""
        return self._page(lambda row: row.key[:3] == (tenant, entity, entity_id), after, limit)

    def _page(self, wanted: Callable[[EventRow], bool], after: int, limit: int) -> list[StoredEvent]:
        rows = ((position, row) for position, row in self.rows.values() if wanted(row))
        events = [event for position, row in rows for event in stored(position, row.subject, row.principal, row.body)]
        return [event for event in events if event.position > after][:limit]

    async def usage(self, tenant: str, run_id: str) -> list[UsageRow]:
        """See `EventLog.usage`."""
        groups: dict[tuple[str, str, str], list[Spent]] = {}
        for item in self.spent:
            if (item.tenant, item.run_id) == (tenant, run_id):
                groups.setdefault((item.task_id, item.provider, item.model), []).append(item)
        return [_usage_row(groups[key]) for key in sorted(groups)]

    async def suspects(self, quiet_s: float, limit: int) -> list[Suspect]:
        """See `EventLog.suspects`."""
        now = self.clock()
        found: list[Suspect] = []
        for suspect in self._all_suspects():
            look = self._looks.get((suspect.tenant, suspect.entity, suspect.id))
            if look is None or look.stored != suspect.stored:
                look = _Look(suspect.stored, now + quiet_s)
                self._looks[suspect.tenant, suspect.entity, suspect.id] = look
            if look.at <= now and not look.lost and len(found) < limit:
                look.at = now + min(quiet_s * 2**look.checks, _LONGEST_WAIT_S)
                look.checks += 1
                found.append(suspect)
        return found

    def _all_suspects(self) -> list[Suspect]:
        histories: dict[tuple[str, str, str], dict[int, str]] = {key: {} for key in self._looks}
        for _, row in self.rows.values():
            types = histories.setdefault((row.tenant, row.entity, row.id), {})
            types |= dict.fromkeys(range(row.first_seq, row.seq), "") | {row.seq: row.type}
        found = []
        for (tenant, entity, name), types in histories.items():
            ended = entity not in ENDS or any(kind in LAST for kind in types.values())
            if len(types) < max(types, default=0) or not ended:
                first = next(seq for seq in range(1, max(types, default=0) + 2) if seq not in types)
                found.append(Suspect(tenant, entity, name, len(types), max(types, default=0), first, 0))
        return found

    async def expect(self, entity: str, begun: Sequence[Begun], quiet_s: float) -> int:
        """See `EventLog.expect`."""
        here = {row.key[:3] for _, row in self.rows.values()} | self._looks.keys()
        absent = [key for one in begun if (key := (one.tenant, entity, one.id)) not in here]
        self._looks |= {key: _Look(0, self.clock() + quiet_s) for key in absent}
        return len(absent)

    async def asked_until(self, entity: str) -> datetime | None:
        """See `EventLog.asked_until`."""
        return self._asked.get(entity)

    async def note_asked(self, entity: str, until: datetime) -> None:
        """See `EventLog.note_asked`."""
        self._asked[entity] = max(until, self._asked.get(entity, until))

    async def give_up(self, suspect: Suspect) -> None:
        """See `EventLog.give_up`."""
        key = (suspect.tenant, suspect.entity, suspect.id)
        if suspect.last_seq == 0:
            del self._looks[key]
        elif self._looks[key].stored == suspect.stored:
            self._looks[key].lost = True

    async def is_lost(self, tenant: str, entity: str, entity_id: str) -> bool:
        """See `EventLog.is_lost`."""
        look = self._looks.get((tenant, entity, entity_id))
        return look is not None and look.lost

    async def gaps(self) -> Gaps:
        """See `EventLog.gaps`."""
        missing = [
            suspect.missing
            for suspect in self._all_suspects()
            if suspect.missing and not await self.is_lost(suspect.tenant, suspect.entity, suspect.id)
        ]
        return Gaps(sum(missing), len(missing), sum(look.lost for look in self._looks.values()))


def _usage_row(items: Sequence[Spent]) -> UsageRow:
    known = [item.usage.model_copy(update={"cost_usd": item.usage.cost_usd or Decimal(0)}) for item in items]
    first = items[0]
    return UsageRow(
        first.task_id,
        first.provider,
        first.model,
        first.agent,
        first.step,
        sum(known, start=Usage()),
        sum(item.usage.cost_usd is None for item in items),
    )
