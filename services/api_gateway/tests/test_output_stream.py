"""What tasks say, read from a real stream."""

import json
from datetime import UTC, datetime

import pytest
from api_fakes import RUN

from paracle_api_gateway.adapters.nats import NatsBells
from paracle_api_gateway.adapters.outputs import NatsOutputs
from paracle_chassis import provisioning, topology
from paracle_chassis.bus import outgoing
from paracle_chassis.nats_bus import NatsBus
from paracle_chassis.testing.eventually import eventually
from paracle_chassis.testing.infra import OpenBus
from paracle_domain import subjects
from paracle_domain.envelope import Context
from paracle_domain.errors import RateLimited, Unavailable
from paracle_domain.ids import derive_id
from paracle_domain.inference.deltas import Delta, TextDelta
from paracle_domain.inference.retrying import Retrying
from paracle_domain.task.output import BudgetProgress, SummaryProgress, ToolProgress

pytestmark = pytest.mark.connected
TASK, OTHER = derive_id("task", RUN, "a"), derive_id("task", RUN, "b")
STREAM = next(spec for spec in topology.STREAMS if spec.name == subjects.OUTPUT)


def delta(number: int) -> Delta:
    return Delta(call_id="call_a", seq=number, change=TextDelta(text="é" * 30))


@pytest.fixture
async def bus(open_bus: OpenBus) -> NatsBus:
    found = await open_bus("provider_gateway")
    await provisioning.ensure_stream(found.client, STREAM, topology.PLAIN)
    return found


@pytest.fixture
def outputs(bus: NatsBus) -> NatsOutputs:
    return NatsOutputs(bus.link, NatsBells(bus.link))


async def say(bus: NatsBus, *said, task=TASK, tenant="default"):
    await bus.publish(
        [outgoing(subjects.out(tenant, task), one, Context(tenant=tenant), source="paracle/test") for one in said]
    )


async def test_pages_of_one_task_in_order(bus: NatsBus, outputs: NatsOutputs):
    assert await outputs.read("default", TASK, 0, 10) == []
    progress = ToolProgress(call_id="call_b", tool="search", stage="ended", duration_s=0.5)
    for number in range(5):
        await say(bus, delta(number))
        await say(bus, delta(number), task=OTHER)
        await say(bus, delta(number), tenant="acme")
    summary = SummaryProgress(call_id="call_c", stage="started")
    budget = BudgetProgress(approval_id="apr_1", budget="team", stage="held")
    retrying = Retrying(call_id="call_d", error=RateLimited("busy").to_info(), tried=1, at=datetime.now(UTC))
    await say(bus, progress, summary, budget, retrying)
    first = await outputs.read("default", TASK, 0, 4)
    assert [(heard.seq, heard.said) for heard in first] == [(1 + 3 * number, delta(number)) for number in range(4)]
    rest = await outputs.read("default", TASK, first[-1].seq, 4)
    assert [heard.said for heard in rest] == [delta(4), progress, summary, budget]
    rest = await outputs.read("default", TASK, rest[-1].seq, 4)
    assert [heard.said for heard in rest] == [retrying]
    assert await outputs.read("default", TASK, rest[-1].seq, 4) == []


async def test_what_is_malformed_or_unknown_is_passed_over(bus: NatsBus, outputs: NatsOutputs):
    await say(bus, delta(0))
    subject = subjects.out("default", TASK)
    await bus.client.publish(subject, b"not JSON", headers={"ce-type": "inference.delta"})
    await bus.client.publish(subject, json.dumps({"new": True}).encode(), headers={"ce-type": "task.song"})
    await bus.client.publish(subject, b"bare")
    await say(bus, delta(1))
    assert [heard.said for heard in await outputs.read("default", TASK, 0, 10)] == [delta(0), delta(1)]
    assert [heard.said for heard in await outputs.read("default", TASK, 1, 1)] == [delta(1)]


async def test_a_stream_that_was_made_anew_is_read_from_its_start(bus: NatsBus, outputs: NatsOutputs):
    await say(bus, *(delta(number) for number in range(9)))
    await bus.client.jetstream().delete_stream(subjects.OUTPUT)
    await provisioning.ensure_stream(bus.client, STREAM, topology.PLAIN)
    assert await outputs.read("default", TASK, 9, 10) == []
    await say(bus, delta(9))
    assert [(heard.seq, heard.said) for heard in await outputs.read("default", TASK, 9, 10)] == [(1, delta(9))]


async def test_without_the_stream_nothing_can_be_read(bus: NatsBus, outputs: NatsOutputs):
    await bus.client.jetstream().delete_stream(subjects.OUTPUT)
    with pytest.raises(Unavailable, match="503"):
        await outputs.read("default", TASK, 0, 10)


async def test_it_rings_for_words_and_for_events(bus: NatsBus, outputs: NatsOutputs):
    async with outputs.watch("default", TASK) as (said, happened):
        await say(bus, delta(0), task=OTHER)
        await say(bus, delta(0))
        await eventually(said.is_set)
        assert not happened.is_set()
        await bus.client.publish(subjects.evt("default", "task", TASK, "task_completed"), b"{}")
        await eventually(happened.is_set)
