"""Tasks and workers in PostgreSQL. Histories are the chassis' event store."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Any, Final

import asyncpg
from pydantic import TypeAdapter

from paracle_agent_runtime.pools import WorkerReport
from paracle_chassis.batching import Batches
from paracle_chassis.event_store import ActorTables
from paracle_chassis.postgres import Queries
from paracle_domain.task.messages import Task

TASK_TABLES: Final = ActorTables(
    actors="tasks",
    history="task_history",
    facts={
        "run_id": "text",
        "step": "text",
        "attempt": "int",
        "target_kind": "text",
        "target": "text",
        "owner": "text",
    },
)

REPORTS: Final = TypeAdapter(WorkerReport)


class PostgresLeases:
    """`Leases` on the tables `workers` and `tasks`; the database's clock is the only one that counts."""

    def __init__(self, pool: asyncpg.Pool[Any], queries: Queries, worker: str, lease_s: float) -> None:
        self._pool = pool
        self._queries = queries
        self._worker = worker
        self._lease = timedelta(seconds=lease_s)
        self._release = Batches(self._release_all)
        self._elsewhere = Batches(self._all_elsewhere)

    @property
    def worker(self) -> str:
        """See `Leases.worker`."""
        return self._worker

    async def beat(self, report: WorkerReport, at_work: Collection[str]) -> None:
        """See `Leases.beat`."""
        await self._pool.execute(self._queries.beat, self._worker, REPORTS.dump_json(report).decode(), list(at_work))

    async def elsewhere(self, name: str) -> bool:
        """See `Leases.elsewhere`. Copies come by the hundred, and are looked for together."""
        return await self._elsewhere(name)

    async def _all_elsewhere(self, names: Sequence[str]) -> Sequence[bool]:
        rows = await self._pool.fetch(self._queries.at_work_elsewhere, self._worker, list(names), self._lease)
        found = {row[0] for row in rows}
        return [name in found for name in names]

    async def claim(self, task_id: str) -> bool:
        """See `Leases.claim`."""
        found = await self._pool.fetchval(self._queries.claim_task, task_id, self._worker, self._lease)
        return found is not None

    async def release(self, task_id: str) -> None:
        """See `Leases.release`. A process that stops releases all that it has at once."""
        await self._release(task_id)

    async def _release_all(self, ids: Sequence[str]) -> Sequence[None]:
        await self._pool.execute(self._queries.release_tasks, list(ids), self._worker)
        return [None] * len(ids)

    async def leave(self) -> None:
        """See `Leases.leave`."""
        await self._pool.execute(self._queries.leave, self._worker)


class PostgresAttempts:
    """`Attempts` on the table `tasks`."""

    def __init__(self, pool: asyncpg.Pool[Any], queries: Queries) -> None:
        self._pool = pool
        self._queries = queries

    async def before(self, task: Task, tenant: str) -> Sequence[str]:
        """See `Attempts.before`."""
        rows = await self._pool.fetch(self._queries.attempts_before, tenant, task.run_id, task.step, task.attempt)
        return [row["id"] for row in rows]


class PostgresTaskShelf:
    """`TaskShelf` on the tables `tasks` and `task_history`."""

    def __init__(self, pool: asyncpg.Pool[Any], queries: Queries) -> None:
        self._pool = pool
        self._queries = queries

    async def drop(self, tenant: str, run_ids: Sequence[str]) -> int:
        """See `TaskShelf.drop`."""
        return int(await self._pool.fetchval(self._queries.drop_tasks, tenant, list(run_ids)))
