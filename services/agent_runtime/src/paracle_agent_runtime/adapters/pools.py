"""Worker pools in PostgreSQL, and their tasks in NATS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import asyncpg

from paracle_agent_runtime.adapters.postgres import REPORTS
from paracle_agent_runtime.ports import Backlog, Worker
from paracle_chassis import provisioning
from paracle_chassis.link import Link
from paracle_chassis.postgres import Queries
from paracle_chassis.topology import pool_consumer
from paracle_domain import subjects
from paracle_domain.task.pools import Drain


class PostgresPoolBook:
    """`PoolBook` on the tables `workers` and `pool_drains`; the database's clock says who is alive."""

    def __init__(self, pool: asyncpg.Pool[Any], queries: Queries, lease_s: float) -> None:
        self._pool = pool
        self._queries = queries
        self._lease = timedelta(seconds=lease_s)

    async def drains(self) -> Mapping[str, Drain]:
        """See `PoolBook.drains`."""
        rows = await self._pool.fetch(self._queries.pool_drains)
        return {pool: Drain(since=since, principal=by, reason=reason) for pool, since, by, reason in rows}

    async def drain(self, pool: str, drain: Drain) -> int | None:
        """See `PoolBook.drain`."""
        found: int | None = await self._pool.fetchval(
            self._queries.drain_pool, pool, drain.since, drain.principal, drain.reason
        )
        return found

    async def resume(self, pool: str) -> int | None:
        """See `PoolBook.resume`."""
        found: int | None = await self._pool.fetchval(self._queries.resume_pool, pool)
        return found

    async def number(self, pool: str) -> int | None:
        """See `PoolBook.number`."""
        found: int | None = await self._pool.fetchval(self._queries.pool_number, pool)
        return found

    async def aside(self, tenant: str | None) -> Mapping[str, int]:
        """See `PoolBook.aside`."""
        return dict(await self._pool.fetch(self._queries.turns_aside, tenant))

    async def workers(self) -> Sequence[Worker]:
        """See `PoolBook.workers`."""
        rows = await self._pool.fetch(self._queries.live_workers, self._lease)
        return [Worker(row["id"], row["seen_at"], REPORTS.validate_json(row["report"])) for row in rows]


class NatsTaskQueue:
    """`TaskQueue` on the stream TASKS."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def sizes(self, tenant: str | None) -> Mapping[str, int]:
        """See `TaskQueue.sizes`."""
        wanted = subjects.task(tenant or subjects.ANY, subjects.ANY)
        sizes: dict[str, int] = {}
        for subject, number in (await provisioning.sizes(self._link.client, subjects.TASKS, wanted)).items():
            pool = subject.rpartition(".")[2]
            sizes[pool] = sizes.get(pool, 0) + number
        return sizes

    async def backlogs(self) -> Mapping[str, Backlog]:
        """See `TaskQueue.backlogs`."""
        found = {}
        for consumer in await provisioning.consumers(self._link.client, subjects.TASKS):
            pool = str(consumer["config"].get("filter_subject", "")).rpartition(".")[2]
            ours = consumer["name"] == pool_consumer(pool).durable
            found[pool] = Backlog(consumer["num_pending"], not ours and bool(consumer["num_waiting"]))
        return found
