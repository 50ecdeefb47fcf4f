"""Runs that start runs: outputs, failures and cancels go all the way, whatever dies on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from pydantic import JsonValue
from tests.e2e.deciding import DEPTH, fresh_name, manifests, restart
from tests.e2e.histories import assert_sound
from tests.e2e.world import PATIENCE_S, System, allowed_s

from paracle_chassis.testing.eventually import eventually
from paracle_client import AsyncClient
from paracle_domain.run.commands import RunStatus, RunView, StepStatus

PROMISED_S = 1.0
USUAL_S = 1.0
"""To begin, through every depth."""


@pytest.fixture
async def client(system: System) -> AsyncIterator[AsyncClient]:
    await asyncio.to_thread(system.apply, manifests(system.effects.port))
    async with system.client() as found:
        yield found


async def ended(client: AsyncClient, run_id: str) -> RunView:
    async with asyncio.timeout(PATIENCE_S):
        return await client.wait(run_id)


async def line_of(client: AsyncClient, run_id: str) -> list[RunView]:
    """The run, its child, the child of that, and so on."""
    found = [await client.get_run(run_id)]
    while children := (await client.runs(parent=found[-1].run.run_id)).runs:
        (child,) = children
        found.append(await client.get_run(child.run_id))
    return found


async def test_an_output_comes_up_through_every_depth(client: AsyncClient, system: System) -> None:
    name = fresh_name("generations")
    run = await system.run("gen-1", {"run": name, "items": [1, 2, 3]})
    assert (run.run.status, run.output) == (RunStatus.COMPLETED, {"done": "sum"})
    assert set(system.effects.times_by_step(name)) == {"item-0", "item-1", "item-2", "sum"}
    line = await line_of(client, run.run.run_id)
    assert [one.run.workflow for one in line] == [f"gen-{depth}" for depth in range(1, DEPTH + 1)]
    for one in line:
        assert one.run.status is RunStatus.COMPLETED
        await assert_sound(client, one.run.run_id)


async def test_a_failure_comes_up_through_every_depth(client: AsyncClient) -> None:
    run_id = (await client.start_run("gen-1", {"run": fresh_name("generations")})).run_id
    run = await ended(client, run_id)
    assert run.run.status is RunStatus.FAILED
    assert run.error is not None
    assert run.error.code == "expression_failed"
    assert {one.run.status for one in await line_of(client, run_id)} == {RunStatus.FAILED}


async def test_a_cancel_stops_every_depth_within_a_second(client: AsyncClient, system: System) -> None:
    name, began = fresh_name("generations"), datetime.now(UTC)
    run_id = (await client.start_run("gen-1", {"run": name, "items": list(range(5_000))})).run_id
    await eventually(lambda: len(system.effects.calls(name)) > 20)
    took_s = (system.effects.calls(name)[20].at - began).total_seconds()
    await client.cancel(run_id)
    acknowledged = datetime.now(UTC)
    assert (await ended(client, run_id)).run.status is RunStatus.CANCELLED
    line = await line_of(client, run_id)
    assert len(line) == DEPTH
    assert {one.run.status for one in line} == {RunStatus.CANCELLED}
    last = max(call.at for call in system.effects.calls(name))
    assert (last - acknowledged).total_seconds() < allowed_s(PROMISED_S, took_s, USUAL_S)
    assert "sum" not in system.effects.times_by_step(name)


@pytest.mark.parametrize("victim", ["orchestrator", "nats", "postgres", "agent_runtime"])
async def test_a_kill_in_the_middle_of_a_family_costs_nothing(client: AsyncClient, system: System, victim: str) -> None:
    names = [fresh_name("generations") for _ in range(5)]
    items: list[JsonValue] = list(range(40))
    started = [await client.start_run("gen-1", {"run": name, "items": items}) for name in names]
    await eventually(lambda: len(system.effects.calls(names[0])) > 5)
    await restart(system, victim)
    for name, accepted in zip(names, started, strict=True):
        run = await ended(client, accepted.run_id)
        assert run.run.status is RunStatus.COMPLETED, run.error
        keys = system.effects.keys_by_step(name)
        assert set(keys) == {"sum", *(f"item-{index}" for index in items)}
        assert all(len(found) == 1 for found in keys.values()), keys
        for one in await line_of(client, accepted.run_id):
            await assert_sound(client, one.run.run_id)


async def test_a_cancel_that_meets_a_kill_still_arrives(client: AsyncClient, system: System) -> None:
    name = fresh_name("generations")
    run_id = (await client.start_run("gen-1", {"run": name, "items": list(range(5_000))})).run_id
    await eventually(lambda: len(system.effects.calls(name)) > 20)
    await client.cancel(run_id)
    await restart(system, "orchestrator")
    assert (await ended(client, run_id)).run.status is RunStatus.CANCELLED

    async def all_ended() -> bool:
        return all(one.run.status.terminal for one in await line_of(client, run_id))

    await eventually(all_ended, within_s=PATIENCE_S)
    (step,) = (await line_of(client, run_id))[0].steps
    assert step.status is StepStatus.CANCELLED
