"""What is published together, and in which order it leaves."""

from __future__ import annotations

from dataclasses import replace

import pytest

from paracle_chassis.bus import Outgoing
from paracle_chassis.routes import Routes
from paracle_chassis.testing.contracts.bus import note
from paracle_chassis.testing.eventually import eventually
from paracle_domain import subjects

TASK = subjects.task("acme", "agents")
EVENT = subjects.evt("acme", "run", "run_1", "step_started")


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
    await bus.link.check()
    await bus.publish([on(EVENT, 3), on(TASK, 4), on(EVENT, 5)])
    await eventually(lambda: len(heard) == 3)
    assert heard == [TASK, EVENT, EVENT]
