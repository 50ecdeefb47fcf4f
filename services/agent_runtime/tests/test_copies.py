"""Tasks that come more than once: handed out again by their run, or delivered again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Self, override

import pytest
from memory_ports import MemoryLeases
from runtime_peers import Gateway
from runtime_plan import CONTEXT, sent, task
from runtime_stage import Stage, again, as_delivered, order, script
from runtime_world import World

from paracle_agent_runtime import plain
from paracle_chassis.delivery import Delivery
from paracle_chassis.inlet import Incoming
from paracle_chassis.receipts import NoReceipt
from paracle_chassis.testing.eventually import eventually
from paracle_domain import subjects
from paracle_domain.errors import InternalError, NotFound, Unavailable
from paracle_domain.task.wanted import WantedTasks


@script(None)
async def test_a_copy_of_a_running_task_stands_for_it_and_the_one_before_is_acked(stage: Stage):
    """A run hands out again what takes long: of however many copies, one is unacked."""
    job = task("helper")
    await stage.bus.publish([sent(job)])
    await eventually(lambda: stage.gateway.asked)
    entry = stage.runtime._entries[CONTEXT.tenant, job.task_id]
    [original] = entry.deliveries
    await stage.bus.publish([sent(job, id="again")])
    await eventually(lambda: entry.came_again)
    [copy] = entry.deliveries
    assert (original.settled, copy.settled) == (True, False)
    await entry.come_again(redelivered := Delivery(copy._message, NoReceipt(), stream_seq=copy.stream_seq))
    assert entry.deliveries == [copy, redelivered], "it is the same message, and may have come in a bundle each time"
    assert not copy.settled
    assert len(stage.gateway.asked) == 1


@script(None)
async def test_what_another_tenant_calls_the_same_stands_for_nobodys_task(stage: Stage):
    """Else the one that is worked on would be acked for it, and be lost with this process."""
    job = task("helper")
    await stage.bus.publish([sent(job)])
    await eventually(lambda: stage.gateway.asked)
    [original] = stage.runtime._entries[CONTEXT.tenant, job.task_id].deliveries
    await stage.bus.publish([sent(job, "evil", id="theirs")])
    await eventually(lambda: subjects.result("evil", job.run_id) in {out.subject for out in stage.bus.published})
    result = stage.results()[job.task_id]
    assert result.error is not None
    assert result.error.code == NotFound.code
    assert stage.runtime._entries[CONTEXT.tenant, job.task_id].deliveries == [original]
    assert not original.settled


@script(None)
async def test_a_copy_that_comes_while_its_task_is_released_is_given_back_with_it(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    """Worked on at once, it would lose its lease to that, and another process could take it up beside this one."""
    job = task("helper")
    release, releasing, gate = stage.leases.release, asyncio.Event(), asyncio.Event()

    async def slow(task_id: str) -> None:
        releasing.set()
        await gate.wait()
        await release(task_id)

    monkeypatch.setattr(stage.leases, "release", slow)
    await stage.bus.publish([sent(job)])
    await eventually(lambda: stage.gateway.asked)
    entry = stage.runtime._entries[CONTEXT.tenant, job.task_id]
    entry.stop()
    await asyncio.wait_for(releasing.wait(), 30)
    copy, receipt = as_delivered(job), Noted()
    message = Incoming(copy.subject, "", copy.body, headers=copy.headers)
    await stage.runtime.take([Delivery(message, receipt, deliveries=2, stream_seq=99)])
    await stage.bus.publish([order(job)])
    assert stage.runtime._entries[CONTEXT.tenant, job.task_id] is entry
    gate.set()
    await eventually(lambda: receipt.words)
    assert receipt.words == ["nak 0"]


@script(None)
@pytest.mark.parametrize(("tries", "acked"), [(19, False), (20, True)])
async def test_a_copy_that_does_not_find_its_owner_is_let_go(stage: Stage, tries: int, acked: bool):
    """Else it would go round for ever, and at last be buried as if it had killed those whom it came to."""
    job = task("helper")
    other = MemoryLeases()
    assert isinstance(stage.leases, MemoryLeases)
    stage.leases.live.add(other.worker)
    stage.leases.owners[job.task_id] = other.worker
    await stage.bus.publish([sent(job)])
    await eventually(lambda: stage.gateway.asked)
    rival, receipt = World(stage.bus, stage.store, stage.leases), Noted()
    async with rival.runtime:
        copy = as_delivered(job)
        message = Incoming(copy.subject, "", copy.body, headers=copy.headers)
        await rival.runtime.take([Delivery(message, receipt, deliveries=tries)])
        await eventually(lambda: receipt.words)
    assert receipt.words == (["ack"] if acked else ["nak 30"])


async def test_a_tool_that_leaves_no_history_is_called_again_only_while_its_run_waits(stage: Stage):
    """Behind each task that waited for its pool there are copies of it: they are not to be worked off, too."""
    over, open_ = task("look", {"n": 1}), task("look", {"n": 2})
    await stage.do(over, open_)
    stage.orchestrator.over.add(over.task_id)
    for job, called in ((over, 2), (open_, 3)):
        await stage.bus.publish([sent(job, id=f"{job.task_id}.again.1")])
        await stage.runtime.take([again(as_delivered(job))])  # the copy finds it in hand
        await eventually(lambda: stage.runtime.running == 0)
        assert len(stage.toolbox.calls) == called
    await stage.bus.publish([sent(job, id=f"{job.task_id}.again.2") for job in (over, open_)])
    await eventually(lambda: len(stage.toolbox.calls) == 4 and stage.runtime.running == 0)


async def test_a_long_tool_that_leaves_no_history_is_done_by_one_live_process(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    """A run hands out again what takes long, and the copy may come to any replica."""
    monkeypatch.setattr(plain, "MOMENT_S", 0)
    job = task("nap", {"seconds": 600})
    await stage.bus.publish([sent(job)])
    await eventually(lambda: stage.toolbox.calls)
    await stage.runtime._beat()
    assert isinstance(stage.leases, MemoryLeases)
    rival, receipt = World(stage.bus, stage.store, MemoryLeases(stage.leases)), Noted()
    out = sent(job, id=f"{job.task_id}.again.1")

    async def copy_comes() -> None:
        message = Incoming(out.subject, "", job.encode(), headers=out.envelope.headers())
        await rival.runtime.take([Delivery(message, receipt)])

    async with rival.runtime:
        await copy_comes()
        await eventually(lambda: receipt.words)
        assert (receipt.words, rival.toolbox.calls) == (["nak 3"], [])
        stage.leases.live.discard(stage.leases.worker)
        await copy_comes()
        await eventually(lambda: rival.toolbox.calls)


async def test_what_a_process_gives_back_when_it_stops_is_anybodys_at_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(plain, "MOMENT_S", 0)
    stage = Stage(Gateway())
    assert isinstance(stage.leases, MemoryLeases)
    job, other = task("nap", {"seconds": 600}), MemoryLeases(stage.leases)
    drain, told = stage.runtime._drain, []

    async def drained() -> None:
        told.append(await other.elsewhere(f"{CONTEXT.tenant}/{job.task_id}"))
        await drain()

    monkeypatch.setattr(stage.runtime, "_drain", drained)
    async with stage.runtime:
        await stage.start()
        await stage.bus.publish([sent(job)])
        await eventually(lambda: stage.toolbox.calls)
        await stage.runtime._beat()
        assert await other.elsewhere(f"{CONTEXT.tenant}/{job.task_id}")
        await stage.bus.drain(0.05)
    assert told == [False]


async def test_a_process_that_cannot_say_that_it_stops_gives_back_what_it_has_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
):
    async def hangs(*_said: object) -> None:
        await asyncio.Event().wait()

    stage = Stage(Gateway(), beat_s=0.05)
    async with asyncio.timeout(60), stage.runtime:
        await stage.start()
        await stage.bus.publish([sent(task("nap", {"seconds": 600}))])
        await eventually(lambda: stage.toolbox.calls)
        monkeypatch.setattr(stage.leases, "beat", hangs)
        await stage.bus.drain(0.05)
    assert stage.runtime.running == 0


async def test_a_run_that_cannot_say_what_it_waits_for_is_taken_to_wait(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    answers: list[Exception] = [InternalError("its history is damaged"), Unavailable("the orchestrator is away")]

    async def broken(*_: Any) -> WantedTasks:
        raise answers.pop()

    monkeypatch.setattr(stage.shop.wanted._runs, "waits_for", broken)
    job = task("look", {"n": 1})
    await stage.bus.publish([sent(job, id="again")])
    await eventually(lambda: job.task_id in stage.results())
    assert answers == []


class Noted(NoReceipt):
    """Remembers how it was settled."""

    def __init__(self) -> None:
        self.words: list[str] = []

    @override
    async def ack_with(self, others: Sequence[Self]) -> None:
        self.words.append("ack")

    @override
    async def nak(self, delay_s: float) -> None:
        self.words.append(f"nak {delay_s:g}")
