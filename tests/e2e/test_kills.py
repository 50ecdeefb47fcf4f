"""`kill -9` of any one process in the middle of many runs, and a start again: nothing lost, nothing done twice."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime

import pytest
from tests.e2e.load import GO, Load, ended_at, loaded
from tests.e2e.world import MAILS, System, triage_text

from paracle_domain.run.commands import RunStatus, RunView

VICTIMS = (
    "orchestrator", "agent_runtime", "nats", "postgres",
    "provider_gateway", "observability", "registry", "api_gateway",
)  # fmt: skip
SIZES = {"chains": 20, "once": 4, "notes": 4}


_undisturbed: list[RunView] = []


@pytest.fixture
async def undisturbed(system: System) -> RunView:
    """The example's run as it is when nothing goes wrong."""
    if not _undisturbed:
        await asyncio.to_thread(system.apply, triage_text())
        _undisturbed.append(await system.run("triage", {"folder": MAILS}))
    assert _undisturbed[0].run.status is RunStatus.COMPLETED
    return _undisturbed[0]


@pytest.mark.parametrize("victim", VICTIMS)
async def test_a_killed_process_costs_nothing(system: System, undisturbed: RunView, victim: str) -> None:
    moment = random.Random(f"kill {victim}").randrange(8, 60)
    async with loaded(system) as load, asyncio.timeout(110):
        await load.start(**SIZES, held=True)
        await load.progress(moment)
        killed_at = await kill(system, victim)
        await load.let_go()
        await assert_hit(load, killed_at, undisturbed)


async def kill(system: System, victim: str) -> datetime:
    """`kill -9`, and start it again."""
    before = system.stack.pid(victim)
    system.stack.kill(victim)
    at = datetime.now(UTC)
    await asyncio.to_thread(system.stack.start, victim)
    assert before not in {None, system.stack.pid(victim)}
    return at


async def assert_hit(load: Load, killed_at: datetime, undisturbed: RunView) -> None:
    """The kill fell into the middle of the triage, which ended as if nothing had been."""
    histories = await load.check()
    assert ended_at(histories[load.triage]) > killed_at
    triage = await load.client.get_run(load.triage)
    assert triage.output == undisturbed.output
    steps = {step.id: step.status for step in undisturbed.steps}
    assert {step.id: step.status for step in triage.steps if step.id != GO} == steps
