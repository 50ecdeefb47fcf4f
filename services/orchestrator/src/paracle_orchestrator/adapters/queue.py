"""Runs that wait for a slot, in PostgreSQL."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

import asyncpg

from paracle_chassis.postgres import Queries
from paracle_domain.run.commands import QueuePlace
from paracle_orchestrator.admission import Limits, Running, Scope, Waiting, choose, locked_out

_HEADS: Final = 100


class PostgresRunQueue:
    """`RunQueue` on the table `runs`."""

    def __init__(self, pool: asyncpg.Pool, queries: Queries) -> None:
        self._pool = pool
        self._queries = queries

    async def claim(self, limits: Limits, most: int) -> int:
        """See `RunQueue.claim`. Counting and claiming are one transaction, and one replica at a time does it."""
        if await self._pool.fetchval(self._queries["anybody_queued"]) is None:
            return 0
        async with self._pool.acquire() as connection, connection.transaction():
            if not await connection.fetchval(self._queries["lock_queue"]):
                return 0
            rows = await connection.fetch(self._queries["queue_heads"], min(most, _HEADS))
            waiting = [Waiting(**row) for row in rows]
            if not waiting:
                return 0
            chosen = choose(waiting, await self._running(connection, waiting), limits, most)
            if not chosen and (one := locked_out(waiting, await self._holders(connection, waiting))):
                chosen = [one]
            return len(await connection.fetch(self._queries["claim_slots"], [one.id for one in chosen]))

    async def claimed(self, most: int, but: Collection[str] = ()) -> list[tuple[str, str]]:
        """See `RunQueue.claimed`."""
        return [(row[0], row[1]) for row in await self._pool.fetch(self._queries["claimed_runs"], most, list(but))]

    async def place(self, tenant: str, run_id: str, limits: Limits) -> QueuePlace | None:
        """See `RunQueue.place`."""
        async with self._pool.acquire() as connection:
            row = await connection.fetchrow(self._queries["queued_run"], tenant, run_id)
            if row is None:
                return None
            one = Waiting(**row)
            line = (one.tenant, one.workflow, one.child, one.priority, one.created_at, one.id)
            ahead = await connection.fetchval(self._queries["ahead_in_queue"], *line)
            running = await self._running(connection, [one])
        return QueuePlace(
            ahead=ahead,
            workflow_running=running.workflows[one.scope],
            workflow_limit=one.max_runs,
            tenant_running=running.tenants[tenant],
            tenant_limit=None if one.child else limits.tenant(tenant),
        )

    async def _holders(self, connection: Any, waiting: list[Waiting]) -> dict[Scope, list[set[Scope]]]:
        """What `locked_out` asks about the workflows of children that wait."""
        scopes = list(dict.fromkeys(one.scope for one in waiting if one.child))
        found: dict[Scope, list[set[Scope]]] = {}
        if scopes:
            tenants, names = zip(*scopes, strict=True)
            for tenant, workflow, waits in await connection.fetch(self._queries["waits_below"], tenants, names):
                found.setdefault((tenant, workflow), []).append({(tenant, name) for name in waits or ()})
        return found

    async def _running(self, connection: Any, waiting: list[Waiting]) -> Running:
        scopes = list(dict.fromkeys(one.scope for one in waiting))
        tenants = list(dict.fromkeys(tenant for tenant, _ in scopes))
        of_workflows = await connection.fetch(
            self._queries["running_of_workflows"], [tenant for tenant, _ in scopes], [name for _, name in scopes]
        )
        of_tenants = await connection.fetch(self._queries["running_of_tenants"], tenants)
        return Running(
            {(row["tenant"], row["workflow"]): row["number"] for row in of_workflows},
            {row["tenant"]: row["number"] for row in of_tenants},
        )
