"""The runtime on real NATS and PostgreSQL: leases, and a process that is stopped hard in the middle of a task."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from runtime_peers import Gateway, Orchestrator, says
from runtime_plan import CONTEXT, cancel, sent, task
from runtime_stage import order
from runtime_world import World

from paracle_agent_runtime.adapters.pools import NatsTaskQueue, PostgresPoolBook
from paracle_agent_runtime.adapters.postgres import (
    TASK_TABLES,
    PostgresAttempts,
    PostgresLeases,
    PostgresTaskShelf,
)
from paracle_agent_runtime.adapters.sessions import PostgresSessionBook
from paracle_agent_runtime.app import create_app
from paracle_agent_runtime.pools import PoolReport, WorkerReport
from paracle_agent_runtime.ports import Backlog
from paracle_agent_runtime.settings import Settings
from paracle_chassis import provision, provisioning
from paracle_chassis.app import Service
from paracle_chassis.bus import Outgoing
from paracle_chassis.delivery import Delivery
from paracle_chassis.event_store import PostgresEventStore
from paracle_chassis.nats_bus import NatsBus
from paracle_chassis.postgres import Database, Queries
from paracle_chassis.routes import Routes
from paracle_chassis.settings import ServiceSettings
from paracle_chassis.testing.eventually import eventually
from paracle_chassis.testing.infra import OpenBus, migrated
from paracle_chassis.topology import pool_consumer
from paracle_domain import subjects
from paracle_domain.ids import new_id
from paracle_domain.machine import EventRecord
from paracle_domain.task.messages import TaskResult, TaskStatus
from paracle_domain.task.pools import Drain, PoolState

pytestmark = pytest.mark.connected
LEASE_S = 600  # nobody's runs out because the machine is slow: see `silent`


class Observer:
    """Hears results and events as the orchestrator and observability do."""

    def __init__(self) -> None:
        self.results: list[TaskResult] = []
        self.events: dict[str, EventRecord] = {}

    async def result(self, batch: Any) -> None:
        self.results += [delivery.decode(TaskResult) for delivery in batch]

    async def event(self, delivery: Delivery) -> None:
        for event in delivery.decode(EventRecord).each():
            self.events[event.message_id("default")] = event

    def routes(self) -> Routes:
        table = Routes("observer")
        table.mailbox(
            stream=subjects.RESULTS,
            durable="orchestrator",
            filter=f"{subjects.PREFIX}.*.result.*",
            handler=self.result,
        )
        table.listen(f"{subjects.PREFIX}.*.evt.>", self.event)
        return table


@pytest.fixture
async def database(postgres_dsn: str) -> AsyncIterator[Database]:
    await migrated(postgres_dsn, "paracle_agent_runtime")
    async with Database(ServiceSettings(postgres_dsn=postgres_dsn), "paracle_agent_runtime") as found:
        yield found


def leases(database: Database, worker: str) -> PostgresLeases:
    return PostgresLeases(database.pool, Queries.load("paracle_agent_runtime"), worker, LEASE_S)


async def silent(database: Database, worker: str) -> None:
    """The process has given no sign of life for longer than a lease lasts."""
    await database.pool.execute("update workers set seen_at = 'epoch' where id = $1", worker)


async def test_the_book_of_pools(database: Database):
    queries = Queries.load("paracle_agent_runtime")
    book = PostgresPoolBook(database.pool, queries, LEASE_S)
    one, other = (Drain(since=datetime(2026, 1, day, tzinfo=UTC), principal="ann", reason="r") for day in (1, 2))
    assert [await book.drain("gpu", one), await book.drain("gpu", other)] == [1, None]
    assert await book.drains() == {"gpu": one}
    assert [await book.resume("gpu"), await book.resume("gpu"), await book.resume("other")] == [2, None, None]
    assert [await book.number("gpu"), await book.number("other")] == [2, None]
    assert await book.drains() == {}
    assert await book.drain("gpu", other) == 3
    report = WorkerReport("here", 7, 100, None, {"gpu": PoolReport(PoolState.OPEN, 4, {"default": 1})})
    worker = new_id("wrk")
    await leases(database, worker).beat(report, ())
    [found] = await book.workers()
    assert (found.id, found.report) == (worker, report)
    await silent(database, worker)
    assert await book.workers() == []


async def test_the_queue_of_tasks_is_counted_and_those_seen_who_serve_it(settings: ServiceSettings):
    await provision.provision(provision.Plan(nats_url=settings.nats_url, services=["agent_runtime"], pools=["gpu"]))
    bus = NatsBus("agent_runtime", settings)
    await bus.open()
    queue = NatsTaskQueue(bus.link)
    for tenant, pool in (("default", "gpu"), ("acme", "gpu"), ("acme", "own")):
        job = task("look")
        out = sent(job, tenant)
        await bus.publish([Outgoing(subjects.task(tenant, pool), job, out.envelope)])
    assert await queue.sizes(None) == {"gpu": 2, "own": 1}
    assert await queue.sizes("acme") == {"gpu": 1, "own": 1}
    assert await queue.backlogs() == {"agents": Backlog(0), "gpu": Backlog(2)}
    taking = await bus.client.jetstream().pull_subscribe("paracle.v1.*.task.own", "somebody", stream=subjects.TASKS)
    [message] = await taking.fetch(1, timeout=30)
    await message.ack()
    waiting = asyncio.create_task(taking.fetch(1, timeout=60))

    async def seen() -> bool:
        return (await queue.backlogs())["own"] == Backlog(0, elsewhere=True)

    await eventually(seen)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await bus.close()


class Fleet:
    """Replicas of the runtime on one NATS and one PostgreSQL; each has its own connection."""

    def __init__(self, settings: ServiceSettings, database: Database, open_bus: OpenBus) -> None:
        self.settings, self.database, self.open_bus = settings, database, open_bus
        self._replicas: list[tuple[World, NatsBus]] = []
        self.observer = Observer()
        self.attempts = PostgresAttempts(database.pool, Queries.load("paracle_agent_runtime"))

    async def bus(self, name: str, *tables: Routes) -> NatsBus:
        bus = await self.open_bus(name)
        for table in tables:
            await bus.serve(table)
        return bus

    async def replica(self, worker: str) -> tuple[World, NatsBus]:
        bus = await self.open_bus("agent_runtime")
        store = PostgresEventStore(self.database.pool, TASK_TABLES)
        book = PostgresSessionBook(self.database.pool, Queries.load("paracle_agent_runtime"))
        world = World(bus, store, leases(self.database, worker), self.attempts, beat_s=0.1, sessions=book)
        await world.runtime.__aenter__()
        self._replicas.append((world, bus))
        await bus.serve(world.routes)
        return world, bus

    async def stop(self) -> None:
        """Stop the replicas that were not killed."""
        for world, bus in self._replicas:
            await bus.drain(1.0)
            await world.runtime.__aexit__(None, None, None)

    def forget(self, world: World, bus: NatsBus) -> None:
        """It was stopped."""
        self._replicas.remove((world, bus))

    async def kill(self, world: World, bus: NatsBus) -> None:
        """As `kill -9` would: nothing is given back, nothing is said any more."""
        self.forget(world, bus)
        for loop in world.runtime._loops:
            loop.cancel()
        await bus.close()
        for entry in list(world.runtime._entries.values()):
            for delivery in entry.deliveries:
                delivery.settled = True
            entry.stop()
        await silent(self.database, world.leases.worker)


@pytest.fixture
async def fleet(settings: ServiceSettings, database: Database, open_bus: OpenBus) -> AsyncIterator[Fleet]:
    await provision.provision(provision.Plan(nats_url=settings.nats_url))
    made = Fleet(settings, database, open_bus)
    await made.bus("observer", made.observer.routes())
    try:
        yield made
    finally:
        await made.stop()


async def test_leases(database: Database):
    first, second = leases(database, "wrk_1"), leases(database, "wrk_2")
    await database.pool.execute(
        "insert into tasks (id, tenant, version, status, created_at, run_id, step, attempt, target_kind, target, owner)"
        " values ('task_1', 'default', 1, 'running', now(), 'run_1', 's', 1, 'agent', 'a', 'wrk_1')"
    )
    await first.beat(WorkerReport(), ())
    await second.beat(WorkerReport(), ())
    assert await first.claim("task_1")
    assert not await second.claim("task_1")
    await silent(database, "wrk_1")
    assert await second.claim("task_1")
    await second.beat(WorkerReport(), ())
    assert not await first.claim("task_1")
    await second.leave()
    assert await first.claim("task_1")
    assert not await first.claim("task_2")
    await first.beat(WorkerReport(), ())
    await second.release("task_1")
    assert not await second.claim("task_1"), "it was not its to release"
    await first.release("task_1")
    assert await second.claim("task_1")


async def test_what_a_live_process_has_at_work_is_known_elsewhere(database: Database):
    first, second = leases(database, "wrk_1"), leases(database, "wrk_2")

    async def elsewhere(asks: PostgresLeases) -> list[bool]:
        return await asyncio.gather(*(asks.elsewhere(name) for name in ("acme/task_1", "evil/task_1")))

    assert await elsewhere(second) == [False, False]
    await first.beat(WorkerReport(), ["acme/task_1", "acme/task_2"])
    assert await elsewhere(first) == [False, False], "it has it itself"
    assert await elsewhere(second) == [True, False]
    await silent(database, "wrk_1")
    assert await elsewhere(second) == [False, False]
    await first.beat(WorkerReport(), ["acme/task_1"])
    assert await elsewhere(second) == [True, False]
    await first.beat(WorkerReport(), ())
    assert await elsewhere(second) == [False, False]


async def test_only_ended_tasks_of_those_runs_go_with_their_histories(database: Database):
    one, two, other = (new_id("run") for _ in range(3))
    shelf = PostgresTaskShelf(database.pool, Queries.load("paracle_agent_runtime"))
    now = datetime.now(UTC)
    rows = [("t1", "acme", one, now), ("t2", "acme", one, None), ("t3", "acme", other, now), ("t4", "evil", one, now)]
    await database.pool.executemany(
        "insert into tasks (id, tenant, version, status, created_at, finished_at, run_id, step, attempt, target_kind,"
        " target) values ($1, $2, 1, 'completed', now(), $4, $3, 's', 1, 'agent', 'a')",
        rows,
    )
    await database.pool.executemany(
        "insert into task_history (id, seq, cause, at, events) values ($1, 1, 'c', now(), '[]')",
        [(row[0],) for row in rows],
    )
    await database.pool.executemany(
        "insert into effects (tenant, key, run_id, step, attempt, task_id, call_id, seq, sent, scope, tool, revision,"
        " effect, arguments_digest, state, intended_at, changed_at)"
        " values ($2, 'k' || $1, $3, 's', 1, $1, 'c', 1, true, 's', 'pay', 1, 'at_most_once', 'd', 'sent',"
        " now(), now())",
        [row[:3] for row in rows],
    )
    assert await shelf.drop("acme", [one, two]) == 1
    for table, name in (("tasks", "id"), ("task_history", "id"), ("effects", "task_id")):
        found = await database.pool.fetch(f"select {name} as id from {table} order by {name}")  # names from here
        assert [row["id"] for row in found] == ["t2", "t3", "t4"]


async def test_attempts_before(database: Database):
    attempts = PostgresAttempts(database.pool, Queries.load("paracle_agent_runtime"))
    job = task("look", attempt=3)
    await database.pool.executemany(
        "insert into tasks (id, tenant, version, status, created_at, run_id, step, attempt, target_kind, target)"
        " values ($1, $2, 1, 'failed', now(), $3, 's', $4, 'tool', 'look')",
        [(f"t{n}", "default", job.run_id, n) for n in (2, 1, 3)] + [("foreign", "other", job.run_id, 1)],
    )
    assert await attempts.before(job, "default") == ["t1", "t2"]


async def test_a_task_of_a_killed_process_goes_on_where_it_was(fleet: Fleet):
    gateway = Gateway(says("", ("look", {"n": 1}), ("save", {"a": 1})), None, says("done"))
    await fleet.bus("orchestrator", Orchestrator().routes())
    await fleet.bus("provider_gateway", gateway.routes())
    client = await fleet.bus("client")
    first, connection = await fleet.replica("wrk_1")
    job = task("helper", "go")
    await client.publish([sent(job)])
    await eventually(lambda: len(gateway.asked) == 2)  # the second turn hangs: the first one's tools are done
    await fleet.kill(first, connection)
    gateway._used = 2
    second, _ = await fleet.replica("wrk_2")
    await client.publish([sent(job, id="sent again by the sweeper")])
    await eventually(lambda: fleet.observer.results)
    [result] = fleet.observer.results
    assert (result.status, result.output) == (TaskStatus.COMPLETED, "done")
    assert (result.usage.model_calls, result.usage.tool_calls) == (2, 2)
    assert sorted(name for name, _ in first.toolbox.calls) == ["look", "save"]
    assert second.toolbox.calls == []
    assert [asked.call_id for asked in gateway.asked][1:] == [gateway.asked[1].call_id] * 2
    await eventually(lambda: [e.type for e in fleet.observer.events.values()][-1] == "task.completed")
    assert sorted(e.seq for e in fleet.observer.events.values()) == list(range(1, len(fleet.observer.events) + 1))


async def test_what_a_process_gives_back_when_it_stops_is_taken_up_while_it_still_finishes_an_effect(fleet: Fleet):
    gateway = Gateway(None)
    await fleet.bus("orchestrator", Orchestrator().routes())
    await fleet.bus("provider_gateway", gateway.routes())
    client = await fleet.bus("client")
    first, connection = await fleet.replica("wrk_1")
    first.runtime._drain_s = 60
    hung, job = task("hang", {"seconds": 600}), task("helper", "go")
    await client.publish([sent(hung), sent(job)])
    await eventually(lambda: gateway.asked and first.toolbox.calls)
    await fleet.replica("wrk_2")
    await connection.drain(1.0)
    gateway.script = [says("done")]
    stopping = asyncio.create_task(first.runtime.__aexit__(None, None, None))
    await eventually(lambda: [result.task_id for result in fleet.observer.results] == [job.task_id])
    assert list(first.runtime._entries) == [(CONTEXT.tenant, hung.task_id)]
    first.runtime._entries[CONTEXT.tenant, hung.task_id].stop()
    await stopping
    fleet.forget(first, connection)


async def test_a_cancel_reaches_the_replica_that_works_on_the_task(fleet: Fleet):
    gateway = Gateway(None)
    await fleet.bus("orchestrator", Orchestrator().routes())
    await fleet.bus("provider_gateway", gateway.routes())
    client = await fleet.bus("client")
    first, _ = await fleet.replica("wrk_1")
    job = task("helper", "go")
    await client.publish([sent(job)])
    await eventually(lambda: gateway.asked)
    second, _ = await fleet.replica("wrk_2")
    result = await second.runtime._canceller.cancel(cancel(job), CONTEXT)
    assert result.status is TaskStatus.CANCELLED
    await eventually(lambda: first.runtime.running == 0)


async def test_turns_that_wait_in_one_session_keep_nobody_else_from_being_served(fleet: Fleet):
    """However many there are: what a mailbox may have unacked is bounded, and all tenants' tasks come through it."""
    window, gateway = 20, Gateway(None)
    await fleet.bus("orchestrator", Orchestrator().routes())
    await fleet.bus("provider_gateway", gateway.routes())
    client = await fleet.bus("client")
    await fleet.replica("wrk_1")
    await provisioning.ensure_consumer(client.client, replace(pool_consumer("agents"), max_ack_pending=window))
    session = new_id("ses")
    turns = [task("helper", {"text": str(number), "session": session}) for number in range(5 * window)]
    await client.publish([sent(one) for one in turns])
    await eventually(lambda: len(gateway.asked) == 1)
    await client.publish([sent(task("helper", {"text": "another", "session": new_id("ses")}))])
    await eventually(lambda: {asked.messages[-1].text for asked in gateway.asked} == {"0", "another"})
    gateway.script = [says("done")] * len(turns) * 2  # what stood still may be asked again
    await client.publish([order(turns[0])])
    ids = [one.task_id for one in turns]

    def ended() -> list[str]:
        return [result.task_id for result in fleet.observer.results if result.task_id in ids]

    await eventually(lambda: len(ended()) == len(turns))
    assert ended() == ids


async def test_thousands_of_tool_tasks_leave_no_row(fleet: Fleet):
    await fleet.bus("orchestrator", Orchestrator().routes())
    client = await fleet.bus("client")
    await fleet.replica("wrk_1")
    await client.publish([sent(task("look", {"n": n})) for n in range(2_000)])
    await eventually(lambda: len(fleet.observer.results) == 2_000)
    assert {r.status for r in fleet.observer.results} == {TaskStatus.COMPLETED}
    assert await fleet.database.pool.fetchval("select count(*) from tasks") == 0


async def test_the_service_is_composed_as_a_whole(fleet: Fleet, postgres_dsn: str):
    await fleet.bus("orchestrator", Orchestrator().routes())
    client = await fleet.bus("client")
    settings = Settings(nats_url=fleet.settings.nats_url, postgres_dsn=postgres_dsn)
    service: Service = create_app(settings)
    async with service.running():
        await client.publish([sent(task("save", {"a": 1}))])
        await eventually(lambda: fleet.observer.results)
    assert fleet.observer.results[0].output == {"a": 1}
    assert await fleet.database.pool.fetchval("select status from tasks") == "completed"
    assert await fleet.database.pool.fetchval("select count(*) from workers") == 0
