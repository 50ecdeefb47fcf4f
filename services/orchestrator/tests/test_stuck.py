"""Runs that are stuck: marked, shown, found, let go."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from begun_runs import FACTS
from stuck_memory import StuckInMemory
from stuck_samples import AT, CALL, buried, mail, stuck_of

from paracle_chassis.delivery import Delivery
from paracle_chassis.event_store import Append, EventStore, Page, PostgresEventStore
from paracle_chassis.inlet import Incoming
from paracle_chassis.postgres import Queries
from paracle_chassis.receipts import NoReceipt
from paracle_chassis.testing.memory_store import MemoryEventStore
from paracle_domain import subjects
from paracle_domain.dead_letters import DEAD_SUBJECT, LetterGone, dead_letter_id
from paracle_domain.errors import InternalError, MalformedMessage, NotFound, ParacleError
from paracle_domain.ids import new_id
from paracle_domain.run.commands import (
    CancelRun,
    GetRun,
    GetRunEvents,
    RunFilter,
    RunPage,
    RunStatus,
    RunSummary,
    Stuck,
)
from paracle_domain.task.messages import TaskStatus
from paracle_orchestrator.adapters.postgres import RUN_TABLES
from paracle_orchestrator.adapters.run_index import PostgresRunIndex
from paracle_orchestrator.adapters.stuck import PostgresStuckIndex
from paracle_orchestrator.ports import Mark, StuckIndex

_letters = iter(range(1_000_000))


class World:
    """An index, and the store that knows the runs."""

    def __init__(self, index: StuckIndex, store: EventStore, pool: Any = None) -> None:
        self.index = index
        self.store = store
        self.pool = pool

    async def run(self, *, tenant: str = "acme", ended: bool = False, wake: bool = True, **facts: Any) -> str:
        run_id = new_id("run")
        page = Page(1, "c", AT, (b'{"type":"x"}',))
        wake_at = AT + timedelta(hours=1) if wake and not ended else None
        status, finished_at = ("completed", AT) if ended else ("running", None)
        append = Append(run_id, tenant, 0, (page,), status, wake_at, finished_at, facts=FACTS | facts)
        assert await self.store.append([append]) == set()
        return run_id

    async def wake_at(self, run_id: str) -> datetime | None:
        return (await self.store.load([run_id]))[run_id].wake_at


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.connected)])
def world(request: pytest.FixtureRequest) -> World:
    if request.param == "memory":
        store = MemoryEventStore()
        return World(StuckInMemory(store), store)
    pool = request.getfixturevalue("pool")
    index = PostgresStuckIndex(pool, Queries.load("paracle_orchestrator"))
    return World(index, PostgresEventStore(pool, RUN_TABLES), pool)


def mark(run_id: str, *, second: int = 0, tenant: str = "acme", **more: Any) -> Mark:
    letter = dead_letter_id(f"letter {next(_letters)}")
    return Mark(tenant, run_id, letter, "internal", "it broke", AT + timedelta(seconds=second), **more)


# ── every index ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_run_is_stuck_for_its_first_letter_until_all_are_gone(world: World) -> None:
    run = await world.run()
    first, second = mark(run), mark(run, second=1)
    assert set(await world.index.mark([second, first])) == {first, second}
    assert await world.index.of("acme", [run]) == {
        run: Stuck(dead_letter=first.dead_letter, code="internal", since=first.since, letters=2)
    }
    assert await world.index.release([("acme", run, first.dead_letter)], AT) == [first]
    assert (await world.index.of("acme", [run]))[run].dead_letter == second.dead_letter
    assert await world.index.release([("acme", run, second.dead_letter)], AT) == [second]
    assert await world.index.of("acme", [run]) == {}


async def test_marking_again_says_the_same_again(world: World) -> None:
    run = await world.run()
    one = mark(run)
    assert await world.index.mark([one, one]) == [one]
    assert await world.index.mark([one]) == [one]
    assert (await world.index.of("acme", [run]))[run].letters == 1


async def test_runs_that_are_not_there_or_have_ended_are_not_marked(world: World) -> None:
    ended, foreign = await world.run(ended=True), await world.run(tenant="evil")
    marks = [mark(ended), mark(foreign), mark(new_id("run"))]
    assert await world.index.mark(marks) == []
    assert await world.index.of("acme", [one.run_id for one in marks]) == {}
    assert await world.index.of("acme", []) == {}


async def test_a_run_that_ends_is_not_stuck_any_more(world: World) -> None:
    run = await world.run()
    await world.index.mark([mark(run)])
    end = Append(run, "acme", 1, (Page(2, "d", AT, (b'{"type":"y"}',)),), "completed", finished_at=AT)
    assert await world.store.append([end]) == set()
    assert await world.index.of("acme", [run]) == {}


async def test_what_is_gone_before_it_is_marked_stays_gone(world: World) -> None:
    run = await world.run()
    one = mark(run)
    assert await world.index.release([("acme", run, one.dead_letter)], AT) == []
    assert await world.index.mark([one]) == []
    assert await world.index.of("acme", [run]) == {}


async def test_another_tenant_releases_nothing(world: World) -> None:
    run = await world.run()
    one = mark(run)
    await world.index.mark([one])
    assert await world.index.release([("evil", run, one.dead_letter)], AT) == []
    assert run in await world.index.of("acme", [run])


async def test_ticks_stop_and_start_again(world: World) -> None:
    ticked, other = await world.run(), await world.run()
    stopping, plain = mark(ticked, stops_ticks=True), mark(other)
    await world.index.mark([stopping, plain])
    assert await world.wake_at(ticked) is None
    assert await world.wake_at(other) == AT + timedelta(hours=1)
    later = AT + timedelta(minutes=5)
    gone = [("acme", one.run_id, one.dead_letter) for one in (stopping, plain)]
    await world.index.release(gone, later)
    assert await world.wake_at(ticked) == later
    assert await world.wake_at(other) == AT + timedelta(hours=1)


@pytest.mark.connected
async def test_lists_find_stuck_runs_among_others(pool: Any) -> None:
    queries = Queries.load("paracle_orchestrator")
    world = World(PostgresStuckIndex(pool, queries), PostgresEventStore(pool, RUN_TABLES))
    parent = new_id("run")
    plain, stuck, child = await world.run(), await world.run(workflow="v"), await world.run(parent=parent)
    await world.index.mark([mark(stuck), mark(stuck), mark(child)])
    index = PostgresRunIndex(pool, queries)

    async def found(**wanted: Any) -> set[str]:
        return {run.run_id for run in (await index.page("acme", RunFilter(**wanted), 10)).runs}

    assert await found() == {plain, stuck, child}
    assert await found(stuck=True) == {stuck, child}
    assert await found(stuck=True, workflow="v") == {stuck}
    assert await found(stuck=True, parent=parent) == {child}
    assert await found(stuck=True, statuses=(RunStatus.PAUSED,)) == set()
    first = await index.page("acme", RunFilter(stuck=True), 1)
    rest = await index.page("acme", RunFilter(stuck=True), 1, first.next_cursor)
    assert {run.run_id for run in (*first.runs, *rest.runs)} == {stuck, child}
    assert (await index.page("evil", RunFilter(stuck=True), 10)).runs == ()


# ── use cases ────────────────────────────────────────────────────────────────────────────────────────────────────────


def told_of(desk: Any) -> list[tuple[str, str, str]]:
    """What was published about stuck runs: type, run and message id."""
    found = [item for item in desk.bus.take() if ".evt.stuck." in item.subject]
    return [(item.message.type, item.message.correlation_id, item.envelope.id) for item in found]


async def test_mail_that_was_given_up_marks_its_run_until_the_letter_is_gone(desk: Any, tools: Any) -> None:
    run = await desk.start()
    desk.bus.take()
    letter = buried(subjects.result("acme", run), error=MalformedMessage("no result"))
    await desk.stuck.mark([letter, letter])
    stuck = await stuck_of(desk, run)
    assert stuck is not None
    assert (stuck.code, stuck.since, stuck.letters) == ("malformed_message", AT, 1)
    await desk.stuck.mark([letter])
    told = ("run.stuck", run, f"{stuck.dead_letter}.1")
    assert told_of(desk) == [told, told]  # whoever knows message ids sees one
    gone = LetterGone(run_id=run, dead_letter=stuck.dead_letter)
    await desk.service.take_in([mail(tools, run, gone, tenant="evil")])
    assert await stuck_of(desk, run) is not None
    await desk.service.take_in([mail(tools, run, gone)])
    assert await stuck_of(desk, run) is None
    assert told_of(desk) == [("run.unstuck", run, f"{stuck.dead_letter}.2")]


async def test_who_follows_a_run_is_told_where_its_events_end(desk: Any) -> None:
    run = await desk.start()
    await desk.stuck.mark([buried(subjects.result("acme", run))])
    page = await desk.service.get_run_events(GetRunEvents(run_id=run), CALL)
    assert page.stuck is None
    rest = await desk.service.get_run_events(GetRunEvents(run_id=run, after=page.events[-1].seq), CALL)
    assert rest.stuck == await stuck_of(desk, run)


async def test_lists_say_which_runs_are_stuck(desk: Any) -> None:
    run, other = await desk.start(key="1"), await desk.start(key="2")
    page = RunPage(runs=tuple(summary(name) for name in (run, other)))
    assert await desk.stuck.shown("acme", page) == page
    await desk.stuck.mark([buried(subjects.result("acme", run))])
    shown = await desk.stuck.shown("acme", page)
    assert [one.stuck is not None for one in shown.runs] == [True, False]


def summary(run: str) -> RunSummary:
    return RunSummary(run_id=run, workflow="w", revision=1, status=RunStatus.RUNNING, created_at=AT, plan="p")


async def test_a_run_that_ended_is_not_stuck(desk: Any, tools: Any) -> None:
    run = await desk.start()
    await desk.stuck.mark([buried(subjects.result("acme", run))])
    for _ in range(2):
        (task,) = tools.tasks(desk.bus.take())
        await desk.finish(task, TaskStatus.COMPLETED, output=1)
    view = await desk.service.get_run(GetRun(run_id=run), CALL)
    assert (view.run.status, view.run.stuck) == (RunStatus.COMPLETED, None)


@pytest.mark.parametrize(
    ("kind", "error", "told", "counts"),
    [
        ("result", MalformedMessage("x"), False, True),
        ("result", InternalError("x"), False, True),
        ("task", MalformedMessage("x"), False, True),
        ("task", InternalError("x"), True, False),
        ("cmd", InternalError("x"), False, True),
        ("cmd", NotFound("x"), False, False),
        ("evt", MalformedMessage("x"), False, False),
    ],
)
async def test_which_letters_count(desk: Any, kind: str, error: ParacleError, told: bool, counts: bool) -> None:
    run = await desk.start()
    subject = {
        "result": subjects.result("acme", run),
        "task": subjects.task("acme", "agents"),
        "cmd": subjects.cmd("acme", "orchestrator", "cancel_run"),
        "evt": subjects.evt("acme", "run", run, "run_started"),
    }[kind]
    await desk.stuck.mark([buried(subject, CancelRun(run_id=run).encode(), error=error, told=told)])
    assert (await stuck_of(desk, run) is not None) is counts


@pytest.mark.parametrize("subject", ["", "nonsense", "a.b.c", "a.b.c.result", "paracle.v1.acme.result.run_1"])
async def test_a_letter_may_say_anything_of_its_subject(desk: Any, subject: str) -> None:
    """It is marked or not, but taken in: what is refused here would be another dead letter."""
    run = await desk.start()
    headers = {DEAD_SUBJECT: subject, "paracle-correlation-id": run}
    letter = Delivery(Incoming(subjects.dlq("acme", "x"), "", b"", headers=headers), NoReceipt(), stored_ns=1)
    await desk.stuck.mark([letter])
    assert (await stuck_of(desk, run) is not None) is (".result" in subject)


async def test_letters_of_no_run_mark_none(desk: Any) -> None:
    hand_made = Delivery(Incoming(subjects.dlq("acme", "x"), "", b"", headers={}), NoReceipt(), stored_ns=1)
    await desk.stuck.mark([hand_made, buried(subjects.task("acme", "agents"), b"no json")])
    assert desk.bus.take() == []
