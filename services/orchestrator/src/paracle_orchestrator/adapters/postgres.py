"""Plans in PostgreSQL. Histories are the chassis' event store."""

from __future__ import annotations

from typing import Final

import asyncpg

from paracle_chassis.event_store import ActorTables
from paracle_chassis.postgres import Queries
from paracle_domain.plan import Plan

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
        "priority": "int",
        "parent": "text",
        "forked_from": "text",
        "keep_s": "float8",
        "max_runs": "int",
        "session": "text",
        "waits": "boolean",
    },
)


class PostgresPlanStore:
    """`PlanStore` on the table `plans`."""

    def __init__(self, pool: asyncpg.Pool, queries: Queries) -> None:
        self._pool = pool
        self._queries = queries

    async def put(self, tenant: str, plan: Plan) -> None:
        """See `PlanStore.put`."""
        family = [child.digest for child in plan.family() if child.digest != plan.digest]
        await self._pool.execute(self._queries["put_plan"], tenant, plan.digest, plan.encode().decode(), family)

    async def get(self, tenant: str, digest: str) -> Plan | None:
        """See `PlanStore.get`."""
        document = await self._pool.fetchval(self._queries["get_plan"], tenant, digest)
        return None if document is None else Plan.model_validate_json(document)
