"""Several processes of one service: they share the work, and one that hangs is no loss."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import httpx2
import pytest
from tests.e2e.load import Load, loaded
from tests.e2e.world import System

from paracle_chassis.testing.eventually import eventually

log = logging.getLogger(__name__)

TAKEOVER_S = 15.0
"""What users are promised."""
NOISE = 2.0
"""What a machine that is busy with other things adds to it."""


@pytest.mark.parametrize("number", [2, 4, 8])
async def test_orchestrators_share_the_work_by_themselves(system: System, number: int) -> None:
    await asyncio.to_thread(system.scale, orchestrator=number)
    async with loaded(system) as load, asyncio.timeout(110):
        before = await eventually(partial(said_by, system, "orchestrator", number))

        async def shared() -> bool:
            """Nobody is idle: each says a fifth of an even share at least, once it had the time to."""
            more = Load(system, load.client)
            await more.start(chains=60, once=4, notes=4)
            await more.check()
            after = await said_by(system, "orchestrator", number)
            assert after.keys() == before.keys()
            shares = [after[one] - before[one] for one in after]
            assert min(shares) * number * 5 > sum(shares), shares
            return True

        await eventually(shared, within_s=90)


@pytest.mark.parametrize("service", ["orchestrator", "agent_runtime"])
async def test_a_replica_that_hangs_is_taken_over_and_does_no_harm_when_it_wakes(system: System, service: str) -> None:
    await asyncio.to_thread(system.scale, orchestrator=2, agent_runtime=2)
    chance = random.Random(f"hang {service}")
    name, moment = chance.choice([service, f"{service}-2"]), chance.randrange(8, 60)
    async with loaded(system) as load, asyncio.timeout(110):
        await load.start(chains=30, once=0, notes=4)
        await load.progress(moment)
        async with hung(system, name):
            began = time.monotonic()
            await later(load)
            await asyncio.wait_for(load.ended(), TAKEOVER_S * NOISE)
            log.info("%s hangs: all runs had ended after %.1f s", name, time.monotonic() - began)
        await load.check()
        woken = Load(system, load.client)
        await woken.start(chains=10, once=2, notes=2)
        await woken.check()
        await load.check()


async def later(load: Load) -> None:
    """Runs that start while nobody has noticed yet."""
    more = Load(load.system, load.client)
    await more.start(chains=10, once=0, notes=0)
    load.chains |= more.chains


@asynccontextmanager
async def hung(system: System, name: str) -> AsyncIterator[None]:
    """Stopped as if its machine stood still, and then woken."""
    pid = system.stack.pid(name)
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
    await eventually(lambda: ready(system, name), within_s=30)


def ready(system: System, name: str) -> bool:
    return all(one.ready for one in system.stack.status() if one.name == name)


async def said_by(system: System, service: str, number: int) -> dict[int, int]:
    """Messages that each of so many replicas of `service` has sent, by the number of its connection."""
    async with httpx2.AsyncClient(timeout=30, trust_env=False) as client:
        answer = await client.get(f"{system.stack.nats.monitoring_url}/connz")
    found = {
        one["cid"]: one["in_msgs"] for one in answer.json()["connections"] if one.get("name") == f"paracle-{service}"
    }
    assert len(found) == number, "NATS does not know yet who has come and gone"
    return found
