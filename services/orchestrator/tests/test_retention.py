"""Ended runs go when their time is over, and nothing else does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from paracle_chassis.event_store import Append, Page, PostgresEventStore
from paracle_chassis.postgres import Queries
from paracle_domain.envelope import Context
from paracle_domain.errors import NotFound, Unavailable
from paracle_domain.ids import new_id
from paracle_domain.plan import Plan
from paracle_domain.run.commands import GetRun, StartRun
from paracle_orchestrator import plans as plans_module
from paracle_orchestrator import retention as retention_module
from paracle_orchestrator.adapters.postgres import RUN_TABLES, PostgresPlanStore
from paracle_orchestrator.adapters.retention import PostgresRetention
from paracle_orchestrator.ports import Ended, RetentionPolicy
from paracle_orchestrator.retention import Keeping, Purger

NOW = datetime(2026, 1, 1, tzinfo=UTC)
OWN, NONE = RetentionPolicy("acme", 60), RetentionPolicy("acme", None)


@pytest.mark.parametrize(
    ("keeping", "policy", "keep_s"),
    [
        (Keeping(), NONE, None),
        (Keeping(least_s=0), OWN, 60),
        (Keeping(), OWN, 600),
        (Keeping(for_s=3_600), NONE, 3_600),
        (Keeping(for_s=3_600), OWN, 600),
        (Keeping(for_s=3_600, of_tenant={"acme": 7_200}), NONE, 7_200),
        (Keeping(for_s=3_600, of_tenant={"acme": None}), NONE, None),
        (Keeping(for_s=3_600, of_tenant={"evil": 1}), NONE, 3_600),
        (Keeping(of_tenant={"acme": None}, least_s=0), OWN, 60),
    ],
)
def test_the_workflow_says_it_else_the_tenant_else_all(
    keeping: Keeping, policy: RetentionPolicy, keep_s: float | None
) -> None:
    expected = None if keep_s is None else NOW - timedelta(seconds=keep_s)
    assert keeping.ended_before(policy, NOW) == expected


class Shelf:
    """A `Retention` with so many runs under each policy."""

    def __init__(self, runs: dict[RetentionPolicy, int]) -> None:
        self.runs = runs
        self.asked: list[tuple[RetentionPolicy, datetime]] = []
        self.forgot = 0

    async def policies(self) -> list[RetentionPolicy]:
        return list(self.runs)

    async def purge(
        self,
        policy: RetentionPolicy,
        before: datetime,
        runs: int,
        events: int,  # the port's signature
        tell: Callable[[Sequence[Ended]], Awaitable[None]],
    ) -> int:
        self.asked.append((policy, before))
        number = min(runs, self.runs[policy])
        if number:
            await tell([Ended(new_id("run"), 6, before) for _ in range(number)])
        self.runs[policy] -= number
        return number

    async def forget_plans(self) -> int:
        self.forgot += 1
        return 0


def purger(shelf: Any, bus: Any, keeping: Keeping) -> Purger:
    return Purger(shelf, keeping, bus, lambda: NOW, every_s=10)


async def test_rounds_go_on_until_nothing_is_due(desk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention_module, "RUNS", 2)
    shelf = Shelf({OWN: 3, NONE: 5})
    one = purger(shelf, desk.bus, Keeping(least_s=0))
    assert [await one.round() < 10 for _ in range(3)] == [True, True, False]
    assert shelf.runs == {OWN: 0, NONE: 5}
    assert (shelf.forgot, {policy for policy, _ in shelf.asked}) == (1, {OWN})
    told = [json.loads(item.message.encode()) for item in desk.bus.take()]
    assert [len(record["data"]["runs"]) for record in told] == [2, 1]
    assert told[0]["type"] == "runs.purged"
    assert told[0]["data"]["workflow_keep_s"] == 60


async def test_what_cannot_be_told_is_not_dropped(desk: Any) -> None:
    shelf = Shelf({OWN: 1})
    desk.bus.broken = 1
    with pytest.raises(Unavailable):
        await purger(shelf, desk.bus, Keeping()).round()
    assert shelf.runs == {OWN: 1}


async def test_a_plan_that_is_pinned_again_and_again_is_said_to_be_used(
    desk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    puts = []
    put = desk.shelf.put

    async def counted(tenant: str, plan: Plan) -> None:
        puts.append(plan.digest)
        await put(tenant, plan)

    monkeypatch.setattr(desk.shelf, "put", counted)
    for key in ("one", "two"):
        await desk.start(key=key)
    assert len(puts) == 1
    monkeypatch.setattr(plans_module, "_ASSURED_S", 0.0)
    await desk.start(key="three")
    assert len(puts) == 2


async def test_a_run_that_was_dropped_can_begin_anew_where_it_is_cached(desk: Any, replica: Any, tools: Any) -> None:
    """Its id is free again; what a replica still knows of its first life must not come into the second."""
    run_id = await desk.start(key="k")
    await desk.cancel(run_id)
    await replica.service.get_run(GetRun(run_id=run_id), Context("acme"))
    for _ in range(2):
        del desk.store.actors[run_id]
        with pytest.raises(NotFound):
            await replica.service.get_run(GetRun(run_id=run_id), Context("acme"))
        desk.now += timedelta(seconds=1)
        receipt = await desk.order(StartRun(workflow="w"), key="k")
        assert (receipt.answers[0].run_id, receipt.answers[0].created) == (run_id, True)
    assert (await replica.service.get_run(GetRun(run_id=run_id), Context("acme"))).last_seq == 2


async def test_a_second_life_is_not_mixed_with_the_first(desk: Any, replica: Any) -> None:
    run_id = await desk.start(key="k")
    await replica.service.get_run(GetRun(run_id=run_id), Context("acme"))
    del desk.store.actors[run_id]
    desk.now += timedelta(seconds=1)
    await desk.order(StartRun(workflow="w"), key="k")
    view = await replica.service.get_run(GetRun(run_id=run_id), Context("acme"))
    assert view.run.created_at == desk.now


async def test_mail_of_a_second_life_is_not_taken_for_the_first_one_s(desk: Any, replica: Any, tools: Any) -> None:
    """Both lives have come as far as a replica remembers of the first."""
    desk.knows("w", tools.plan_of({"id": "a"}, {"id": "b", "needs": ["a"], "input": "{{ input.n }}"}))
    run_id = await desk.start(value={"n": 1}, key="k")
    await replica.service.get_run(GetRun(run_id=run_id), Context("acme"))
    del desk.store.actors[run_id]
    desk.now += timedelta(seconds=1)
    await desk.order(StartRun(workflow="w", input={"n": 2}), key="k")
    replica.now = desk.now
    first = tools.tasks(desk.bus.take())[-1]
    await replica.finish(first)
    (second,) = tools.tasks(desk.bus.take())
    assert (second.step, second.input) == ("b", 2)


# ── on PostgreSQL ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def kept(pool: Any) -> PostgresRetention:
    return PostgresRetention(pool, Queries.load("paracle_orchestrator"))


async def put(pool: Any, finished_s: float | None, *, tenant: str = "acme", events: int = 2, **facts: Any) -> str:
    """A run that ended so many seconds before `NOW`; `None`: it has not."""
    known = {"workflow": "w", "revision": 1, "plan": "p", "principal": "ada", "request": "r", "labels": '{"a":"b"}'}
    known |= {"priority": 0, "parent": None, "forked_from": None, "keep_s": None, "max_runs": None, "session": None}
    known |= {"waits": False}
    run_id = new_id("run")
    begun = Page(1, "c", NOW - timedelta(days=1), tuple(b'{"type":"x"}' for _ in range(events - 1)))
    store = PostgresEventStore(pool, RUN_TABLES)
    assert not await store.append([Append(run_id, tenant, 0, (begun,), "running", facts=known | facts)])
    if finished_s is not None:
        at = NOW - timedelta(seconds=finished_s)
        end = Page(events, "d", at, (b'{"type":"y"}',))
        assert not await store.append([Append(run_id, tenant, events - 1, (end,), "completed", finished_at=at)])
    return run_id


async def drop(
    kept: PostgresRetention, policy: RetentionPolicy = NONE, *, runs: int = 10, events: int = 100
) -> set[str]:
    told: set[str] = set()

    async def tell(ended: Sequence[Ended]) -> None:
        told.update(run.id for run in ended)

    assert await kept.purge(policy, NOW, runs, events, tell) == len(told)
    return told


@pytest.mark.connected
async def test_each_policy_drops_its_own_runs_with_all_that_hangs_on_them(pool: Any, kept: PostgresRetention) -> None:
    old, own = await put(pool, 5), await put(pool, 5, keep_s=60.0)
    stay = {await put(pool, -5), await put(pool, None), await put(pool, 5, tenant="evil")}
    assert set(await kept.policies()) == {OWN, NONE, RetentionPolicy("evil", None)}
    assert await drop(kept) == {old}
    assert await drop(kept, OWN) == {own}
    for table in ("runs", "run_history", "run_labels"):
        rows = await pool.fetch(f"select distinct id from {table}")  # a name from here
        assert {row["id"] for row in rows} == stay


@pytest.mark.connected
async def test_batches_are_bounded_by_runs_and_by_events_but_for_a_single_run(
    pool: Any, kept: PostgresRetention
) -> None:
    huge = await put(pool, 100, events=50)
    ids = [await put(pool, 90 - n, events=4) for n in range(5)]
    assert await drop(kept, events=10) == {huge}
    assert await drop(kept, events=10) == set(ids[:2])
    assert await drop(kept, runs=1) == {ids[2]}


@pytest.mark.connected
async def test_replicas_drop_different_runs_at_the_same_time(pool: Any, kept: PostgresRetention) -> None:
    ids = {await put(pool, n) for n in range(1, 7)}
    inside, go_on = asyncio.Event(), asyncio.Event()
    first: list[str] = []

    async def tell(ended: Sequence[Ended]) -> None:
        first.extend(run.id for run in ended)
        inside.set()
        await go_on.wait()

    task = asyncio.create_task(kept.purge(NONE, NOW, 3, 100, tell))
    await inside.wait()
    second = await drop(kept)
    go_on.set()
    await task
    assert second == ids - set(first)
    assert len(second) == 3


@pytest.mark.connected
async def test_a_child_stays_until_its_parent_has_ended(pool: Any, kept: PostgresRetention) -> None:
    parent, ended = await put(pool, None), await put(pool, 1)
    child, orphan = await put(pool, 5, parent=parent), await put(pool, 5, parent=ended)
    assert await drop(kept) == {orphan, ended}
    store = PostgresEventStore(pool, RUN_TABLES)
    page = Page(2, "d", NOW, (b'{"type":"y"}',))
    await store.append([Append(parent, "acme", 1, (page,), "completed", finished_at=NOW + timedelta(1))])
    assert await drop(kept) == {child}


@pytest.mark.connected
async def test_plans_go_when_nothing_pins_them_for_a_day(pool: Any, kept: PostgresRetention, tools: Any) -> None:
    plans = PostgresPlanStore(pool, Queries.load("paracle_orchestrator"))
    child, pinned, unused = (tools.plan_of({"id": name}) for name in ("child", "pinned", "unused"))
    parent = Plan.pin(unused.workflow, {}, {}, {"c": child})
    for plan in (child, pinned, parent):
        await plans.put("acme", plan)
    await plans.put("evil", pinned)
    run_id = await put(pool, 1, plan=pinned.digest)
    assert await kept.forget_plans() == 0
    await pool.execute("update plans set used_at = now() - interval '25 hours'")
    assert await kept.forget_plans() == 2  # evil's, and the parent: its child is dropped when nothing names it
    assert await kept.forget_plans() == 1
    assert await plans.get("acme", pinned.digest) == pinned
    await plans.put("acme", pinned)
    assert await drop(kept) == {run_id}
    assert await kept.forget_plans() == 0
    await pool.execute("update plans set used_at = now() - interval '25 hours'")
    assert await kept.forget_plans() == 1
