"""Mailboxes, over real NATS."""

import asyncio

import pytest
from paracle_chassis.testing.sample import Note

from paracle_chassis.bus import outgoing
from paracle_chassis.routes import Routes
from paracle_chassis.testing.eventually import eventually
from paracle_domain import subjects
from paracle_domain.envelope import Context

pytestmark = pytest.mark.connected
CONTEXT = Context("acme")


def note(number: int, *, text: str = "n", id: str | None = None):
    message = Note(text=text, number=number)
    return outgoing(subjects.task("acme", "agents"), message, CONTEXT, source="test", id=id or f"note-{number}")


def mailbox(handler, **options) -> Routes:
    table = Routes("testing")
    table.mailbox(
        stream=subjects.TASKS, durable="testing", filter="paracle.v1.*.task.agents", handler=handler, **options
    )
    return table


async def test_everything_published_is_handled_once_and_gone_from_the_stream(serve):
    seen: list[int] = []

    async def keep(batch):
        seen.extend(delivery.decode(Note).number for delivery in batch)

    bus = await serve(mailbox(keep))
    await bus.publish([note(number) for number in range(2000)])
    await eventually(lambda: len(seen) == 2000)
    assert seen == list(range(2000))
    jetstream = bus.client.jsm()

    async def empty() -> bool:
        return (await jetstream.stream_info(subjects.TASKS)).state.messages == 0

    await eventually(empty)
