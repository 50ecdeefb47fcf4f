"""The ledger's past in PostgreSQL."""

from __future__ import annotations

import asyncpg

from paracle_chassis.postgres import Queries


class PostgresArchive:
    """An `Archive` on the tables of `migrations/`."""

    def __init__(self, pool: asyncpg.Pool, queries: Queries) -> None:
        self._pool = pool
        self._sql = queries

    async def drop_attempts(self, older_s: float, most: int) -> int:
        dropped: int = await self._pool.fetchval(self._sql.drop_attempts, older_s, most)
        return dropped

    async def drop_answers(self, most: int) -> int:
        dropped: int = await self._pool.fetchval(self._sql.drop_answers, most)
        return dropped

    async def drop_counters(self) -> None:
        await self._pool.execute(self._sql.drop_counters)
