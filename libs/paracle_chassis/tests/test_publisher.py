"""What is published together, and in which order it leaves."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from paracle_chassis.bus import Outgoing
from paracle_chassis.frames import flushed
from paracle_chassis.routes import Routes
from paracle_chassis.testing.contracts.bus import note
from paracle_chassis.testing.eventually import eventually
from paracle_domain import subjects
from paracle_domain.errors import Unavailable

TASK = subjects.task("acme", "agents")
EVENT = subjects.evt("acme", "run", "run_1", "step_started")
COMMAND = subjects.cmd("acme", "orchestrator", "start_run")


def on(subject: str, number: int) -> Outgoing:
    return replace(note(number), subject=subject)


@pytest.mark.connected
async def test_what_is_to_be_done_goes_before_what_is_only_told(serve) -> None:
    bus = await serve(Routes("testing"))
    await bus.publish([on(EVENT, 1), on(TASK, 2)])  # makes the streams
    heard: list[str] = []

    async def hear(message) -> None:
        heard.append(message.subject)

    await bus.client.subscribe("paracle.v1.acme.>", cb=hear)
    await flushed(bus.client)
    await bus.publish([on(EVENT, 3), on(TASK, 4), on(EVENT, 5)])
    await eventually(lambda: len(heard) == 3)
    assert heard == [TASK, EVENT, EVENT]


@pytest.mark.connected
async def test_a_stream_that_does_not_store_in_time_leaves_nothing_under_way(serve) -> None:
    """Handing a command over takes a round trip, whatever the deadline is; that of the event is over at once."""
    bus = await serve(Routes("testing"))
    await bus.publish([on(EVENT, 1), on(COMMAND, 2)])  # makes the streams
    wires = [await bus._wire(on(EVENT, 3)), await bus._wire(on(COMMAND, 4))]
    with pytest.raises(Unavailable, match="1 of 1 messages could not be stored"):
        await bus._publisher.publish(wires, deadline_s=0)
    assert [task for task in asyncio.all_tasks() if "Publisher" in repr(task.get_coro())] == []
