"""Batches that overlap: one is decided while the one before it is being stored, or fails to be."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import pytest

from paracle_chassis.bus import Outgoing
from paracle_chassis.event_store import Append
from paracle_chassis.testing.eventually import eventually
from paracle_domain.envelope import Context
from paracle_domain.errors import Unavailable
from paracle_domain.run.commands import GetRun, RunStatus

CALL = Context("acme")


class Gate:
    """An event store whose appends wait until they are let through, or told to fail."""

    def __init__(self, store: Any) -> None:
        self._append = store.append
        self.waiting: list[tuple[Sequence[Append], asyncio.Future[None]]] = []
        store.append = self.append

    async def append(self, appends: Sequence[Append]) -> set[str]:
        opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append((appends, opened))
        await opened
        lost: set[str] = await self._append(appends)
        return lost

    async def open(self, error: Exception | None = None) -> None:
        """Let the append that waits longest through, or fail."""
        await eventually(lambda: self.waiting)
        _, opened = self.waiting.pop(0)
        if error is None:
            opened.set_result(None)
        else:
            opened.set_exception(error)


@pytest.fixture
async def fork(desk: Any, tools: Any) -> tuple[Any, str, Any, Any]:
    """A run in which two steps run side by side, and a gate before the store."""
    desk.knows("fork", tools.plan_of({"id": "a"}, {"id": "b"}, {"id": "c", "needs": ["a", "b"]}))
    run_id = await desk.start("fork")
    first, second = tools.tasks(desk.bus.take())
    return Gate(desk.store), run_id, first, second


async def test_a_batch_is_decided_from_what_the_one_before_it_leads_to(desk: Any, tools: Any, fork: Any) -> None:
    gate, run_id, first, second = fork
    one = asyncio.create_task(desk.finish(first))
    await eventually(lambda: gate.waiting)
    two = asyncio.create_task(desk.finish(second))
    await gate.open()
    await one
    await eventually(lambda: gate.waiting)
    (append,) = gate.waiting[0][0]
    assert append.expected == 4  # the first batch's event is counted already
    await gate.open()
    await two
    assert [task.step for task in tools.tasks(desk.bus.take())] == ["c"]
    assert desk.store.writes == 3
    view = await desk.service.get_run(GetRun(run_id=run_id), CALL)
    assert view.last_seq == 6


async def test_what_was_decided_from_what_was_never_stored_is_decided_again(desk: Any, tools: Any, fork: Any) -> None:
    gate, run_id, first, second = fork
    one = asyncio.create_task(desk.finish(first))
    await eventually(lambda: gate.waiting)
    two = asyncio.create_task(desk.finish(second))
    await gate.open(Unavailable("PostgreSQL is away"))
    with pytest.raises(Unavailable):
        await one
    await gate.open()
    await two
    assert tools.tasks(desk.bus.take()) == []
    three = asyncio.create_task(desk.finish(first, deliveries=2))
    await gate.open()
    await three
    assert [task.step for task in tools.tasks(desk.bus.take())] == ["c"]
    view = await desk.service.get_run(GetRun(run_id=run_id), CALL)
    assert view.run.status is RunStatus.RUNNING
    assert view.last_seq == 6


async def test_the_same_mail_in_two_batches_at_once_happens_once(desk: Any, tools: Any, fork: Any) -> None:
    gate, run_id, first, _ = fork
    both = [asyncio.create_task(desk.finish(first)), asyncio.create_task(desk.finish(first, deliveries=2))]
    await gate.open()
    await asyncio.gather(*both)
    assert gate.waiting == []
    assert len(tools.events(desk.bus.take())) == 2  # told once, and once more to whoever sent it again
    view = await desk.service.get_run(GetRun(run_id=run_id), CALL)
    assert view.last_seq == 4


async def test_what_happened_to_a_run_is_told_in_its_order(desk: Any, tools: Any) -> None:
    desk.knows("fork", tools.plan_of({"id": "a"}, {"id": "b"}))
    desk.knows("ask", tools.plan_of({"id": "a"}, {"id": "ok", "needs": ["a"], "approval": {"ask": "Refund?"}}))
    run_id, _ = await desk.start("fork"), await desk.start("ask", key="2")
    first, second, other = tools.tasks(desk.bus.take())
    listed, show = asyncio.Event(), desk.approvals.show

    async def slowly(approvals: Any) -> None:
        await listed.wait()
        await show(approvals)

    desk.approvals.show = slowly
    one = asyncio.create_task(desk.service.take_in([tools.result(first), tools.result(other)]))
    await eventually(lambda: desk.store.writes == 4)
    two = asyncio.create_task(desk.finish(second))
    for _ in range(100):
        await asyncio.sleep(0)
        assert desk.store.writes == 4, "what comes for the same run waits until it is told"
    listed.set()
    await asyncio.gather(one, two)
    assert [event["seq"] for event in tools.events(desk.bus.take()) if event["id"] == run_id] == [4, 5, 6]


async def test_a_run_that_cannot_be_told_of_holds_up_no_other_and_lets_go_when_it_is_stored(
    desk: Any, tools: Any, fork: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, run_id, first, second = fork

    def pack(message: Outgoing) -> Outgoing:
        if run_id in message.subject:
            raise ValueError("a bug")
        return message

    desk.knows("other", tools.plan_of({"id": "x"}))
    starting = asyncio.create_task(desk.start("other", key="2"))
    await gate.open()
    sound = await starting
    (other,) = tools.tasks(desk.bus.take())
    with monkeypatch.context() as patched:
        patched.setattr(desk.bus, "packer", lambda: pack)
        one = asyncio.create_task(desk.service.take_in([tools.result(first), tools.result(other)]))
        await eventually(lambda: gate.waiting)
        two = asyncio.create_task(desk.finish(second))
        for _ in range(100):
            await asyncio.sleep(0)
        assert not one.done(), "what is written is not stored yet"
        assert len(gate.waiting) == 1, "and the run is not handled side by side with it"
        await gate.open()
        with pytest.raises(ValueError, match="a bug"):
            await one
        assert {event["id"] for event in tools.events(desk.bus.take())} == {sound}
    await gate.open()
    await two
    await desk.finish(first, deliveries=2)
    assert {event["seq"] for event in tools.events(desk.bus.take()) if event["id"] == run_id} == {4, 5, 6}


async def test_what_could_not_be_told_holds_up_nothing(desk: Any, tools: Any, fork: Any) -> None:
    gate, run_id, first, second = fork
    desk.bus.broken = 1
    one = asyncio.create_task(desk.finish(first))
    await eventually(lambda: gate.waiting)
    two = asyncio.create_task(desk.finish(second))
    await gate.open()
    await gate.open()
    with pytest.raises(Unavailable):
        await one
    await two
    await desk.finish(first, deliveries=2)
    assert {event["seq"] for event in tools.events(desk.bus.take()) if event["id"] == run_id} == {4, 5, 6}


async def test_a_replica_that_was_first_is_heard_by_all_batches(desk: Any, replica: Any, tools: Any, fork: Any) -> None:
    gate, run_id, first, second = fork
    one = asyncio.create_task(desk.finish(first))
    await eventually(lambda: gate.waiting)
    two = asyncio.create_task(desk.finish(second))
    await eventually(lambda: len(gate.waiting) == 1)
    elsewhere = asyncio.create_task(replica.finish(first))
    await eventually(lambda: len(gate.waiting) == 2)
    gate.waiting.reverse()
    await gate.open()
    await elsewhere
    await gate.open()
    await one
    await gate.open()
    await two
    assert [task.step for task in tools.tasks(desk.bus.take())] == ["c"]
    view = await replica.service.get_run(GetRun(run_id=run_id), CALL)
    assert view.last_seq == 6


class Weather:
    """What a store, shared by replicas, does to their batches: it takes its time, and is away at times."""

    def __init__(self, store: Any, chance: random.Random) -> None:
        self._append, self._load = store.append, store.load
        self._chance = chance
        store.append, store.load = self.append, self.load

    async def append(self, appends: Sequence[Append]) -> set[str]:
        await self._pass()
        lost: set[str] = await self._append(appends)
        await self._pass()
        return lost

    async def load(self, *arguments: Any) -> Any:
        await self._pass()
        found = await self._load(*arguments)
        await self._pass()
        return found

    async def _pass(self) -> None:
        for _ in range(self._chance.randrange(4)):
            await asyncio.sleep(0)
        if self._chance.random() < 0.05:
            raise Unavailable("PostgreSQL is away")


@pytest.mark.parametrize("seed", range(60))
async def test_replicas_that_hear_of_the_same_runs_at_once_forget_nothing(tools: Any, seed: int) -> None:
    """Each has two batches in hand, some of which fail, before or after they were stored, and come again."""
    chance = random.Random(seed)
    desk = tools.desk(cached=chance.randint(2, 4))
    each = {"id": "each", "map": {"over": list(range(20)), "tool": "t"}, "needs": ["one"]}
    desk.knows("wide", tools.plan_of({"id": "one"}, each))
    runs = [await desk.start("wide", key=f"msg-{number}") for number in range(3)]
    replicas = [desk, tools.desk(desk, cached=2)]
    for first in tools.tasks(desk.bus.take()):
        await chance.choice(replicas).finish(first)
    results = [tools.result(task) for task in tools.tasks(desk.bus.take())]
    chance.shuffle(results)
    _ = Weather(desk.store, chance)

    async def work(replica: Any) -> None:
        while batch := [results.pop() for _ in range(min(len(results), chance.randint(1, 12)))]:
            while not await _taken(replica, batch):
                pass

    await asyncio.gather(*(work(replica) for replica in replicas * 2))
    assert {(await _whole(desk, run_id)).state.status for run_id in runs} == {RunStatus.COMPLETED}


async def _taken(replica: Any, batch: Sequence[Any]) -> bool:
    """Whether the mailbox is done with `batch`; what an outage held up, it hands over again."""
    for one in batch:
        one.handed_over += 1
    try:
        await replica.service.take_in(batch)
    except Unavailable:
        return False
    return True


async def _whole(replica: Any, run_id: str) -> Any:
    while True:
        try:
            return await replica.host.read(run_id)
        except Unavailable:
            continue


async def test_no_mail_is_taken_for_done_because_of_what_is_never_stored(
    desk: Any, replica: Any, tools: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A result comes while this replica builds on a state that another one has left behind, without its step."""
    desk.knows("w", tools.plan_of({"id": "a"}, {"id": "b", "needs": ["a"]}, {"id": "x"}, {"id": "y"}))
    run_id = await desk.start("w")
    first = {task.step: task for task in tools.tasks(desk.bus.take())}
    gate, loads = Gate(desk.store), asyncio.Event()
    load = desk.store.load

    async def held(*given: Any) -> Any:
        await loads.wait()
        return await load(*given)

    one = asyncio.create_task(desk.finish(first["x"]))
    await eventually(lambda: gate.waiting)
    elsewhere = asyncio.create_task(replica.finish(first["a"]))
    await eventually(lambda: len(gate.waiting) == 2)
    gate.waiting.reverse()
    await gate.open()
    await elsewhere
    (last,) = tools.tasks(desk.bus.take())
    monkeypatch.setattr(desk.store, "load", held)
    two = asyncio.create_task(desk.finish(last))
    await asyncio.sleep(0)
    await gate.open()
    await eventually(lambda: not gate.waiting)
    three = asyncio.create_task(desk.finish(first["y"]))
    for _ in range(100):
        await asyncio.sleep(0)
        assert not gate.waiting, "nobody builds on what is not known yet"
    loads.set()
    everything = asyncio.gather(one, two, three)
    while not everything.done():
        await eventually(lambda: gate.waiting or everything.done())
        if gate.waiting:
            await gate.open()
    await everything
    view = await desk.service.get_run(GetRun(run_id=run_id), CALL)
    assert view.run.status is RunStatus.COMPLETED
