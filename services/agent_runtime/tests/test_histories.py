"""Histories of tasks, read by those who missed an event: over PostgreSQL and in memory."""

from __future__ import annotations

from typing import Any

import pytest
from runtime_peers import Gateway, Orchestrator, says
from runtime_plan import CONTEXT, sent, task
from runtime_world import World

from paracle_chassis.testing.eventually import eventually
from paracle_chassis.testing.memory import MemoryBus
from paracle_chassis.testing.memory_store import MemoryEventStore
from paracle_domain.envelope import Context
from paracle_domain.errors import NotFound
from paracle_domain.machine import EventRecord
from paracle_domain.task.messages import GetTaskEvents


@pytest.fixture
async def bus() -> Any:
    """A bus over which an agent has called tools and answered, and a tool that changes nothing was called."""
    made = MemoryBus()
    gateway = Gateway(says("", ("look", {"n": 1}), ("save", {"a": 1})), says("done"))
    world = World(made, MemoryEventStore())
    async with world.runtime:
        for table in (Orchestrator().routes(), gateway.routes(), world.routes):
            await made.serve(table)
        yield made
        await made.drain()


def published(bus: MemoryBus, task_id: str) -> list[EventRecord]:
    told = [item for item in bus.published if item.envelope.type == EventRecord.type_name]
    records = [EventRecord.model_validate_json(item.message.encode()) for item in told]
    return [event for record in records if record.id == task_id for event in record.each()]


async def test_a_history_is_what_was_published_from_any_cursor(bus: MemoryBus) -> None:
    job = task("helper", "hello")
    await bus.publish([sent(job)])
    await eventually(lambda: "task.completed" in [event.type for event in published(bus, job.task_id)])
    events = published(bus, job.task_id)
    for after in range(len(events) + 1):
        for limit in (1, 3, 100):
            page = await bus.call(GetTaskEvents(task_id=job.task_id, after=after, limit=limit), CONTEXT)
            assert list(page.events) == events[after : after + limit]
            assert page.terminal == (after + limit >= len(events))


async def test_what_is_not_journaled_or_not_ours_is_not_found(bus: MemoryBus) -> None:
    pure, ours = task("look", {}), task("helper", "hello")
    await bus.publish([sent(pure), sent(ours)])
    await eventually(lambda: "task.completed" in [event.type for event in published(bus, ours.task_id)])
    for task_id, call in ((pure.task_id, CONTEXT), (ours.task_id, Context("evil"))):
        with pytest.raises(NotFound, match="no history"):
            await bus.call(GetTaskEvents(task_id=task_id), call)
