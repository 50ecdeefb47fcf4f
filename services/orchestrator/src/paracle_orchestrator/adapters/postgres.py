"""Plans and the list of runs in PostgreSQL. Histories are the chassis' event store."""

from __future__ import annotations

import base64
import binascii
import json
from datetime import datetime
from typing import Final

import asyncpg

from paracle_chassis.event_store import ActorTables
from paracle_chassis.postgres import Queries
from paracle_domain.errors import InvalidInput, quote
from paracle_domain.plan import Plan
from paracle_domain.run.commands import ListRuns, RunPage, RunStatus, RunSummary

RUN_TABLES: Final = ActorTables(
    actors="runs",
    history="run_history",
    facts={
        "workflow": "text",
        "revision": "int",
        "plan": "text",
        "principal": "text",
        "request": "text",
        "labels": "json",
    },
)


class PostgresPlanStore:
    """`PlanStore` on the table `plans`."""

    def __init__(self, pool: asyncpg.Pool, queries: Queries) -> None:
        self._pool = pool
        self._queries = queries

    async def put(self, tenant: str, plan: Plan) -> None:
        """See `PlanStore.put`."""
        await self._pool.execute(self._queries["put_plan"], tenant, plan.digest, plan.encode().decode())

    async def get(self, tenant: str, digest: str) -> Plan | None:
        """See `PlanStore.get`."""
        document = await self._pool.fetchval(self._queries["get_plan"], tenant, digest)
        return None if document is None else Plan.model_validate_json(document)


class PostgresRunIndex:
    """`RunIndex` on the table `runs`."""

    def __init__(self, pool: asyncpg.Pool, queries: Queries) -> None:
        self._pool = pool
        self._queries = queries

    async def page(self, tenant: str, query: ListRuns) -> RunPage:
        """See `RunIndex.page`. Pages are found by place, not by counting, so the last costs what the first does."""
        before_time, before_id = _place(query.cursor)
        rows = await self._pool.fetch(
            self._queries["list_runs"],
            tenant,
            query.workflow,
            query.status,
            before_time,
            before_id,
            query.limit + 1,
        )
        runs = tuple(_summary(row) for row in rows[: query.limit])
        more = len(rows) > query.limit
        return RunPage(runs=runs, next_cursor=_cursor(runs[-1]) if more else None)


def _summary(row: asyncpg.Record) -> RunSummary:
    return RunSummary(
        run_id=row["id"],
        workflow=row["workflow"],
        revision=row["revision"],
        status=RunStatus(row["status"]),
        created_at=row["created_at"],
        finished_at=row["finished_at"],
        labels=json.loads(row["labels"]),
        plan=row["plan"],
    )


def _cursor(last: RunSummary) -> str:
    return base64.urlsafe_b64encode(f"{last.created_at.isoformat()} {last.run_id}".encode()).decode()


def _place(cursor: str | None) -> tuple[datetime | None, str | None]:
    if cursor is None:
        return None, None
    try:
        time, run_id = base64.urlsafe_b64decode(cursor.encode()).decode().split(" ")
        return datetime.fromisoformat(time), run_id
    except (binascii.Error, ValueError) as error:
        message = f"{quote(cursor)} is no cursor; take the next_cursor of a page as it is"
        raise InvalidInput(message, path="cursor") from error
