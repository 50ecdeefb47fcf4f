"""Dropping of ended runs in PostgreSQL."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

import asyncpg

from paracle_chassis.postgres import Queries
from paracle_orchestrator.ports import Ended, RetentionPolicy

_GRACE: Final = timedelta(days=1)
_PLANS: Final = 100


class PostgresRetention:
    """`Retention` on the table `runs` and what hangs on it."""

    def __init__(self, pool: asyncpg.Pool, queries: Queries) -> None:
        self._pool = pool
        self._queries = queries

    async def policies(self) -> list[RetentionPolicy]:
        """See `Retention.policies`."""
        return [RetentionPolicy(*row) for row in await self._pool.fetch(self._queries["retention_policies"])]

    async def purge(
        self,
        policy: RetentionPolicy,
        before: datetime,
        runs: int,
        events: int,
        tell: Callable[[Sequence[Ended]], Awaitable[None]],
    ) -> int:
        """See `Retention.purge`. Rows that another replica is dropping are skipped."""
        async with self._pool.acquire() as connection, connection.transaction():
            due = self._queries["runs_due_for_purge"]
            rows = await connection.fetch(due, policy.tenant, policy.keep_s, before, runs)
            chosen = _within(events, [Ended(*row) for row in rows])
            if chosen:
                await tell(chosen)
                await connection.execute(self._queries["purge_runs"], [run.id for run in chosen])
        return len(chosen)

    async def forget_plans(self) -> int:
        """See `Retention.forget_plans`."""
        return int((await self._pool.execute(self._queries["forget_plans"], _GRACE, _PLANS)).rpartition(" ")[2])


def _within(events: int, due: Sequence[Ended]) -> list[Ended]:
    """The first of `due` that have so many events together; at least one."""
    chosen: list[Ended] = []
    for run in due:
        events -= run.events
        if chosen and events < 0:
            break
        chosen.append(run)
    return chosen
