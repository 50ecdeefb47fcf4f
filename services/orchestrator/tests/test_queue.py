"""Slots on PostgreSQL: hosts that share a database never give away more than there are, and leave none unused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from approvals_memory import ApprovalsInMemory

from paracle_chassis.event_store import PostgresEventStore
from paracle_chassis.postgres import Queries, create_pool
from paracle_chassis.settings import ServiceSettings
from paracle_chassis.testing.infra import migrated
from paracle_domain.envelope import Context
from paracle_domain.ids import new_id
from paracle_domain.plan import Plan
from paracle_domain.run.commands import CancelRun, QueuePlace, StartRun
from paracle_domain.run.inbox import Begin, Cancel
from paracle_orchestrator.adapters.postgres import RUN_TABLES, PostgresPlanStore
from paracle_orchestrator.adapters.queue import PostgresRunQueue
from paracle_orchestrator.admission import Limits
from paracle_orchestrator.admitting import Admitter
from paracle_orchestrator.facts import facts_of
from paracle_orchestrator.host import RunHost
from paracle_orchestrator.mail import Mail
from paracle_orchestrator.plans import Pinned, Plans

pytestmark = pytest.mark.connected
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
async def pool(postgres_dsn: str) -> AsyncIterator[Any]:
    await migrated(postgres_dsn, "paracle_orchestrator")
    async with create_pool(ServiceSettings(postgres_dsn=postgres_dsn, postgres_pool_size=8)) as pool:
        yield pool


@dataclass
class Replica:
    """A host and an admitter over the shared database; `pool` tells what is in it."""

    pool: Any
    host: RunHost
    admitter: Admitter
    queue: PostgresRunQueue
    clock: list[datetime]

    async def start(self, plan: Plan, number: int, *, tenant: str = "acme", priority: int = 0) -> list[str]:
        """Runs, a second apart, that wait if they have to."""
        found = []
        waits = self.admitter.limits.hold(plan, tenant)
        for _ in range(number):
            self.clock[0] += timedelta(seconds=1)
            run_id = new_id("run")
            begin = Begin(run_id, tenant, "ada", StartRun(workflow="w", priority=priority), queued=waits)
            facts = facts_of(plan, principal="ada", request="r", labels={}, priority=priority, waits=waits)
            pinned = Pinned.of(plan)
            await self.host.handle([Mail(run_id, run_id, begin, Context(tenant), pinned=pinned, facts=facts)])
            found.append(run_id)
        return found

    async def end(self, *runs: str, tenant: str = "acme") -> None:
        """They are cancelled, and their tasks never answer: they end when their time to stop is over."""
        cancels = [Mail(run, f"{run}.c", Cancel("ada", CancelRun(run_id=run)), Context(tenant)) for run in runs]
        await self.host.handle(cancels)
        await self.pool.execute("update runs set status = 'cancelled', finished_at = now() where id = any($1)", runs)

    async def running(self, tenant: str = "acme") -> list[str]:
        sql = "select id from runs where tenant = $1 and status = 'running' order by created_at"
        return [row["id"] for row in await self.pool.fetch(sql, tenant)]


@pytest.fixture
def make(pool: Any, desk: Any) -> Any:
    clock = [NOW]

    def replica(limits: Limits | None = None) -> Replica:
        queries = Queries.load("paracle_orchestrator")
        plans = Plans(PostgresPlanStore(pool, queries), desk.bus)
        store = PostgresEventStore(pool, RUN_TABLES)
        host = RunHost(store, plans, ApprovalsInMemory(store), desk.bus, lambda: clock[0], cached=100)
        queue = PostgresRunQueue(pool, queries)
        return Replica(pool, host, Admitter(queue, limits or Limits(), host), queue, clock)

    return replica


async def keep(pool: Any, plan: Plan) -> Plan:
    await PostgresPlanStore(pool, Queries.load("paracle_orchestrator")).put("acme", plan)
    return plan


async def test_replicas_that_admit_at_once_never_admit_too_many(pool: Any, make: Any, tools: Any) -> None:
    plan = await keep(pool, tools.plan_of({"id": "a"}, max_runs=3))
    replicas = [make() for _ in range(4)]
    runs = await replicas[0].start(plan, 12)
    for gone in range(0, 12, 3):
        for _ in range(3):
            await asyncio.gather(*(replica.admitter.round() for replica in replicas))
            assert len(await replicas[0].running()) <= 3
        running = await replicas[1].running()
        assert running == runs[gone : gone + 3]
        await replicas[gone % 4].end(*running)
    assert await replicas[0].admitter.round() > 0


async def test_a_replica_that_dies_between_claim_and_message_loses_no_slot(pool: Any, make: Any, tools: Any) -> None:
    plan = await keep(pool, tools.plan_of({"id": "a"}, max_runs=2))
    dying, other = make(), make()
    runs = await dying.start(plan, 3)
    assert await dying.queue.claim(Limits(), 9) == 2
    assert await other.queue.claim(Limits(), 9) == 0
    await other.admitter.round()
    assert await other.running() == runs[:2]
    await other.end(runs[1])
    await other.admitter.round()
    assert await other.running() == [runs[0], runs[2]]


async def test_while_one_replica_counts_no_other_does(pool: Any, make: Any, tools: Any) -> None:
    plan = await keep(pool, tools.plan_of({"id": "a"}, max_runs=1))
    replica = make()
    await replica.start(plan, 1)
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("select pg_advisory_xact_lock(7203002)")
        assert await replica.queue.claim(Limits(), 9) == 0
    assert await replica.queue.claim(Limits(), 9) == 1
    assert await replica.queue.claim(Limits(), 9) == 0


async def test_tenants_priorities_and_ages(pool: Any, make: Any, tools: Any) -> None:
    plan = await keep(pool, tools.plan_of({"id": "a"}))
    await PostgresPlanStore(pool, Queries.load("paracle_orchestrator")).put("late", plan)
    replica = make(Limits(per_tenant=2))
    old, urgent = await replica.start(plan, 3), await replica.start(plan, 1, priority=5)
    late = await replica.start(plan, 1, tenant="late")
    assert await replica.queue.claim(replica.admitter.limits, 2) == 2
    await replica.admitter.round()
    assert await replica.running() == [old[0], *urgent]
    assert await replica.running("late") == late
    place = await replica.queue.place("acme", old[2], replica.admitter.limits)
    assert place == QueuePlace(ahead=1, workflow_running=2, tenant_running=2, tenant_limit=2)
    assert await replica.queue.place("acme", old[0], replica.admitter.limits) is None
    assert await replica.queue.place("late", old[2], replica.admitter.limits) is None


async def test_runs_from_before_there_was_a_limit_count(pool: Any, make: Any, tools: Any) -> None:
    plan = await keep(pool, tools.plan_of({"id": "a"}))
    before, after = make(), make(Limits(per_tenant=2))
    old = await before.start(plan, 2)
    new = await after.start(plan, 1)
    await after.admitter.round()
    assert await after.running() == old
    await after.end(old[0])
    await after.admitter.round()
    assert await after.running() == [old[1], *new]
