"""The audit log in PostgreSQL: one statement a batch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from itertools import chain, islice
from operator import attrgetter
from typing import Any, Final

import asyncpg

from paracle_chassis.postgres import Queries
from paracle_domain.audit import StoredEvent
from paracle_domain.histories import Begun
from paracle_domain.inference.usage import Usage
from paracle_observability.ports import Gaps, Suspect
from paracle_observability.projections import LAST, EventRow, Spent, UsageRow, row_of, stored

_COLUMNS: Final = tuple(
    attrgetter(name)
    for name in ("tenant", "entity", "id", "first_seq", "seq", "type", "subject", "run_id", "principal", "time", "body")
)


class PostgresEventLog:
    """An `EventLog` on the tables of `migrations/`."""

    def __init__(self, pool: asyncpg.Pool, queries: Queries) -> None:
        self._pool = pool
        self._sql = queries

    async def store(self, rows: Sequence[EventRow], spent: Sequence[Spent]) -> int:
        """See `EventLog.store`."""
        used = json.dumps([_spent(item) for item in spent])
        return int(await self._pool.fetchval(self._sql["store"], *columns_of(rows), used))

    async def of_run(self, tenant: str, run_id: str, after: int, limit: int) -> list[StoredEvent]:
        """See `EventLog.of_run`."""
        rows = await self._pool.fetch(self._sql["audit_of_run"], tenant, run_id, row_of(after), limit + 1)
        return _events(rows, after, limit)

    async def of_entity(self, tenant: str, entity: str, entity_id: str, after: int, limit: int) -> list[StoredEvent]:
        """See `EventLog.of_entity`."""
        rows = await self._pool.fetch(self._sql["audit_of_entity"], tenant, entity, entity_id, row_of(after), limit + 1)
        return _events(rows, after, limit)

    async def usage(self, tenant: str, run_id: str) -> list[UsageRow]:
        """See `EventLog.usage`."""
        return [_usage(row) for row in await self._pool.fetch(self._sql["usage_of_run"], tenant, run_id)]

    async def suspects(self, quiet_s: float, limit: int) -> list[Suspect]:
        """See `EventLog.suspects`."""
        quiet = timedelta(seconds=quiet_s)
        async with self._pool.acquire() as connection:
            await connection.execute(self._sql["count_new"], list(LAST), quiet)
            rows = await connection.fetch(self._sql["claim_suspects"], limit, quiet)
        return [Suspect(**row) for row in rows]

    async def expect(self, entity: str, begun: Sequence[Begun], quiet_s: float) -> int:
        """See `EventLog.expect`."""
        tenants, ids = [one.tenant for one in begun], [one.id for one in begun]
        return int(await self._pool.fetchval(self._sql["expect"], entity, tenants, ids, timedelta(seconds=quiet_s)))

    async def asked_until(self, entity: str) -> datetime | None:
        """See `EventLog.asked_until`."""
        found: datetime | None = await self._pool.fetchval(self._sql["asked_until"], entity)
        return found

    async def note_asked(self, entity: str, until: datetime) -> None:
        """See `EventLog.note_asked`."""
        await self._pool.execute(self._sql["note_asked"], entity, until)

    async def give_up(self, suspect: Suspect) -> None:
        """See `EventLog.give_up`."""
        await self._pool.execute(self._sql["give_up"], suspect.tenant, suspect.entity, suspect.id, suspect.stored)

    async def is_lost(self, tenant: str, entity: str, entity_id: str) -> bool:
        """See `EventLog.is_lost`."""
        return bool(await self._pool.fetchval(self._sql["is_lost"], tenant, entity, entity_id))

    async def gaps(self) -> Gaps:
        """See `EventLog.gaps`."""
        row = await self._pool.fetchrow(self._sql["count_gaps"])
        assert row is not None
        return Gaps(**row)


def columns_of(rows: Sequence[EventRow]) -> list[list[Any]]:
    """The first arguments of the query `store`."""
    return [[read(row) for row in rows] for read in _COLUMNS]


def _spent(item: Spent) -> dict[str, Any]:
    return {
        "tenant": item.tenant,
        "run_id": item.run_id,
        "task_id": item.task_id,
        "row": item.row,
        "provider": item.provider,
        "model": item.model,
        "agent": item.agent,
        "step": item.step,
        **item.usage.model_dump(mode="json"),
    }


def _events(rows: Iterable[asyncpg.Record], after: int, limit: int) -> list[StoredEvent]:
    """The first `limit` events of `rows` after position `after`; some of the first row may be before it."""
    events = chain.from_iterable(stored(*row) for row in rows)
    return list(islice((event for event in events if event.position > after), limit))


def _usage(row: asyncpg.Record) -> UsageRow:
    usage = Usage(
        input_tokens=row["input_tokens"],
        output_tokens=row["output_tokens"],
        cached_tokens=row["cached_tokens"],
        reasoning_tokens=row["reasoning_tokens"],
        model_calls=row["model_calls"],
        tool_calls=row["tool_calls"],
        cost_usd=row["known_cost_usd"],
    )
    identity = {name: row[name] for name in ("task_id", "provider", "model", "agent", "step")}
    return UsageRow(**identity, usage=usage, unpriced_calls=row["unpriced_calls"])
