"""Stuck runs in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import asyncpg

from paracle_chassis.postgres import Queries
from paracle_domain.run.commands import Stuck
from paracle_orchestrator.ports import Mark


class PostgresStuckIndex:
    """`StuckIndex` on the table `stuck`."""

    def __init__(self, pool: asyncpg.Pool, queries: Queries) -> None:
        self._pool = pool
        self._queries = queries

    async def mark(self, marks: Sequence[Mark]) -> list[Mark]:
        """See `StuckIndex.mark`."""
        rows = [
            (one.tenant, one.run_id, one.dead_letter, one.code, one.reason, one.since, one.stops_ticks)
            for one in {(one.tenant, one.dead_letter): one for one in marks}.values()
        ]
        columns = [list(column) for column in zip(*rows, strict=True)]
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(self._queries["mark_stuck"], *columns)
            found = await connection.fetch(self._queries["marked"], columns[0], columns[2])
        return [_mark(row) for row in found]

    async def release(self, letters: Sequence[tuple[str, str, str]], now: datetime) -> list[Mark]:
        """See `StuckIndex.release`."""
        tenants, runs, ids = (list(column) for column in zip(*sorted(set(letters)), strict=True))
        return [_mark(row) for row in await self._pool.fetch(self._queries["release_stuck"], tenants, runs, ids, now)]

    async def of(self, tenant: str, run_ids: Sequence[str]) -> dict[str, Stuck]:
        """See `StuckIndex.of`."""
        if not run_ids:
            return {}
        rows = await self._pool.fetch(self._queries["stuck_of"], tenant, list(run_ids))
        return {
            row["run_id"]: Stuck(
                dead_letter=row["dead_letter"], code=row["code"], since=row["since"], letters=row["letters"]
            )
            for row in rows
        }


def _mark(row: asyncpg.Record) -> Mark:
    return Mark(
        row["tenant"],
        row["run_id"],
        row["dead_letter"],
        row["code"],
        row["reason"],
        row["since"],
        stops_ticks=row["stops_ticks"],
    )
