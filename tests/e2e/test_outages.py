"""What runs stand on goes away under load, in every way that it can: no run is lost, and the audit log is whole."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import nats
import pytest
from nats.js.errors import NotFoundError
from tests.e2e.fleet import fleet
from tests.e2e.world import System

from paracle_chassis.testing.eventually import eventually
from paracle_domain.audit import GetUsage

WORKED_ON = {"COMMANDS", "TASKS", "RESULTS", "EVENTS"}
LONGEST_S = 100.0

type Outage = Callable[[System], Awaitable[None]]


async def delete_every_stream(system: System) -> None:
    """JetStream forgets everything, also what it was to deliver."""
    async with await nats.connect(system.stack.nats_url) as client:
        jetstream = client.jsm()
        names = {str(stream.config.name) for stream in await jetstream.streams_info()}
        assert names >= WORKED_ON
        for name in sorted(names):
            await jetstream.delete_stream(name)


async def delete_every_consumer(system: System) -> None:
    """JetStream forgets how far everybody was."""
    async with await nats.connect(system.stack.nats_url) as client:
        jetstream = client.jsm()
        for stream in WORKED_ON:
            for consumer in await jetstream.consumers_info(stream):
                try:
                    await jetstream.delete_consumer(stream, consumer.name)
                except NotFoundError:
                    continue  # an ephemeral one, which ended by itself


async def restart_postgres(system: System) -> None:
    """Sessions are ended, everything is written."""
    await asyncio.to_thread(system.stack.restart, "postgres")


async def kill_postgres(system: System) -> None:
    await _kill(system, "postgres")


async def kill_nats(system: System) -> None:
    await _kill(system, "nats")


async def kill_both(system: System) -> None:
    """Postgres and NATS at once."""
    system.stack.kill("postgres")
    await _kill(system, "nats")
    await asyncio.to_thread(system.stack.start, "postgres")


async def _kill(system: System, name: str) -> None:
    await asyncio.to_thread(system.stack.kill, name)
    await asyncio.to_thread(system.stack.start, name)


OUTAGES: tuple[Outage, ...] = (
    delete_every_stream,
    delete_every_consumer,
    restart_postgres,
    kill_postgres,
    kill_nats,
    kill_both,
)


def named(what: Any) -> str | None:
    return what.__name__ if callable(what) else None


@pytest.mark.parametrize("runs", [60, pytest.param(300, marks=pytest.mark.chaos)])
@pytest.mark.parametrize("outage", OUTAGES, ids=named)
async def test_no_run_is_lost(system: System, outage: Outage, runs: int) -> None:
    chance = random.Random(f"{outage.__name__} {runs}")
    async with fleet(system, f"{outage.__name__}-{runs}") as load, asyncio.timeout(115):
        async with load.starting(runs, chance):
            await load.progress(chance.randrange(runs * 2))
            await outage(system)
        await load.ended(LONGEST_S)
        await load.check()


async def test_what_the_audit_log_never_heard_of_is_asked_for(system: System) -> None:
    """Runs and tasks that began and ended while events went nowhere: their owners say that there were some."""
    chance = random.Random("never heard of")
    system.stack.kill("observability")
    async with fleet(system, "never-heard-of") as load, asyncio.timeout(110):
        async with load.starting(60, chance):
            await load.progress(1)
        await load.ended(LONGEST_S)
        async with await nats.connect(system.stack.nats_url) as client:
            await client.jsm().delete_stream("EVENTS")
        await asyncio.to_thread(system.stack.start, "observability")
        await load.check()
        agents = [one.run_id for one in load.sent if one.shape.name == "agent"]

        async def counted() -> bool:
            used = [await load.desk.ask(GetUsage(run_id=run_id)) for run_id in agents]
            assert {report.total.tool_calls for report in used} == {2}
            assert min(report.total.input_tokens for report in used) > 0
            return True

        await eventually(counted, within_s=60)
