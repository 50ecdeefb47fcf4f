"""The book of sessions, over memory and PostgreSQL: numbers of turns, who waits for whom, and what people see of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from memory_ports import MemorySessionBook
from runtime_plan import CONTEXT, SESSION, turn

from paracle_agent_runtime.adapters.pools import PostgresPoolBook
from paracle_agent_runtime.adapters.postgres import TASK_TABLES, PostgresTaskShelf
from paracle_agent_runtime.adapters.sessions import PostgresSessionBook, PostgresSessionShelf
from paracle_agent_runtime.ports import TURNS_TOLD, Ending, Letter, SessionBook, Stalled
from paracle_agent_runtime.records import facts_of
from paracle_agent_runtime.session_desk import SessionDesk
from paracle_chassis.event_store import Append, Page, PostgresEventStore
from paracle_chassis.postgres import Database, Queries
from paracle_chassis.settings import ServiceSettings
from paracle_chassis.testing.infra import migrated
from paracle_domain.envelope import Context, Envelope
from paracle_domain.errors import Conflict, NotFound
from paracle_domain.ids import new_id
from paracle_domain.inference.chat import ChatMessage
from paracle_domain.task.events import TaskCancelled, dump_event
from paracle_domain.task.messages import Task, TaskStatus
from paracle_domain.task.past import Past
from paracle_domain.task.sessions import DeleteSession, GetSession, ListSessions


@pytest.fixture
async def database(postgres_dsn: str) -> AsyncIterator[Database]:
    await migrated(postgres_dsn, "paracle_agent_runtime")
    async with Database(ServiceSettings(postgres_dsn=postgres_dsn), "paracle_agent_runtime") as found:
        yield found


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.connected)])
def book(request: pytest.FixtureRequest) -> SessionBook:
    if request.param == "memory":
        return MemorySessionBook()
    database = request.getfixturevalue("database")
    return PostgresSessionBook(database.pool, Queries.load("paracle_agent_runtime"))


async def test_turns_are_numbered_once_and_wait_for_each_other(book: SessionBook):
    tasks = [turn(str(number)) for number in range(3)]
    assert [await book.enter("default", SESSION, one) for one in (*tasks, *tasks)] == [1, 2, 3, 1, 2, 3]
    assert await book.enter("acme", SESSION, turn("foreign")) == 1
    runs = [one.run_id for one in tasks]
    others = [new_id("run"), new_id("run")]
    assert await book.lacks("default", SESSION, runs) is None
    assert await book.lacks("default", SESSION, [*others, *runs]) == others[1]
    assert await book.lacks("acme", SESSION, runs) == runs[-1]
    assert await book.lacks("default", new_id("ses"), runs) == runs[-1]
    assert [await book.number(one.task_id) for one in (*tasks, turn("never"))] == [1, 2, 3, None]
    assert [await book.waits("default", SESSION, number) for number in (1, 2, 3)] == [False, True, True]
    said = (ChatMessage.user("é\x00"), ChatMessage.assistant("yes"))
    await book.end("acme", tasks[0].task_id, Ending())
    assert await book.waits("default", SESSION, 2), "it is not acme's"
    await book.end("default", tasks[0].task_id, Ending(said))
    await book.end("default", tasks[0].task_id, Ending())
    assert [await book.waits("default", SESSION, number) for number in (2, 3)] == [False, True]
    await book.end("default", tasks[1].task_id, Ending(said))
    assert await book.past("default", SESSION, 3) == Past(3, said * 2, ((0, 1), (2, 2)))
    assert await book.past("default", SESSION, 1) == Past()
    assert await book.past("acme", SESSION, 1) == Past()


async def test_turns_set_aside_are_released_by_those_that_they_wait_for(book: SessionBook):
    first, second, third, early, foreign = (turn(text) for text in ("1", "é\x00", "3", "early", "foreign"))
    for one in (first, second, third):
        await book.enter("default", SESSION, one)
    await book.enter("acme", SESSION, foreign)
    kept = {one.task_id: letter(one) for one in (second, third, early)}
    await book.set_aside(SESSION, kept[third.task_id], 3)
    await book.set_aside(SESSION, kept[second.task_id], third.run_id)
    await book.set_aside(SESSION, kept[second.task_id], 2)
    await book.set_aside(SESSION, kept[early.task_id], third.run_id)
    assert await book.stalled(9) == [], "the third is set aside itself"

    async def released(by: Task, tenant: str = "default") -> list[Letter]:
        return list(await book.release(tenant, by.task_id, by.run_id))

    assert await released(first) == [], "it is under way"
    assert await released(first, "acme") == []
    assert await released(third) == [kept[early.task_id]], "it has entered"
    await book.end("default", first.task_id, Ending())
    assert await released(first, "acme") == []
    assert await released(foreign, "acme") == []
    found = await released(first)
    assert found == [replace(kept[second.task_id], turn=2)]
    assert await released(first) == found, "it has not begun"
    assert await released(early) == [], "it is not set aside any more, and no turn"
    assert await released(third) == found
    await book.end("default", second.task_id, Ending())
    assert await released(second) == [replace(kept[third.task_id], turn=3)]
    await book.end("default", third.task_id, Ending())
    assert await released(third) == []
    lonely = letter(turn("lonely"))
    await book.set_aside(SESSION, lonely, third.run_id)
    assert await book.stalled(9) == [Stalled(SESSION, third.run_id, lonely)]


async def test_a_turn_that_was_called_is_not_stalled_until_it_is_set_aside_again(book: SessionBook):
    first, second, never = turn("1"), turn("2"), turn("never")
    kept = letter(second)
    stalled = [Stalled(SESSION, never.run_id, kept)]
    await book.set_aside(SESSION, kept, never.run_id)
    await book.called(second.task_id)
    assert await book.stalled(9) == []
    await book.set_aside(SESSION, kept, never.run_id)
    assert await book.stalled(9) == stalled
    assert await book.release("default", first.task_id, never.run_id) == [kept]
    assert await book.stalled(9) == []
    assert await book.release("default", first.task_id, never.run_id) == [kept], "who called it may have been killed"
    await book.set_aside(SESSION, kept, never.run_id)
    assert await book.stalled(9) == stalled


def letter(one: Task) -> Letter:
    context = Context("default", principal="ada", correlation_id=one.run_id, roles=("a", "b"))
    envelope = Envelope.wrap(one.type_name, "test", context, id=one.task_id)
    return Letter("gpu", one, envelope)


@pytest.mark.connected
async def test_of_the_last_of_many_before_a_turn_one_has_to_have_entered(database: Database):
    """Those before it had entered then. Others may only have been cancelled, and say nothing of those before them."""
    book = PostgresSessionBook(database.pool, Queries.load("paracle_agent_runtime"))
    before = [turn(str(number), run_id=new_id("run")) for number in range(TURNS_TOLD)]
    runs = [one.run_id for one in before]
    assert await book.lacks("default", SESSION, runs) == runs[-1]
    await database.pool.executemany(
        "insert into tasks (id, tenant, version, status, created_at, finished_at, run_id, step, attempt, target_kind,"
        " target) values ($1, 'default', 1, 'cancelled', now(), now(), $2, 's', 1, 'agent', 'a')",
        [(one.task_id, one.run_id) for one in before],
    )
    assert await book.lacks("default", SESSION, runs[1:]) is None
    assert await book.lacks("default", SESSION, runs) == runs[0]
    await book.enter("default", SESSION, before[7])
    assert await book.lacks("default", SESSION, runs) is None


@pytest.mark.connected
async def test_only_turns_that_wait_count_as_set_aside(database: Database):
    """One that was handed out again has begun, or was cancelled on the way: it is in hand, or in no one's way."""
    queries = Queries.load("paracle_agent_runtime")
    book, pools = PostgresSessionBook(database.pool, queries), PostgresPoolBook(database.pool, queries, 1)
    store = PostgresEventStore(database.pool, TASK_TABLES)
    numbered, waiting = turn("1"), turn("2")
    number = await book.enter("default", SESSION, numbered)
    await book.set_aside(SESSION, letter(numbered), number)
    await book.set_aside(SESSION, letter(waiting), numbered.run_id)
    assert await pools.aside(None) == await pools.aside("default") == {"gpu": 2}
    assert await pools.aside("acme") == {}
    assert await store.append([buried(numbered)]) == set()
    assert await pools.aside(None) == await pools.aside("default") == {"gpu": 1}
    await book.called(waiting.task_id)
    assert await pools.aside(None) == {}, "it is in the queue"


@pytest.mark.connected
async def test_a_cancelled_turn_that_comes_once_more_is_not_set_aside(database: Database):
    """A copy of it was on its way: nobody would ever hand it out again."""
    queries = Queries.load("paracle_agent_runtime")
    book, store = PostgresSessionBook(database.pool, queries), PostgresEventStore(database.pool, TASK_TABLES)
    first, second = turn("1"), turn("2")
    assert [await book.enter("default", SESSION, one) for one in (first, second)] == [1, 2]
    await book.set_aside(SESSION, letter(second), 2)
    assert await store.append([buried(second)]) == set()
    assert await book.release("default", second.task_id, second.run_id) == []
    await book.set_aside(SESSION, letter(second), 2)
    await book.set_aside(SESSION, letter(second), first.run_id)
    assert await database.pool.fetch("select task_id from turns_aside") == []


def buried(one: Task) -> Append:
    """A tombstone where it would begin."""
    now = datetime.now(UTC)
    return Append(
        id=one.task_id,
        tenant="default",
        expected=0,
        pages=(Page(1, "test", now, (dump_event(TaskCancelled(reason="enough")),)),),
        status=TaskStatus.CANCELLED,
        finished_at=now,
        facts=facts_of(one, None),
    )


@pytest.mark.connected
async def test_nobody_waits_for_a_cancelled_task_even_when_it_is_not_kept_any_more(database: Database):
    queries = Queries.load("paracle_agent_runtime")
    book, store = PostgresSessionBook(database.pool, queries), PostgresEventStore(database.pool, TASK_TABLES)
    first, second = turn("1"), turn("2")
    assert [await book.enter("default", SESSION, one) for one in (first, second)] == [1, 2]
    assert await book.waits("default", SESSION, 2)
    assert await store.append([buried(first)]) == set()
    assert not await book.waits("default", SESSION, 2)
    shown = await PostgresSessionShelf(database.pool, queries).turns("default", SESSION, 0, 9)
    assert [one.ended_at is not None for one in shown] == [True, False]
    assert await PostgresTaskShelf(database.pool, queries).drop("default", [first.run_id]) == 1
    assert not await book.waits("default", SESSION, 2)


@pytest.mark.connected
async def test_sessions_are_looked_at_and_forgotten(database: Database):
    queries = Queries.load("paracle_agent_runtime")
    book, desk = PostgresSessionBook(database.pool, queries), SessionDesk(PostgresSessionShelf(database.pool, queries))
    acme = Context(tenant="acme")
    names = sorted(new_id("ses") for _ in range(3))
    tasks = [turn("Hi", name) for name in (*names, names[0])]
    for name, one in zip((*names, names[0]), tasks, strict=True):
        await book.enter("default", name, one)
    said = (ChatMessage.user("Hi"), ChatMessage.assistant("Hello"))
    await book.end("default", tasks[0].task_id, Ending(said))

    page = await desk.list_sessions(ListSessions(limit=2), CONTEXT)
    assert [one.session_id for one in page.sessions] == [names[2], names[1]]
    rest = await desk.list_sessions(ListSessions(limit=2, cursor=page.next_cursor), CONTEXT)
    assert [(one.session_id, one.turns, one.open) for one in rest.sessions] == [(names[0], 2, 1)]
    assert rest.next_cursor is None
    assert (await desk.list_sessions(ListSessions(), acme)).sessions == ()

    view = await desk.get_session(GetSession(session_id=names[0], limit=1), CONTEXT)
    assert [(one.turn, one.run_id, one.messages) for one in view.turns] == [(1, tasks[0].run_id, said)]
    view = await desk.get_session(GetSession(session_id=names[0], after=view.next_after or 0), CONTEXT)
    assert [(one.turn, one.ended_at, one.messages) for one in view.turns] == [(2, None, ())]
    assert view.next_after is None

    with pytest.raises(Conflict, match="is open"):
        await desk.delete_session(DeleteSession(session_id=names[0]), CONTEXT)
    await book.end("default", tasks[3].task_id, Ending())
    for ask in (
        desk.get_session(GetSession(session_id=names[0]), acme),
        desk.delete_session(DeleteSession(session_id=names[0]), acme),
    ):
        with pytest.raises(NotFound):
            await ask
    await desk.delete_session(DeleteSession(session_id=names[0]), CONTEXT)
    with pytest.raises(NotFound):
        await desk.get_session(GetSession(session_id=names[0]), CONTEXT)
    assert await book.past("default", names[0], 9) == Past(9)
