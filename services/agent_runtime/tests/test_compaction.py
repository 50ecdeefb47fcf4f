"""Sessions that grow long: summed up once, by a call that is in the journal, with all that was said kept."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest
from memory_ports import MemoryLeases, MemorySessionBook
from runtime_peers import says
from runtime_plan import CONTEXT, sent, task
from runtime_stage import Stage, again, as_delivered, order, script
from runtime_world import World

from paracle_agent_runtime.adapters.postgres import TASK_TABLES
from paracle_agent_runtime.adapters.sessions import PostgresSessionBook, PostgresSessionShelf
from paracle_agent_runtime.ports import Ending, SessionBook
from paracle_agent_runtime.records import facts_of
from paracle_agent_runtime.session_desk import SessionDesk
from paracle_chassis import migrations
from paracle_chassis.event_store import Append, EventStore, Page, PostgresEventStore
from paracle_chassis.postgres import Database, Queries
from paracle_chassis.settings import ServiceSettings
from paracle_chassis.testing.eventually import eventually
from paracle_chassis.testing.memory_store import MemoryEventStore
from paracle_domain import subjects
from paracle_domain.errors import ContextExceeded, ProviderFailed, ProviderUnavailable
from paracle_domain.ids import new_id
from paracle_domain.inference.chat import ChatMessage
from paracle_domain.inference.usage import Usage
from paracle_domain.task.events import TaskAccepted, TaskCancelled, TaskEvent, dump_event
from paracle_domain.task.messages import Task, TaskStatus
from paracle_domain.task.output import SummaryProgress
from paracle_domain.task.past import Past, Recap, summed_up
from paracle_domain.task.sessions import GetSession

SESSION = new_id("ses")
LONG = "word " * 60  # 75 tokens


def turn(text: str, target: str = "chatty") -> Task:
    return task(target, {"text": text, "session": SESSION})


def heard(stage: Stage, number: int) -> list[str]:
    """What the nth model call was asked, each message by its first letters."""
    return [message.text[:6] for message in stage.gateway.asked[number].messages]


def counted(text: str, tokens: int) -> Any:
    return says(text).model_copy(update={"usage": Usage(input_tokens=tokens, output_tokens=1, model_calls=1)})


TALK = (counted("one", 60), counted("two", 110), counted("three", 205))


async def talked(stage: Stage) -> list[Task]:
    """Three turns, after which the session is long."""
    turns = [turn(f"{n} {LONG}") for n in (1, 2, 3)]
    await stage.do(*turns)
    return turns


def told(stage: Stage, job: Task) -> list[SummaryProgress]:
    subject = subjects.out(CONTEXT.tenant, job.task_id)
    said = [one.message for one in stage.bus.broadcasts if one.subject == subject]
    return [one for one in said if isinstance(one, SummaryProgress)]


@script(*TALK, says("SUMMARY"), says("four"), says("five"))
async def test_a_long_session_is_summed_up_once_and_kept_whole(stage: Stage):
    first = await talked(stage)
    fourth = turn("4")
    [result] = await stage.do(fourth)
    assert (result.output, result.usage.model_calls) == ("four", 2)
    assert [one.stage for one in told(stage, fourth)] == ["started", "ended"]
    assert heard(stage, 3)[0].startswith("You ke")
    assert heard(stage, 4) == ["Sum up", "SUMMAR", "3 word", "three", "4"]
    await stage.do(turn("5"))
    assert heard(stage, 5) == ["Sum up", "SUMMAR", "3 word", "three", "4", "four", "5"]
    assert [len(stage.book.ended[one.task_id].messages) for one in first] == [2, 2, 2]


@script(*TALK, says("SUMMARY"), None)
async def test_a_summary_outlives_the_cancel_of_its_turn(stage: Stage):
    await talked(stage)
    fourth = turn("4")
    await stage.bus.publish([sent(fourth)])
    await eventually(lambda: len(stage.gateway.asked) == 5)
    stage.gateway.script = [says("next")] * 9
    await stage.bus.publish([order(fourth)])
    await eventually(lambda: fourth.task_id in stage.results())
    await stage.do(turn("5"))
    assert heard(stage, 5) == ["Sum up", "SUMMAR", "3 word", "three", "5"]


@script(*TALK, None)
async def test_a_summary_that_is_under_way_ends_with_its_turn(stage: Stage):
    await talked(stage)
    fourth = turn("4")
    await stage.bus.publish([sent(fourth)])
    await eventually(lambda: len(stage.gateway.asked) == 4)
    await stage.bus.publish([order(fourth)])
    await eventually(lambda: fourth.task_id in stage.results())
    assert stage.results()[fourth.task_id].status is TaskStatus.CANCELLED
    assert stage.aborted == 1


@script(*TALK, None)
async def test_killed_while_it_is_summed_up_the_same_call_is_made_again(stage: Stage):
    await talked(stage)
    fourth = turn("4")
    await stage.runtime.take([as_first(fourth)])
    await eventually(lambda: len(stage.gateway.asked) == 4)
    stage.gateway.script = [says("unused")] * 3 + [says("SUMMARY"), says("four")]
    await killed(stage)
    other = World(stage.bus, stage.store, leases=stage.leases, book=stage.book)
    async with other.runtime:
        await other.runtime.take([again(as_delivered(fourth))])
        await eventually(lambda: fourth.task_id in stage.results())
    assert stage.gateway.asked[3].call_id == stage.gateway.asked[4].call_id
    assert stage.gateway.asked[3].messages == stage.gateway.asked[4].messages
    assert heard(stage, 5) == ["Sum up", "SUMMAR", "3 word", "three", "4"]


@script(*TALK, says("SUMMARY"), None)
async def test_killed_after_it_was_summed_up_that_is_not_done_again(stage: Stage):
    await talked(stage)
    fourth = turn("4")
    await stage.runtime.take([as_first(fourth)])
    await eventually(lambda: len(stage.gateway.asked) == 5)
    stage.gateway.script = [says("unused")] * 4 + [says("four")]
    del stage.book.recaps[fourth.task_id]
    await killed(stage)
    other = World(stage.bus, stage.store, leases=stage.leases, book=stage.book)
    async with other.runtime:
        await other.runtime.take([again(as_delivered(fourth))])
        await eventually(lambda: fourth.task_id in stage.results())
    assert stage.gateway.asked[4].call_id == stage.gateway.asked[5].call_id
    assert stage.results()[fourth.task_id].usage.model_calls == 2
    assert stage.book.recaps[fourth.task_id].summary == "SUMMARY", "the session has it, whenever the process was killed"


@script(*TALK, ProviderFailed("no"), says("four"))
async def test_a_summary_that_fails_is_told_and_nothing_is_left_out(stage: Stage):
    await talked(stage)
    fourth = turn("4")
    [result] = await stage.do(fourth)
    assert (result.status, result.output) == (TaskStatus.COMPLETED, "four")
    assert [one.error for one in told(stage, fourth)] == [None, "provider_failed"]
    assert "task.compaction_failed" in [event.type for event in stage.events(fourth)]
    assert heard(stage, 4) == ["1 word", "one", "2 word", "two", "3 word", "three", "4"]


@script(counted("one", 90), ContextExceeded("too long"), says("SUMMARY"), says("two"))
async def test_what_is_too_long_for_the_model_is_summed_up_whatever_the_policy(stage: Stage):
    await stage.do(turn(f"1 {LONG}", "helper"))
    [result] = await stage.do(turn("2", "helper"))
    assert (result.status, result.output) == (TaskStatus.COMPLETED, "two")
    assert heard(stage, 3) == ["Help.", "Sum up", "SUMMAR", "2"]


@script(*[says("", ("page", {"n": n})) for n in range(3)], ContextExceeded("too long"), says("SUMMARY"), says("done"))
async def test_a_task_that_grows_too_long_goes_on_with_a_summary(stage: Stage):
    [result] = await stage.do(task("reader", {"text": "read"}))
    assert (result.status, result.output) == (TaskStatus.COMPLETED, "done")
    assert heard(stage, 5) == ["Sum up", "SUMMAR", "read", "", "", "", ""]


def as_first(job: Task) -> Any:
    found = again(as_delivered(job))
    found.deliveries = 1
    return found


async def killed(stage: Stage) -> None:
    """Nothing of the process is left, and nobody said that it ends."""
    assert isinstance(stage.leases, MemoryLeases)
    stage.leases.live.discard(stage.leases.worker)
    for entry in list(stage.runtime._entries.values()):
        entry.stop()
    await eventually(lambda: stage.runtime.running == 0)


# ── the book ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
async def database(postgres_dsn: str) -> AsyncIterator[Database]:
    connection = await asyncpg.connect(postgres_dsn)
    await migrations.migrate(connection, migrations.load("paracle_agent_runtime"))
    await connection.close()
    async with Database(ServiceSettings(postgres_dsn=postgres_dsn), "paracle_agent_runtime") as found:
        yield found


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.connected)])
def kept(request: pytest.FixtureRequest) -> tuple[SessionBook, EventStore]:
    if request.param == "memory":
        store = MemoryEventStore()
        return MemorySessionBook(store), store
    database = request.getfixturevalue("database")
    queries = Queries.load("paracle_agent_runtime")
    return PostgresSessionBook(database.pool, queries), PostgresEventStore(database.pool, TASK_TABLES)


async def journaled(store: EventStore, job: Task, event: TaskEvent, status: TaskStatus, expected: int = 0) -> None:
    at = datetime.now(UTC)
    page = Page(expected + 1, f"test{expected}", at, (dump_event(event),))
    facts = None if expected else facts_of(job, None)
    ended = at if status.terminal else None
    append = Append(job.task_id, "default", expected, (page,), status=status, finished_at=ended, facts=facts)
    assert await store.append([append]) == set()


def said(number: int) -> tuple[ChatMessage, ...]:
    return (ChatMessage.user(f"q{number}"), ChatMessage.assistant("…"), ChatMessage.assistant(f"a{number}"))


async def test_a_turn_begins_with_the_newest_summary_that_was_made_before_it(kept: tuple[SessionBook, EventStore]):
    book, store = kept
    jobs = [turn(str(n)) for n in range(1, 6)]
    for job in jobs:
        await book.enter("default", SESSION, job)
    await book.end("default", jobs[0].task_id, Ending(said(1), 10))
    await journaled(store, jobs[1], TaskAccepted(task=jobs[1], revision=1), TaskStatus.RUNNING)
    recap = Recap(summary="S", turn=2, made_in=2, model="p/m")
    await book.sum_up("acme", jobs[1].task_id, recap)
    assert await book.past("default", SESSION, 3) == Past(3, said(1), ((0, 1),), tokens=10), "it is not acme's"
    await book.sum_up("default", jobs[1].task_id, recap)
    assert await book.past("default", SESSION, 2) == Past(2, said(1), ((0, 1),), tokens=10), "as it began"
    assert await book.past("default", SESSION, 3) == Past(3, summed_up("S"), summary=2)

    await journaled(store, jobs[1], TaskCancelled(reason="x"), TaskStatus.CANCELLED, 1)
    await book.sum_up("default", jobs[1].task_id, recap.model_copy(update={"summary": "late"}))
    assert (await book.past("default", SESSION, 3)).messages == summed_up("S"), "who came after has begun with this"

    within = Recap(summary="T", turn=3, question=0, resume=2, made_in=3, model="p/m")
    await book.end("default", jobs[2].task_id, Ending(said(3), 30, within))
    await book.end("default", jobs[2].task_id, Ending())
    await book.end("default", jobs[3].task_id, Ending(said(4)))
    began = await book.past("default", SESSION, 5)
    assert [m.text for m in began.messages[2:]] == ["q3", "a3", "q4", "…", "a4"]
    assert (began.starts, began.summary, began.tokens) == (((2, 3), (4, 4)), 2, None)
    assert (await book.past("default", SESSION, 4)).tokens == 30


@pytest.mark.connected
async def test_all_turns_are_shown_and_the_summary_that_models_are_told(database: Database):
    queries = Queries.load("paracle_agent_runtime")
    book, desk = PostgresSessionBook(database.pool, queries), SessionDesk(PostgresSessionShelf(database.pool, queries))
    job = turn("1")
    await book.enter("default", SESSION, job)
    assert (await desk.get_session(GetSession(session_id=SESSION), CONTEXT)).recap is None
    recap = Recap(summary="S", turn=1, resume=2, made_in=1, model="p/m")
    await book.end("default", job.task_id, Ending(said(1), 30, recap))
    view = await desk.get_session(GetSession(session_id=SESSION), CONTEXT)
    assert view.recap is not None
    assert view.recap.made_at is not None
    assert view.recap.model_copy(update={"made_at": None}) == recap
    assert [one.messages for one in view.turns] == [said(1)]


@script(ProviderUnavailable("away"))
async def test_nothing_is_summed_up_where_there_is_nothing(stage: Stage):
    stage.gateway.script = [says("one")] * 3
    job = turn("1")
    await stage.do(job)
    assert told(stage, job) == []
