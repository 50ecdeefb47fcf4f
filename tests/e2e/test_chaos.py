"""Rounds of `kill -9` of whatever chance picks, under a load of many kinds of runs. `CHAOS_ROUNDS` and `CHAOS_SEED`
choose how many and which; a failure names its round, which can be run again alone.
"""

from __future__ import annotations

import asyncio
import os
import random

import nats
import pytest
from tests.e2e.load import loaded
from tests.e2e.test_kills import SIZES, VICTIMS
from tests.e2e.world import System

ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "20"))
SEED = os.environ.get("CHAOS_SEED", "harbour")
STEPS = 100

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]


@pytest.mark.parametrize("number", range(ROUNDS))
async def test_nothing_is_lost_whatever_is_killed(system: System, number: int) -> None:
    chance = random.Random(f"{SEED} {number}")
    blows = sorted(chance.sample(range(1, STEPS), k=chance.choice((1, 2, 3))))
    async with loaded(system) as load, asyncio.timeout(240):
        await load.start(**SIZES)
        for steps in blows:
            await load.progress(steps)
            await strike(system, chance.sample(VICTIMS, k=chance.choice((1, 1, 2))))
        await load.check()


async def strike(system: System, victims: list[str]) -> None:
    """Kill all of them, then start them again: what the others stand on first."""
    for victim in victims:
        system.stack.kill(victim)
    await asyncio.to_thread(system.stack.up)


@pytest.mark.parametrize("number", range(ROUNDS // 10))
async def test_streams_that_are_deleted_only_cost_time(system: System, number: int) -> None:
    """PostgreSQL is the truth: what JetStream held is said again."""
    steps = random.Random(f"{SEED} streams {number}").randrange(8, 60)
    async with loaded(system) as load, asyncio.timeout(280):
        await load.start(**SIZES)
        await load.progress(steps)
        client = await nats.connect(system.stack.nats_url)
        try:
            jetstream = client.jsm()
            names = [stream.config.name for stream in await jetstream.streams_info()]
            assert {"COMMANDS", "TASKS", "RESULTS", "EVENTS"} <= set(names)
            for name in names:
                assert name is not None
                await jetstream.delete_stream(name)
        finally:
            await client.close()
        await load.check()
