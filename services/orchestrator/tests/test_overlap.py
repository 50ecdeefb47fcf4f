"""Batches that overlap: one is decided while the one before it is being stored, or fails to be."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

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
