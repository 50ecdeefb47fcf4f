"""Lists of runs on PostgreSQL: whatever is asked for, they hold what a look at every run would find."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from begun_runs import AT, begun, put
from runs_memory import RunsInMemory

from paracle_chassis import migrations
from paracle_chassis.event_store import Append, EventStore, Page, PostgresEventStore
from paracle_chassis.postgres import Queries, create_pool
from paracle_chassis.settings import ServiceSettings
from paracle_chassis.testing.memory_store import MemoryEventStore
from paracle_domain.errors import InvalidInput
from paracle_domain.ids import new_id
from paracle_domain.run.commands import RunFilter, RunStatus, RunSummary
from paracle_orchestrator.adapters.postgres import RUN_TABLES
from paracle_orchestrator.adapters.run_index import PostgresRunIndex
from paracle_orchestrator.ports import RunIndex

PARENT = new_id("run")
LABELS: tuple[dict[str, str], ...] = ({}, {"a": "1"}, {"a": "2"}, {"a": "1", "b": "1"}, {"b": "1", "c": "="})
STATUSES = (RunStatus.RUNNING, RunStatus.PAUSED, RunStatus.COMPLETED, RunStatus.FAILED)


@dataclass(frozen=True)
class Shelf:
    """A store of runs, and the list of what is in it; `resting` is the list of something that rests at once."""

    store: EventStore
    index: RunIndex
    resting: RunIndex


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.connected)])
def shelf(request: pytest.FixtureRequest) -> Shelf:
    if request.param == "memory":
        memory = MemoryEventStore()
        return Shelf(memory, RunsInMemory(memory), RunsInMemory(memory))
    pool = request.getfixturevalue("pool")
    return Shelf(PostgresEventStore(pool, RUN_TABLES), index_of(pool), index_of(pool, most_sifted=2))


def index_of(pool: Any, **more: int) -> PostgresRunIndex:
    return PostgresRunIndex(pool, Queries.load("paracle_orchestrator"), **more)


def ended(run: Append, status: str) -> Append:
    """What moves `run` on to its end."""
    at = run.pages[0].at + timedelta(seconds=5)
    return Append(run.id, run.tenant, 1, (Page(2, "d", at, (b'{"type":"y"}',)),), status, finished_at=at)


async def every_page(index: RunIndex, wanted: RunFilter, limit: int = 3) -> list[RunSummary]:
    found: list[RunSummary] = []
    cursor = None
    while True:
        page = await index.page("acme", wanted, limit, cursor)
        found += page.runs
        cursor = page.next_cursor
        if cursor is None:
            return found


async def test_runs_are_listed_newest_first_page_by_page(shelf: Shelf) -> None:
    ids = await put(shelf.store, [begun(n, labels='{"a":"b"}', priority=3, forked_from=PARENT) for n in range(5)])
    await put(shelf.store, [begun(n, tenant="evil", labels='{"a":"b"}') for n in range(2)])
    found: list[RunSummary] = []
    for wanted in (RunFilter(), RunFilter(labels={"a": "b"}), RunFilter(workflow="w")):
        found = await every_page(shelf.index, wanted, limit=2)
        assert [run.run_id for run in found] == ids[::-1]
    assert (found[-1].labels, found[-1].priority, found[-1].forked_from) == ({"a": "b"}, 3, PARENT)


async def test_turns_of_a_session_are_in_the_order_in_which_they_were_accepted(shelf: Shelf) -> None:
    """Whatever the clocks of those who accepted them say."""
    one, two = new_id("ses"), new_id("ses")
    turns = [begun(9 - n, session=one) for n in range(4)]
    others = [begun(0, session=two), begun(0), begun(0, session=one, tenant="evil")]
    for run in (*others, *turns):
        await put(shelf.store, [run])
    ids = [run.id for run in turns]
    assert [await shelf.index.turns_before("acme", run_id) for run_id in ids] == [ids[:n] for n in range(4)]
    assert [await shelf.index.turns_before("acme", ids[3], last) for last in (1, 2, 9)] == [ids[2:3], ids[1:3], ids[:3]]
    assert not await shelf.store.append([ended(turns[1], "completed")])
    assert await shelf.index.turns_before("acme", ids[3]) == [ids[0], ids[2]]
    assert await shelf.index.turns_before("evil", ids[3]) == []
    assert [await shelf.index.turns_before("acme", run.id) for run in others[:2]] == [[], []]


async def test_no_turn_waits_for_one_that_may_wait_for_its_slot(shelf: Shelf) -> None:
    """That one was paused while it was queued, say, and resumed once a later one had the slot."""
    session = new_id("ses")
    started = begun(1, session=session)
    resumed = begun(2, session=session, status="queued", priority=1, waits=True)
    has_the_slot = begun(3, session=session)
    for run in (started, resumed, has_the_slot):
        await put(shelf.store, [run])
    assert await shelf.index.turns_before("acme", has_the_slot.id) == [started.id]


async def test_any_filter_finds_what_a_look_at_every_run_finds(shelf: Shelf) -> None:
    chance = random.Random(7)
    runs = [
        begun(
            n // 2,  # two at a time, so that ids decide too
            workflow=chance.choice(("w", "v")),
            labels=json.dumps(chance.choice(LABELS)),
            parent=chance.choice((None, None, PARENT)),
        )
        for n in range(60)
    ]
    await put(shelf.store, runs)
    statuses = {run.id: chance.choice(STATUSES) for run in runs}
    assert not await shelf.store.append([ended(run, statuses[run.id]) for run in runs])
    newest = sorted(runs, key=lambda run: (run.pages[0].at, run.id), reverse=True)
    for index in (shelf.index, shelf.resting):
        for _ in range(150):
            wanted = _some_filter(chance)
            expected = [run.id for run in newest if _meets(run, statuses[run.id], wanted)]
            assert [run.run_id for run in await every_page(index, wanted)] == expected, wanted


def _some_filter(chance: random.Random) -> RunFilter:
    times = [AT + timedelta(seconds=chance.randrange(35)) for _ in range(2)]
    return RunFilter(
        workflow=chance.choice((None, "w", "nope")),
        statuses=tuple(chance.sample(STATUSES, chance.randrange(3))),
        labels=chance.choice(({}, {"a": "1"}, {"b": "1"}, {"a": "1", "b": "1"}, {"c": "="}, {"c": "x"})),
        created_after=chance.choice((None, times[0])),
        created_before=chance.choice((None, times[1])),
        parent=chance.choice((None, None, PARENT, new_id("run"))),
    )


def _meets(run: Append, status: RunStatus, wanted: RunFilter) -> bool:
    facts, at = run.facts or {}, run.pages[0].at
    return (
        wanted.workflow in (None, facts["workflow"])
        and (not wanted.statuses or status in wanted.statuses)
        and wanted.labels.items() <= json.loads(facts["labels"]).items()
        and (wanted.created_after is None or at >= wanted.created_after)
        and (wanted.created_before is None or at < wanted.created_before)
        and wanted.parent in (None, facts["parent"])
    )


@pytest.mark.connected
async def test_labels_follow_their_run(pool: Any) -> None:
    run, store = begun(1, labels='{"a":"1","b":"2"}'), PostgresEventStore(pool, RUN_TABLES)
    await put(store, [run, begun(2)])
    assert await pool.fetchval("select count(*) from run_labels where status = 'running'") == 2
    await store.append([ended(run, "failed")])
    assert await pool.fetchval("select count(*) from run_labels where status = 'failed'") == 2
    await pool.execute("delete from runs")
    assert await pool.fetchval("select count(*) from run_labels") == 0


@pytest.mark.connected
async def test_what_happens_to_a_run_leaves_its_list_entries_alone(pool: Any) -> None:
    """A page of events that does not change the status is an update in place, however many runs there are."""
    store = PostgresEventStore(pool, RUN_TABLES)
    runs = [begun(n, labels='{"a":"1"}') for n in range(200)]
    await put(store, runs)
    for seq in range(2, 7):
        pages = [(run, Page(seq, f"c{seq}", AT, (b'{"type":"y"}',))) for run in runs]
        assert not await store.append([Append(run.id, "acme", seq - 1, (page,), "running") for run, page in pages])
    async with pool.acquire() as connection:
        await connection.execute("select pg_stat_force_next_flush()")
        moved = await connection.fetchrow(
            "select n_tup_upd, n_tup_hot_upd from pg_stat_user_tables where relname = 'runs'"
        )
    assert moved["n_tup_upd"] == moved["n_tup_hot_upd"] == 1_000


@pytest.mark.connected
@pytest.mark.parametrize("cursor", ["x", "eA==", "é"])
async def test_a_made_up_cursor_is_refused(pool: Any, cursor: str) -> None:
    with pytest.raises(InvalidInput, match="is no cursor"):
        await index_of(pool).page("acme", RunFilter(), 50, cursor)


@pytest.mark.connected
async def test_runs_of_the_first_schema_are_found_once_it_is_brought_up_to_date(postgres_dsn: str) -> None:
    steps = migrations.load("paracle_orchestrator")
    run_id = new_id("run")
    async with create_pool(ServiceSettings(postgres_dsn=postgres_dsn)) as pool:
        async with pool.acquire() as connection:
            await migrations.migrate(connection, steps[:1])
            await connection.execute(
                "insert into runs values ($1, 'acme', 1, 'running', null, $2, null, 'w', 1, 'p', 'ada', 'r', $3::json)",
                run_id,
                AT,
                '{"team": "a", "note": ""}',
            )
            await connection.execute("insert into run_history values ($1, 1, 'c', $2, '[{}]')", run_id, AT)
            await migrations.migrate(connection, steps)
        index, store = index_of(pool), PostgresEventStore(pool, RUN_TABLES)
        for wanted in (RunFilter(), RunFilter(labels={"team": "a"}), RunFilter(workflow="w", labels={"team": "a"})):
            assert [run.run_id for run in await every_page(index, wanted)] == [run_id]
        move = Append(run_id, "acme", 1, (Page(2, "d", AT, (b"{}",)),), "completed", finished_at=AT)
        assert not await store.append([move])
        done = RunFilter(labels={"team": "a"}, statuses=(RunStatus.COMPLETED,))
        assert [run.run_id for run in await every_page(index, done)] == [run_id]
