"""What all replicas ask of deployments with limits, from their counters in PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import asyncpg

from paracle_chassis.postgres import Queries
from paracle_domain.inference.deployments import DeploymentUse


class PostgresLoads:
    """`Loads` on the table of `migrations/`."""

    def __init__(self, pool: asyncpg.Pool, queries: Queries) -> None:
        self._pool = pool
        self._sql = queries

    async def loads(self, keys: Sequence[str]) -> Mapping[str, DeploymentUse]:
        """See `Loads.loads`."""
        if not keys:
            return {}
        rows = await self._pool.fetch(self._sql.loads_now, list(keys))
        return {
            row["deployment"]: DeploymentUse(in_air=row["in_air"], requests=row["requests"], tokens=row["tokens"])
            for row in rows
        }
