"""Dropping of what is told in PostgreSQL."""

from __future__ import annotations

from datetime import datetime

import asyncpg

from paracle_chassis.postgres import Queries


class PostgresAuditRetention:
    """`AuditRetention` on the tables `event`, `usage` and `history`."""

    def __init__(self, pool: asyncpg.Pool, queries: Queries) -> None:
        self._pool = pool
        self._sql = queries

    async def tenants(self) -> list[str]:
        """See `AuditRetention.tenants`."""
        return [row[0] for row in await self._pool.fetch(self._sql["audited_tenants"])]

    async def drop(self, tenant: str, before: datetime, most: int) -> int:
        """See `AuditRetention.drop`."""
        return int(await self._pool.fetchval(self._sql["drop_audit"], tenant, before, most))
