"""The ledger's past in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import asyncpg

from paracle_chassis.postgres import Queries
from paracle_provider_gateway.retention import IdleCount


class PostgresArchive:
    """An `Archive` on the tables of `migrations/`."""

    def __init__(self, pool: asyncpg.Pool, queries: Queries) -> None:
        self._pool = pool
        self._sql = queries

    async def drop_attempts(self, older_s: float, most: int) -> int:
        dropped: int = await self._pool.fetchval(self._sql.drop_attempts, older_s, most)
        return dropped

    async def drop_answers(self, beyond: int, most: int) -> int:
        dropped: int = await self._pool.fetchval(self._sql.drop_answers, most, beyond)
        return dropped

    async def drop_counters(self) -> None:
        await self._pool.execute(self._sql.drop_counters)

    async def idle_counts(self, older_s: float, most: int) -> Sequence[IdleCount]:
        rows = await self._pool.fetch(self._sql.idle_counts, older_s, most)
        return [IdleCount(row["id"], row["tenant"], row["run_id"] or None) for row in rows]

    async def keep_counts(self, ids: Sequence[UUID]) -> None:
        await self._pool.execute(self._sql.keep_counts, list(ids))

    async def drop_counts(self, ids: Sequence[UUID], older_s: float) -> None:
        await self._pool.execute(self._sql.drop_counts, list(ids), older_s)
