"""Worker pools: how much is in hand, when nothing new is taken, and what people see of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pool_world import MemoryPoolBook, MemoryTaskQueue
from pydantic import ValidationError
from runtime_peers import Gateway, says
from runtime_plan import CONTEXT, sent, task
from runtime_stage import Stage

from paracle_agent_runtime import memory
from paracle_agent_runtime.app import create_app
from paracle_agent_runtime.pool_desk import PoolDesk
from paracle_agent_runtime.pools import PoolReport, Pools, WorkerReport
from paracle_agent_runtime.ports import Backlog, Worker
from paracle_agent_runtime.settings import Settings
from paracle_chassis.bus import Outgoing
from paracle_chassis.settings import explain
from paracle_chassis.testing.eventually import eventually
from paracle_chassis.testing.memory import MemoryBus
from paracle_domain import subjects
from paracle_domain.dead_letters import DEAD_CODE
from paracle_domain.envelope import Context, Envelope
from paracle_domain.errors import Forbidden, InvalidInput, MalformedMessage, ParacleError, Unavailable
from paracle_domain.ids import new_id
from paracle_domain.machine import EventRecord
from paracle_domain.messages import Command
from paracle_domain.task.effects import ResolveEffect
from paracle_domain.task.pools import Drain, DrainPool, GetPool, ListPools, PoolState, PoolView, ResumePool

AT = datetime(2026, 1, 1, tzinfo=UTC)
OPEN, DRAINING, DRAINED = PoolState.OPEN, PoolState.DRAINING, PoolState.DRAINED


# ── settings ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("agents", {"agents": 7}),
        (" gpu = 4 , browser ", {"gpu": 4, "browser": 7}),
        ("agents=100000", {"agents": 100_000}),
    ],
)
def test_pools_are_named_by_commas_with_their_sizes(monkeypatch: pytest.MonkeyPatch, text: str, sizes: dict[str, int]):
    monkeypatch.setenv("PARACLE_POOLS", text)
    assert Settings(task_concurrency=7).pool_sizes == sizes


@pytest.mark.parametrize("text", ["GPU", "a.b", "gpu=", "gpu=0", "gpu=x", "gpu=100001", "a,,b", "=4"])
def test_what_names_no_pool_is_refused_at_boot_by_name(monkeypatch: pytest.MonkeyPatch, text: str):
    monkeypatch.setenv("PARACLE_POOLS", text)
    with pytest.raises(ValidationError) as caught:
        Settings()
    [line] = explain(caught.value, Settings)
    assert line.startswith("PARACLE_POOLS: ")
    assert "pool" in line


def test_a_ceiling_that_cannot_be_watched_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Any):
    assert memory.resident_mb() > 10
    monkeypatch.setattr(memory, "_STATM", tmp_path / "statm")
    with pytest.raises(InvalidInput, match="PARACLE_MEMORY_CEILING_MB"):
        create_app(Settings(memory_ceiling_mb=64, postgres_dsn="postgresql://x@127.0.0.1/x"))


# ── the pools of one process ─────────────────────────────────────────────────────────────────────────────────────


def test_nothing_is_taken_above_the_ceiling_until_enough_is_free_again(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    used = [100]
    pools = Pools({"agents": 2, "gpu": 1}, ceiling_mb=1_000, measure=lambda: used[0])

    def closed(now_mb: int) -> list[bool]:
        used[0] = now_mb
        pools.weigh()
        return [pool.room.closed for pool in pools]

    assert closed(1_000) == [False, False]
    assert closed(1_001) == [True, True]
    assert pools.report().pools["gpu"].state is PoolState.OVER_MEMORY
    assert closed(990) == [True, True], "it must not open and close all the time"
    assert closed(950) == [False, False]
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "1001 MiB in use, the ceiling is 1000 MiB" in caplog.text
    assert pools.facts() == {
        "memory_mb": 950,
        "memory_ceiling_mb": 1_000,
        "pools": {
            "agents": {"state": "open", "in_hand": 0, "concurrency": 2},
            "gpu": {"state": "open", "in_hand": 0, "concurrency": 1},
        },
    }


def test_memory_that_is_only_not_given_back_closes_nothing():
    readings = iter([1_100, 900])
    pools = Pools({"agents": 2}, ceiling_mb=1_000, measure=lambda: next(readings))
    pools.weigh()
    assert not pools["agents"].room.closed


def test_giving_memory_back_is_a_small_part_of_all_time():
    now, tidied = [0.0], list[float]()

    def tidy() -> None:
        tidied.append(now[0])
        now[0] += 1.0

    pools = Pools({"agents": 2}, ceiling_mb=1_000, measure=lambda: 1_100, tidy=tidy, clock=lambda: now[0])
    while now[0] < 60:
        pools.weigh()
        now[0] += 0.25
    assert tidied == [0.0, 21.0, 42.0]


def test_without_a_ceiling_nobody_looks():
    def never() -> int:
        raise AssertionError

    Pools({"agents": 2}, measure=never).weigh()


def test_a_drained_pool_stays_closed_whatever_the_memory_does():
    used = [2_000]
    pools = Pools({"agents": 2, "gpu": 1}, ceiling_mb=1_000, measure=lambda: used[0])
    pools.drain(["gpu", "another"])
    pools.weigh()
    used[0] = 10
    pools.weigh()
    assert [pool.room.closed for pool in pools] == [False, True]
    pools["gpu"].enter("default")
    assert pools.report().pools["gpu"] == PoolReport(DRAINING, 1, {"default": 1})
    pools["gpu"].leave("default")
    assert pools.report().pools["gpu"] == PoolReport(DRAINED, 1, {})
    pools.drain([])
    assert pools.report().pools["gpu"].state is OPEN
    pools.stop()
    assert pools.report().pools["agents"].state is DRAINED


async def test_a_runtime_takes_of_each_pool_what_fits_and_the_pools_do_not_mind_each_other():
    stage = Stage(Gateway(), pools=Pools({"agents": 2, "gpu": 1}))
    naps = [task("nap", {"seconds": 60}) for _ in range(6)]
    async with stage.runtime:
        await stage.start()
        for number, nap in enumerate(naps):
            out = sent(nap)
            pool = subjects.task("default", "gpu" if number % 2 else "agents")
            await stage.bus.publish([Outgoing(pool, out.message, out.envelope)])
        await eventually(lambda: len(stage.toolbox.calls) == 3)
        counts = {pool.name: pool.in_hand["default"] for pool in stage.pools}
        assert counts == {"agents": 2, "gpu": 1}
        await stage.bus.drain(0.05)


async def test_a_runtime_that_begins_above_its_ceiling_takes_nothing_at_all():
    stage = Stage(Gateway(), pools=Pools({"agents": 2}, ceiling_mb=1_000, measure=lambda: 1_001, tidy=lambda: None))
    async with stage.runtime:
        assert stage.pools["agents"].room.closed


# ── what people see and say ──────────────────────────────────────────────────────────────────────────────────────


def worker(**pools: PoolReport) -> Worker:
    return Worker(new_id("wrk"), AT, WorkerReport("here", 7, 100, 1_000, pools))


def desk(*workers: Worker, queue: MemoryTaskQueue | None = None, book: MemoryPoolBook | None = None) -> PoolDesk:
    return PoolDesk(book or MemoryPoolBook(*workers), queue or MemoryTaskQueue(), MemoryBus(), lambda: AT, "default")


async def state(found: PoolDesk, pool: str = "gpu") -> PoolState:
    return (await found.get_pool(GetPool(pool=pool), CONTEXT)).state


async def test_a_pool_stands_as_its_processes_say():
    busy, idle = PoolReport(OPEN, 4, {"default": 3}), PoolReport(OPEN, 4, {})
    full, ending = PoolReport(PoolState.OVER_MEMORY, 4, {}), PoolReport(DRAINING, 4, {"default": 1})
    assert await state(desk(worker(gpu=busy), worker(gpu=full))) is OPEN
    assert await state(desk(worker(gpu=full), worker(gpu=ending))) is PoolState.OVER_MEMORY
    assert await state(desk(worker(gpu=ending), worker(agents=idle))) is DRAINING, "it ends"
    assert await state(desk(worker(agents=idle))) is PoolState.UNSERVED
    assert (
        await state(desk(queue=MemoryTaskQueue(consumers={"gpu": Backlog(0, elsewhere=True)}))) is PoolState.ELSEWHERE
    )
    assert await state(desk()) is PoolState.UNSERVED


async def test_a_pool_is_drained_once_every_process_says_so():
    drained, busy = PoolReport(DRAINED, 4, {}), PoolReport(DRAINING, 4, {"default": 1})
    for workers, expected in (
        ((), DRAINED),
        ((worker(gpu=drained), worker(gpu=busy)), DRAINING),
        ((worker(gpu=drained), worker(gpu=PoolReport(OPEN, 4, {}))), DRAINING),
        ((worker(gpu=drained), worker(agents=busy)), DRAINED),
    ):
        book = MemoryPoolBook(*workers)
        await book.drain("gpu", Drain(since=AT, principal="ann"))
        assert await state(desk(book=book)) is expected
    book = MemoryPoolBook(worker(gpu=drained))
    await book.drain("gpu", Drain(since=AT + timedelta(seconds=1), principal="ann"))
    assert await state(desk(book=book)) is DRAINING, "it said so of an earlier order"


async def test_what_is_set_aside_and_what_waits_for_people_is_told_apart():
    busy = PoolReport(DRAINING, 4, {"default": 3, "acme": 1}, {"default": 2, "acme": 1})
    book = MemoryPoolBook(worker(gpu=busy))
    book.turns = {("default", "gpu"): 5, ("acme", "gpu"): 2, ("acme", "other"): 1}
    seen = {one.pool: one for one in (await desk(book=book).list_pools(ListPools(), CONTEXT)).pools}
    assert (seen["gpu"].aside, seen["gpu"].in_hand, seen["gpu"].for_people) == (7, 4, 3)
    assert seen["other"].aside == 1
    theirs = await desk(book=book).get_pool(GetPool(pool="gpu"), Context("acme"))
    assert (theirs.aside, theirs.in_hand, theirs.for_people, theirs.replicas[0].for_people) == (2, 1, 1, 1)


async def test_a_drained_pool_says_how_much_of_what_it_has_waits_for_people():
    stage = Stage(Gateway(says("", ("guarded", {"n": 2}))))
    async with stage.runtime:
        await stage.start()
        await stage.bus.publish([sent(task("careful")), sent(task("nap", {"seconds": 60}))])
        await eventually(lambda: stage.orchestrator.approvals and stage.toolbox.calls)
        assert stage.pools.report(stage.runtime._for_people).pools["agents"].for_people == {}
        stage.pools.drain(["agents"])
        report = stage.pools.report(stage.runtime._for_people).pools["agents"]
        assert (report.state, report.in_hand, report.for_people) == (DRAINING, {"default": 2}, {"default": 1})
        await stage.bus.drain(0.05)


async def test_a_turn_that_waits_for_one_that_nobody_takes_does_not_keep_a_pool_from_being_drained():
    stage = Stage(Gateway(says("one")))
    session = new_id("ses")
    first, second = (task("helper", {"text": text, "session": session}) for text in ("1", "2"))
    async with stage.runtime:
        await stage.start()
        await stage.book.enter("default", session, first)
        await stage.bus.publish([sent(second)])
        await eventually(lambda: stage.book.aside)
        stage.pools.drain(["agents"])
        await eventually(lambda: stage.pools.report().pools["agents"].state is DRAINED)
        await stage.bus.drain(0.05)


async def test_what_waits_is_what_nobody_has_in_hand_and_tenants_see_their_own():
    messages = {("default", "gpu"): 5, ("acme", "gpu"): 3, ("acme", "other"): 1}
    queue = MemoryTaskQueue(messages, {"gpu": Backlog(4), "agents": Backlog(0)})
    gpu, agents = PoolReport(OPEN, 4, {"default": 1, "acme": 2}), PoolReport(OPEN, 9, {})
    found = desk(worker(gpu=gpu, agents=agents), queue=queue)
    seen = (await found.list_pools(ListPools(), CONTEXT)).pools
    counts = [(one.pool, one.waiting, one.in_hand, one.concurrency) for one in seen]
    assert counts == [("agents", 0, 0, 9), ("gpu", 4, 3, 4), ("other", 1, 0, 0)], "one of a lost process is neither"
    theirs = await found.get_pool(GetPool(pool="gpu"), Context("acme"))
    assert (theirs.waiting, theirs.in_hand, theirs.replicas[0].in_hand) == (1, 2, 2)


async def test_where_processes_run_and_who_drained_them_is_the_operators_business():
    book = MemoryPoolBook(worker(gpu=PoolReport(OPEN, 4, {})))
    await book.drain("gpu", Drain(since=AT, principal="ann", reason="new drivers"))
    ours = await desk(book=book).get_pool(GetPool(pool="gpu"), CONTEXT)
    assert ours.drain is not None
    assert (ours.drain.principal, ours.replicas[0].host, ours.replicas[0].pid) == ("ann", "here", 7)
    assert (ours.replicas[0].memory_mb, ours.replicas[0].memory_ceiling_mb) == (100, 1_000)
    theirs = await desk(book=book).get_pool(GetPool(pool="gpu"), Context("acme"))
    assert theirs.drain == Drain(since=AT, reason="new drivers")
    assert (theirs.state, theirs.replicas[0].state) == (ours.state, OPEN)
    (replica,) = theirs.replicas
    assert (replica.host, replica.pid, replica.memory_mb, replica.memory_ceiling_mb) == ("", 0, None, None)


async def test_a_resumed_pool_is_open_although_its_processes_have_not_said_so_yet():
    late = AT.replace(year=2100)  # it has said so after the order
    book = MemoryPoolBook(replace(worker(agents=PoolReport(DRAINED, 4, {})), seen_at=late))
    stage = Stage(Gateway(), pool_book=book)
    async with stage.runtime:
        await stage.start()
        assert (await told(stage, DrainPool(pool="agents"))).state is DRAINED
        resumed = await told(stage, ResumePool(pool="agents"))
        assert (resumed.state, [one.state for one in resumed.replicas]) == (OPEN, [OPEN])
        await stage.bus.drain(0.05)


async def told(stage: Stage, command: Command, tenant: str = "default") -> PoolView:
    envelope = Envelope.wrap(command.type_name, "test", Context(tenant, principal="ann"))
    subject = subjects.cmd(tenant, "agent_runtime", command.verb)
    return PoolView.model_validate(await stage.bus.send(subject, command, envelope, timeout_s=5))


async def test_a_slow_look_at_what_is_drained_does_not_undo_a_later_one():
    stage = Stage(Gateway(), pools=Pools({"gpu": 1}))
    begun, slow, looks = asyncio.Event(), asyncio.Event(), iter((frozenset[str](), frozenset({"gpu"})))

    async def drained() -> frozenset[str]:
        found = next(looks)
        if not found:
            begun.set()
            await slow.wait()
        return found

    stage.runtime._drained = drained
    one = asyncio.create_task(stage.runtime._beat())
    await begun.wait()
    two = asyncio.create_task(stage.runtime._beat())
    asyncio.get_running_loop().call_soon(slow.set)  # after the later one has come as far as it may
    await asyncio.gather(one, two)
    assert stage.pools["gpu"].room.closed


async def test_an_order_that_is_refused_and_that_nobody_waits_for_is_a_dead_letter():
    stage = Stage(Gateway(), pools=Pools({"gpu": 1}))
    async with stage.runtime:
        await stage.start()
        unknown = ResolveEffect(key=f"eff_{'0' * 26}", outcome="done", reason="seen")
        orders: list[tuple[str, Command]] = [("acme", DrainPool(pool="gpu")), ("default", unknown)]
        for tenant, command in orders:
            subject = subjects.cmd(tenant, "agent_runtime", command.verb)
            envelope = Envelope.wrap(command.type_name, "test", Context(tenant, principal="ann"))
            await stage.bus.publish([Outgoing(subject, command, envelope)])
        await eventually(lambda: len(stage.bus.dead) == 2)
        await stage.bus.drain(0.05)
    assert sorted(headers[DEAD_CODE] for _, _, headers in stage.bus.dead) == ["forbidden", "not_found"]


async def test_draining_is_heard_by_all_and_told_to_the_audit_log():
    stage = Stage(Gateway(), pools=Pools({"agents": 2, "gpu": 1}))
    async with stage.runtime:
        await stage.start()
        view = await told(stage, DrainPool(pool="gpu", reason="new drivers"))
        assert view.drain is not None
        assert (view.drain.principal, view.drain.reason) == ("ann", "new drivers")
        assert datetime.now(UTC) - view.drain.since < timedelta(minutes=1)
        again = await told(stage, DrainPool(pool="gpu", reason="for another reason"))
        assert again.drain == view.drain, "it holds already"
        await stage.runtime._beat()
        assert [pool.room.closed for pool in stage.pools] == [False, True]
        assert (await told(stage, ResumePool(pool="gpu"))).drain is None
        await told(stage, ResumePool(pool="gpu"))
        await stage.runtime._beat()
        assert [pool.room.closed for pool in stage.pools] == [False, False]
        await stage.bus.drain(0.05)
    records = [out.message for out in stage.bus.published if isinstance(out.message, EventRecord)]
    assert [(record.type, record.id, record.seq) for record in records] == [
        ("pool.drained", "gpu", 1),
        ("pool.resumed", "gpu", 2),
    ]
    assert records[0].data == {"reason": "new drivers", "principal": "ann"}


async def test_what_was_done_and_could_not_be_told_is_told_when_the_order_comes_again(monkeypatch: pytest.MonkeyPatch):
    stage = Stage(Gateway(), pools=Pools({"gpu": 1}))
    publish, away = stage.bus.publish, list[Unavailable]()

    async def publish_if_there(messages: Sequence[Outgoing]) -> None:
        if away:
            raise away.pop()
        await publish(messages)

    monkeypatch.setattr(stage.bus, "publish", publish_if_there)
    async with stage.runtime:
        await stage.start()
        for command in (DrainPool(pool="gpu", reason="new drivers"), ResumePool(pool="gpu")):
            away.append(Unavailable("NATS is away"))
            await told(stage, command)
        await stage.bus.drain(0.05)
    records = [out.message for out in stage.bus.published if isinstance(out.message, EventRecord)]
    assert [(record.type, record.seq, record.data) for record in records] == [
        ("pool.drained", 1, {"reason": "new drivers", "principal": "ann"}),
        ("pool.resumed", 2, {"principal": "ann"}),
    ]


@pytest.mark.parametrize(
    ("command", "tenant", "error"),
    [(DrainPool(pool="gpu"), "acme", Forbidden), (ResumePool(pool="gpu"), "acme", Forbidden)],
)
async def test_only_the_operator_drains_and_resumes(command: Command, tenant: str, error: type[ParacleError]):
    stage = Stage(Gateway())
    async with stage.runtime:
        await stage.start()
        with pytest.raises(error, match="only the operator"):
            await told(stage, command, tenant)
        assert await stage.pool_book.drains() == {}
        await stage.bus.drain(0.05)


async def test_an_order_that_cannot_be_read_is_refused():
    stage = Stage(Gateway())
    async with stage.runtime:
        await stage.start()
        with pytest.raises(MalformedMessage, match="pool"):
            await told(stage, DrainPool.model_construct(pool="GPU"))
        await stage.bus.drain(0.05)
