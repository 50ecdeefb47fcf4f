"""A process that is told to stop, or hangs, and what it leaves to others."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta

import pytest
from memory_ports import MemoryLeases
from runtime_peers import Gateway, says
from runtime_plan import CONTEXT, sent, task
from runtime_stage import Stage, again, as_delivered, script
from runtime_world import World

from paracle_chassis.event_store import Append
from paracle_chassis.testing.eventually import eventually


async def test_a_call_that_is_being_written_down_when_the_process_stops_is_still_made(monkeypatch: pytest.MonkeyPatch):
    """Cut off between the two, it would be in doubt although nobody ever made it."""
    stage = Stage(Gateway(says("", ("pay", {"n": 1})), None))
    stage.runtime._drain_s = 60
    append, written, gate = stage.store.append, asyncio.Event(), asyncio.Event()

    async def slow(appends: Sequence[Append]) -> set[str]:
        lost = await append(appends)
        if any(b"effect.sent" in event for one in appends for page in one.pages for event in page.events):
            written.set()
            await gate.wait()
        return lost

    monkeypatch.setattr(stage.store, "append", slow)
    job, other = task("helper"), task("nap", {"seconds": 600})
    async with stage.runtime:
        await stage.start()
        await stage.bus.publish([sent(job), sent(other)])
        await asyncio.wait_for(written.wait(), 30)
        await stage.bus.drain(0.05)
        stopping = asyncio.create_task(stage.runtime._drain())
        await eventually(lambda: list(stage.runtime._entries) == [(CONTEXT.tenant, job.task_id)])
        gate.set()
        await stopping
    assert [name for name, _ in stage.toolbox.calls if name == "pay"] == ["pay"]
    stage.gateway.script = [says(), says("paid")]
    heir = World(stage.bus, stage.store)
    async with heir.runtime:
        await heir.runtime.take([again(as_delivered(job))])
        await eventually(lambda: job.task_id in stage.results())
    assert stage.results()[job.task_id].output == "paid"
    assert heir.toolbox.calls == []


@script(says("", ("pay", {"n": 1})), says("paid"))
@pytest.mark.parametrize("taken_over", [False, True])
async def test_who_hung_before_a_call_makes_it_only_while_the_task_is_his(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, *, taken_over: bool
):
    """Whoever took the task up meanwhile knows that the call was to be made, and finds out, or makes it."""
    append, job, heir = stage.store.append, task("helper"), MemoryLeases()
    assert isinstance(stage.leases, MemoryLeases)
    owners, live = stage.leases.owners, stage.leases.live

    async def hang(appends: Sequence[Append]) -> set[str]:
        lost = await append(appends)
        if any(b"effect.sent" in event for one in appends for page in one.pages for event in page.events):
            stage.lag = timedelta(seconds=10)
            if taken_over:
                owners[job.task_id] = heir.worker
                live.add(heir.worker)
        return lost

    monkeypatch.setattr(stage.store, "append", hang)
    await stage.bus.publish([sent(job)])
    await eventually(lambda: stage.lag and stage.runtime.running == 0)
    assert [name for name, _ in stage.toolbox.calls] == ([] if taken_over else ["pay"])
