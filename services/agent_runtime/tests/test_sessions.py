"""Sessions: turns one at a time, in order, whoever works on them and whatever is killed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from runtime_stage import Stage, again, as_delivered, order, script
from runtime_world import CONTEXT, Gateway, MemorySessionBook, World, says, sent, task

from paracle_agent_runtime.adapters.pools import PostgresPoolBook
from paracle_agent_runtime.adapters.postgres import TASK_TABLES, PostgresTaskShelf
from paracle_agent_runtime.adapters.sessions import PostgresSessionBook, PostgresSessionShelf
from paracle_agent_runtime.pools import Pools
from paracle_agent_runtime.ports import TURNS_TOLD, Ending, Letter, SessionBook, Stalled
from paracle_agent_runtime.records import facts_of
from paracle_agent_runtime.session_desk import SessionDesk
from paracle_chassis.event_store import Append, Page, PostgresEventStore
from paracle_chassis.postgres import Database, Queries
from paracle_chassis.settings import ServiceSettings
from paracle_chassis.testing.eventually import eventually
from paracle_chassis.testing.infra import migrated
from paracle_domain.envelope import Context, Envelope
from paracle_domain.errors import Conflict, NotFound, ProviderFailed, Unavailable
from paracle_domain.ids import new_id
from paracle_domain.inference.chat import ChatMessage
from paracle_domain.task.events import TaskCancelled, dump_event
from paracle_domain.task.messages import Task, TaskStatus
from paracle_domain.task.past import Past
from paracle_domain.task.sessions import DeleteSession, GetSession, ListSessions

SESSION = new_id("ses")


def turn(text: str, session: str = SESSION, **changes: Any) -> Task:
    return task("helper", {"text": text, "session": session}, **changes)


def asked(gateway: Gateway, number: int) -> list[str]:
    """What the model was asked, but for the instructions."""
    return [message.text for message in gateway.asked[number].messages if message.role != "system"]


@script(says("", ("look", {"n": 1})), says("Hello Zoe"), says("You are Zoe"))
async def test_a_turn_knows_what_was_said_before(stage: Stage):
    await stage.do(turn("I am Zoe"))
    [result] = await stage.do(turn("Who am I?"))
    assert result.output == "You are Zoe"
    assert asked(stage.gateway, 2) == ["I am Zoe", "", "", "Hello Zoe", "Who am I?"]
    assert stage.gateway.asked[2].messages[-3].tool_results


@script(says("one"), says("two"), says("three"))
async def test_turns_go_one_at_a_time_in_order(stage: Stage):
    results = await stage.do(turn("1"), turn("2"), turn("3"))
    assert [result.output for result in results] == ["one", "two", "three"]
    assert asked(stage.gateway, 2) == ["1", "one", "2", "two", "3"]


@script(says("elsewhere"), says("one"), says("three"))
async def test_turns_are_numbered_as_they_came_however_long_that_takes(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    """The first is held up on its way into the session, as by a slow connection; those behind it wait, or go."""
    first, second, third, other = turn("1"), turn("2"), turn("3"), turn("x", new_id("ses"))
    gate, enter, came = asyncio.Event(), stage.book.enter, list[str]()

    async def slow(tenant: str, session: str, job: Task) -> int:
        came.append(job.task_id)
        if job.task_id != other.task_id:
            await gate.wait()
        return await enter(tenant, session, job)

    monkeypatch.setattr(stage.book, "enter", slow)
    await stage.bus.publish([sent(one) for one in (first, second, third, other)])
    await eventually(lambda: other.task_id in stage.results())
    await stage.bus.publish([order(second)])
    await eventually(lambda: second.task_id in stage.results())
    assert len(came) == 2
    gate.set()
    await eventually(lambda: third.task_id in stage.results())
    assert stage.book.turns[CONTEXT.tenant, SESSION] == [first.task_id, third.task_id]


@script(says("one"), says("two"))
async def test_a_turn_waits_for_one_that_was_accepted_before_and_has_not_come(stage: Stage):
    """Its task went to another replica, or was lost with nats-server and is handed out again."""
    first, second, never = (turn(text, run_id=new_id("run")) for text in ("1", "2", "never"))
    stage.orchestrator.accepted = [never.run_id, first.run_id, second.run_id]
    await stage.bus.publish([sent(second), sent(first)])
    await eventually(lambda: len(stage.book.aside) == 2 and stage.runtime.running == 0)
    assert stage.book.turns == {}
    await stage.bus.publish([order(never)])  # nobody waits for it any more
    await eventually(lambda: second.task_id in stage.results())
    assert stage.book.turns[CONTEXT.tenant, SESSION] == [first.task_id, second.task_id]
    assert stage.book.aside == {}


@script(says("one"), says("two"))
async def test_a_turn_goes_on_when_a_run_before_it_ends_of_which_nothing_ever_came(stage: Stage):
    """It was paused, and is cancelled: no task of it is."""
    first, second, never = (turn(text, run_id=new_id("run")) for text in ("1", "2", "never"))
    stage.orchestrator.accepted = [never.run_id, first.run_id, second.run_id]
    await stage.bus.publish([sent(second), sent(first)])
    await eventually(lambda: len(stage.book.aside) == 2 and stage.runtime.running == 0)
    stage.orchestrator.accepted.remove(never.run_id)
    await eventually(lambda: second.task_id in stage.results())
    assert stage.book.turns[CONTEXT.tenant, SESSION] == [first.task_id, second.task_id]


@pytest.mark.parametrize("entered", [False, True])
async def test_turns_that_wait_take_no_room_from_the_one_they_wait_for(*, entered: bool):
    """There is one place, and later turns come first: the first one was lost on its way, or with who worked on it."""
    stage = Stage(Gateway(says("one"), says("two"), says("three")), pools=Pools({"agents": 1}))
    first, second, third = (turn(text, run_id=new_id("run")) for text in ("1", "2", "3"))
    stage.orchestrator.accepted = [one.run_id for one in (first, second, third)]
    if entered:
        await stage.book.enter(CONTEXT.tenant, SESSION, first)
    async with stage.runtime:
        await stage.start()
        await stage.bus.publish([sent(third), sent(second)])
        await eventually(lambda: len(stage.book.aside) == 2 and stage.runtime.running == 0)
        await stage.bus.publish([sent(first)])
        await eventually(lambda: third.task_id in stage.results())
        await stage.bus.drain(0.05)
    assert [result.output for result in stage.results().values()] == ["one", "two", "three"]


@script(None)
async def test_nobody_has_a_turn_in_hand_that_waits(stage: Stage):
    first, second, third = (turn(text) for text in ("1", "2", "3"))
    await stage.bus.publish([sent(first), sent(second), sent(third)])
    await eventually(lambda: len(stage.book.aside) == 2 and stage.runtime.running == 1)
    await stage.bus.publish([sent(second, id="again"), order(second)])
    await eventually(lambda: second.task_id in stage.results() and stage.runtime.running == 1)
    stage.gateway.script = [says("last")]
    await stage.bus.publish([order(first)])
    await eventually(lambda: third.task_id in stage.results())
    assert asked(stage.gateway, 1) == ["3"]
    assert stage.book.aside == {}


@script(None)
async def test_a_turn_whose_time_comes_while_it_is_set_aside_goes_on(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    """Whoever ended the one before handed it out again before it was let go here."""
    first, second = turn("1"), turn("2")
    waits, kept, seen = stage.book.waits, asyncio.Event(), asyncio.Event()

    async def slow(tenant: str, session: str, number: int) -> bool:
        found = await waits(tenant, session, number)
        if found and second.task_id in stage.book.aside:
            kept.set()
            await seen.wait()
        return found

    await stage.bus.publish([sent(first)])
    await eventually(lambda: len(stage.gateway.asked) == 1)
    monkeypatch.setattr(stage.book, "waits", slow)
    await stage.bus.publish([sent(second)])
    await asyncio.wait_for(kept.wait(), 30)
    stage.gateway.script = [says("next")]
    await stage.bus.publish([order(first)])
    await eventually(lambda: stage.runtime._entries[CONTEXT.tenant, second.task_id].came_again)
    seen.set()
    await eventually(lambda: second.task_id in stage.results())
    assert asked(stage.gateway, 1) == ["2"]


@script(says("one"), says("two"))
async def test_a_turn_that_was_not_called_when_the_one_before_ended_is_when_that_comes_again(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    """The process was killed after the end of a turn, before it handed the next one out."""
    first, second = turn("1"), turn("2")
    release, killed = stage.book.release, asyncio.Event()

    async def hangs_once(tenant: str, task_id: str, run_id: str) -> Sequence[Letter]:
        if task_id in stage.book.ended and not killed.is_set():
            killed.set()
            await asyncio.Event().wait()
        return await release(tenant, task_id, run_id)

    monkeypatch.setattr(stage.book, "release", hangs_once)
    await stage.book.enter(CONTEXT.tenant, SESSION, first)
    await stage.bus.publish([sent(second)])
    await eventually(lambda: second.task_id in stage.book.aside and stage.runtime.running == 0)
    await stage.bus.publish([sent(first)])
    await asyncio.wait_for(killed.wait(), 30)
    assert second.task_id in stage.book.aside
    heir = World(stage.bus, stage.store, book=stage.book)
    async with heir.runtime:
        await heir.runtime.take([again(as_delivered(first))])
        await eventually(lambda: second.task_id in stage.results())
    assert asked(stage.gateway, 1) == ["1", "one", "2"]


@script(None)
async def test_a_waiting_turn_goes_on_when_the_one_before_is_cancelled(stage: Stage):
    first, second = turn("1"), turn("2")
    await stage.bus.publish([sent(first), sent(second)])
    await eventually(lambda: len(stage.gateway.asked) == 1)
    stage.gateway.script = [says("next")]
    await stage.bus.publish([order(first)])
    await eventually(lambda: second.task_id in stage.results())
    assert asked(stage.gateway, 1) == ["2"]


@script(None)
async def test_a_waiting_turn_can_be_cancelled(stage: Stage):
    first, second = turn("1"), turn("2")
    await stage.bus.publish([sent(first), sent(second)])
    await eventually(lambda: len(stage.gateway.asked) == 1)
    await stage.bus.publish([order(second)])
    await eventually(lambda: second.task_id in stage.results())
    assert stage.results()[second.task_id].status is TaskStatus.CANCELLED
    await stage.bus.publish([order(first)])
    await eventually(lambda: stage.runtime.running == 0)


@script(ProviderFailed("bad"), says("fine"))
async def test_a_turn_that_failed_leaves_no_trace(stage: Stage):
    await stage.do(turn("1"))
    stage.gateway.script = [says("fine")] * 9
    [result] = await stage.do(turn("2"))
    assert result.output == "fine"
    assert asked(stage.gateway, -1) == ["2"]


@script(says("a"), says("b"))
async def test_sessions_are_apart(stage: Stage):
    await stage.do(turn("1"))
    await stage.do(turn("2", new_id("ses")))
    assert asked(stage.gateway, 1) == ["2"]


@script(says("", ("ask_helper", {"text": "poem", "session": SESSION})), says("a poem"), says("here"))
async def test_a_model_cannot_enter_a_session(stage: Stage):
    await stage.do(task("boss", "a poem, please"))
    assert stage.book.turns == {}


@script(says("", ("hand_to_picky", {"text": "you do it"})), says("done by picky"), says("yes"))
async def test_a_turn_that_another_agent_took_over_adds_its_answer(stage: Stage):
    await stage.do(task("boss", {"text": "do it", "session": SESSION}))
    await stage.do(turn("Done?"))
    assert asked(stage.gateway, 2) == ["do it", "done by picky", "Done?"]


@script(says("one"), says("two"))
async def test_a_turn_whose_process_was_killed_after_its_end_is_kept_before_the_next(stage: Stage):
    """The journal has its end, but its messages were not kept yet."""
    first, second = turn("1"), turn("2")
    await stage.do(first)
    del stage.book.ended[first.task_id]
    other = World(stage.bus, stage.store, book=stage.book)
    async with other.runtime:
        await other.runtime.take([again(as_delivered(second))])
        await eventually(lambda: len(stage.book.turns[CONTEXT.tenant, SESSION]) == 2)
        assert len(stage.gateway.asked) == 1
        await stage.runtime.take([again(as_delivered(first))])
        await eventually(lambda: len(stage.gateway.asked) == 2)
        await eventually(lambda: other.runtime.running == 0)
    assert asked(stage.gateway, 1) == ["1", "one", "2"]


@script()
@pytest.mark.parametrize("broken_for_good", [False, True])
async def test_a_turn_that_keeps_breaking_is_over(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, *, broken_for_good: bool
):
    async def broken(*_: Any) -> bool:
        raise ZeroDivisionError

    job = turn("1")
    monkeypatch.setattr(stage.book, "waits", broken)
    if broken_for_good:
        monkeypatch.setattr(stage.book, "end", broken)
    while job.task_id not in stage.results():
        await stage.runtime.take([again(as_delivered(job))])
        await eventually(lambda: stage.runtime.running == 0)
    assert stage.results()[job.task_id].status is TaskStatus.FAILED
    assert stage.book.ended.get(job.task_id) == (None if broken_for_good else Ending())


@script()
async def test_a_turn_that_keeps_breaking_is_not_done_before_it_is_over(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    """PostgreSQL is away just then: the turns behind it would wait for one that nobody will end."""

    async def broken(*_: Any) -> bool:
        raise ZeroDivisionError

    job, end, outages = turn("1"), stage.book.end, [Unavailable("PostgreSQL is away")]

    async def hindered(*what: Any) -> None:
        if outages:
            raise outages.pop()
        await end(*what)

    monkeypatch.setattr(stage.book, "waits", broken)
    monkeypatch.setattr(stage.book, "end", hindered)
    while job.task_id not in stage.results():
        await stage.runtime.take([again(as_delivered(job))])
        await eventually(lambda: stage.runtime.running == 0)
    assert outages == []
    assert stage.book.ended[job.task_id] == Ending()


@script(says("two"))
async def test_nobody_waits_for_a_turn_whose_plan_cannot_be_had_any_more(stage: Stage):
    """It had entered its session under another version of the runtime, say."""
    first, second = turn("1", plan="gone"), turn("2")
    await stage.book.enter(CONTEXT.tenant, SESSION, first)
    await stage.bus.publish([sent(second)])
    await eventually(lambda: second.task_id in stage.book.aside and stage.runtime.running == 0)
    await stage.bus.publish([sent(first)])
    await eventually(lambda: second.task_id in stage.results())
    assert stage.results()[first.task_id].status is TaskStatus.FAILED
    assert asked(stage.gateway, 0) == ["2"]


# ── the book ─────────────────────────────────────────────────────────────────────────────────────────────────────


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
