"""Failover over real NATS and real sockets: a deployment that dies, is left alone, and is found again when it heals."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from memory_registry import MemoryRegistry
from provider_gateway_samples import CONTEXT, TASK, ask
from served_gateway import served

from paracle_chassis.nats_bus import NatsBus
from paracle_chassis.testing.eventually import eventually
from paracle_chassis.testing.fake_openai import FakeOpenAI
from paracle_chassis.testing.infra import OpenBus
from paracle_chassis.testing.wire import Turn, fail, reset, say
from paracle_domain.inference.request import ListModels
from paracle_domain.inference.response import BreakerState, Completion

pytestmark = pytest.mark.connected
HANG_S = 0.3
CALLS = 12


@dataclass
class World:
    """A caller's bus, with the service behind NATS, and two servers of one model."""

    bus: NatsBus
    ailing: FakeOpenAI
    sound: FakeOpenAI

    async def call(self, *, stream: bool) -> Completion:
        request = ask(model="steady", stream_to=TASK if stream else None)
        return await self.bus.call(request, CONTEXT, timeout_s=20)


@pytest.fixture
async def world(nats_url: str, postgres_dsn: str, open_bus: OpenBus) -> AsyncIterator[World]:
    async with FakeOpenAI() as ailing, FakeOpenAI() as sound:
        registry = MemoryRegistry()
        registry.provider("ailing", base_url=ailing.url, timeouts={"total_s": HANG_S})
        registry.provider("sound", base_url=sound.url)
        registry.model("steady", "ailing/m", "sound/m")
        ailing.otherwise, sound.otherwise = say("Well again."), say("Always here.")
        async with served(nats_url, postgres_dsn, open_bus, registry, breaker_cooldown_s=0.5) as bus:
            yield World(bus, ailing, sound)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    "turn",
    [fail(500), fail(401), reset(), Turn(text="Never comes.", hang_after=0)],
    ids=["500", "bad key", "reset", "hang"],
)
async def test_every_call_is_answered_and_the_dead_is_asked_five_times(world: World, turn: Turn, stream: bool):
    world.ailing.otherwise = turn
    answers = [await world.call(stream=stream) for _ in range(CALLS)]
    assert {answer.message.text for answer in answers} == {"Always here."}
    assert {answer.deployment for answer in answers} == {"sound/m"}
    assert len(world.sound.journal) == CALLS
    probes = len(world.ailing.journal) - 5
    assert 0 <= probes <= CALLS - 5, "five failures stop all calls but the probes of half a second and more"
    assert [answer.attempts for answer in answers[:5]] == [2] * 5
    assert sum(answer.attempts for answer in answers) == len(world.ailing.journal) + len(world.sound.journal)


async def test_it_is_found_again_when_it_heals_and_the_list_shows_all_that(world: World):
    world.ailing.otherwise = fail(503, message="on fire")
    for _ in range(5):
        await world.call(stream=False)
    listed = await world.bus.call(ListModels(), CONTEXT)
    shown = next(model for model in listed.models if model.name == "steady")
    assert shown.breaker in {BreakerState.OPEN, BreakerState.HALF_OPEN}
    assert shown.trouble is not None
    assert "on fire" in shown.trouble
    world.ailing.otherwise = say("Well again.")

    async def healed() -> bool:
        return (await world.call(stream=False)).deployment == "ailing/m"

    await eventually(healed)
    listed = await world.bus.call(ListModels(), CONTEXT)
    assert next(model.breaker for model in listed.models if model.name == "steady") is BreakerState.CLOSED


async def test_many_at_once_wait_for_nobody(world: World):
    world.ailing.otherwise = Turn(text="Never comes.", hang_after=0)
    answers = await asyncio.gather(*(world.call(stream=False) for _ in range(40)))
    assert {answer.deployment for answer in answers} == {"sound/m"}
    late = await world.call(stream=False)
    assert late.attempts <= 2
