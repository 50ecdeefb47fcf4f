"""Sessions: turns one at a time, in order, whoever works on them and whatever is killed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from runtime_peers import Gateway, says
from runtime_plan import CONTEXT, SESSION, sent, task, turn
from runtime_stage import Stage, again, as_delivered, order, script
from runtime_world import World

from paracle_agent_runtime.outbox import Parcel
from paracle_agent_runtime.pools import Pools
from paracle_agent_runtime.ports import Ending, Letter
from paracle_chassis.testing.eventually import eventually
from paracle_domain.errors import ProviderFailed, Unavailable
from paracle_domain.ids import new_id
from paracle_domain.task.messages import Task, TaskStatus


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


@script(says("two"))
async def test_a_turn_that_its_run_does_not_want_is_not_waited_for(stage: Stage):
    """Its pool had no worker for long: what the cancel left behind has gone with the run, and nothing ends the turn."""
    over, second = turn("1"), turn("2")
    stage.orchestrator.over.add(over.task_id)
    await stage.bus.publish([sent(over)])
    await eventually(lambda: stage.orchestrator.asked and stage.runtime.running == 0)
    [result] = await stage.do(second)
    assert result.output == "two"
    assert stage.book.turns[CONTEXT.tenant, SESSION] == [second.task_id]


@script(says("one"), says("two"))
async def test_a_turn_that_was_done_ends_when_a_new_copy_of_it_comes_though_its_run_is_over(stage: Stage):
    """Its process died before the turn ended, and NATS lost the copy: this one does not say that it came before."""
    first, second = turn("1"), turn("2")
    await stage.do(first)
    del stage.book.ended[first.task_id]
    stage.orchestrator.over.add(first.task_id)
    await stage.bus.publish([sent(first, id=f"{first.task_id}.again")])
    await eventually(lambda: first.task_id in stage.book.ended)
    [result] = await stage.do(second)
    assert result.output == "two"


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


async def test_a_turn_behind_a_run_that_never_came_is_called_once(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    """If its pool is drained, it stays in the queue: at each look, there would be one more of it."""
    waiting, never = (turn(text, run_id=new_id("run")) for text in ("1", "never"))
    stage.orchestrator.accepted = [never.run_id, waiting.run_id]
    await stage.bus.publish([sent(waiting)])
    await eventually(lambda: stage.book.aside and stage.runtime.running == 0)
    called: list[Parcel] = []
    monkeypatch.setattr(stage.shop.outbox, "put", called.append)
    stage.orchestrator.accepted.remove(never.run_id)
    await eventually(lambda: called)
    for _ in range(3):
        await stage.shop.sessions.look()
    assert [message.message for parcel in called for message in parcel.messages] == [waiting]


async def test_a_turn_that_waits_anew_as_soon_as_it_is_called_is_looked_after_again(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    """The run before it has ended, and another one before it has its slot by now: it waits for that one to come."""
    waiting, never, late = (turn(text, run_id=new_id("run")) for text in ("1", "never", "late"))
    letter = Letter("agents", waiting, sent(waiting).envelope)
    out: list[Parcel] = []

    def comes_at_once(parcel: Parcel) -> None:
        out.append(parcel)
        if len(out) == 1:
            with pytest.raises(StopIteration):
                stage.book.set_aside(SESSION, letter, late.run_id).send(None)

    await stage.book.set_aside(SESSION, letter, never.run_id)
    monkeypatch.setattr(stage.shop.outbox, "put", comes_at_once)
    await eventually(lambda: len(out) == 2)
    assert [message.envelope.id for parcel in out for message in parcel.messages] == [
        f"{waiting.task_id}.after.{run_id}" for run_id in (never.run_id, late.run_id)
    ]


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
