"""Signals, pauses and forks, over real processes that die in between."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from pydantic import JsonValue
from tests.e2e.deciding import fresh_name, manifests, restart, step_is
from tests.e2e.histories import assert_sound, history
from tests.e2e.world import PATIENCE_S, System, paracle

from paracle_client import AsyncClient
from paracle_domain.errors import Conflict, NotFound
from paracle_domain.run.commands import RunStatus, RunView, StepStatus


@pytest.fixture
async def client(system: System) -> AsyncIterator[AsyncClient]:
    await asyncio.to_thread(system.apply, manifests(system.effects.port))
    async with system.client() as found:
        yield found


async def ended(client: AsyncClient, run_id: str) -> RunView:
    async with asyncio.timeout(PATIENCE_S):
        return await client.wait(run_id)


@pytest.mark.parametrize("victim", ["orchestrator", "nats", "postgres"])
async def test_a_signal_wakes_a_run_that_waited_through_a_kill(
    system: System, client: AsyncClient, victim: str
) -> None:
    name = fresh_name("shipping")
    run_id = (await client.start_run("shipping", {"run": name})).run_id
    await step_is(client, run_id, "paid", StepStatus.WAITING)
    await restart(system, victim)
    for _ in range(2):
        await client.signal(run_id, "paid", {"amount": 12}, idempotency_key="payment-1")
    run = await ended(client, run_id)
    assert (run.run.status, run.output) == (RunStatus.COMPLETED, {"amount": 12})
    assert system.effects.times_by_step(name)["ship"] == 1
    events = await assert_sound(client, run_id)
    assert [event.type for event in events].count("signal.received") == 1
    with pytest.raises(Conflict, match="completed"):
        await client.signal(run_id, "paid")


@pytest.mark.parametrize("victim", ["orchestrator", "nats", "postgres"])
async def test_a_signal_that_comes_early_is_kept_through_a_kill(
    system: System, client: AsyncClient, victim: str
) -> None:
    name = fresh_name("shipping")
    run_id = (await client.start_run("late-shipping", {"run": name})).run_id
    await client.signal(run_id, "paid", "early")
    await restart(system, victim)
    await client.signal(run_id, "packed")
    run = await ended(client, run_id)
    assert (run.run.status, run.output) == (RunStatus.COMPLETED, "early")
    told = [(event.type, event.data.get("name") or event.data.get("step")) for event in await history(client, run_id)]
    assert told.index(("signal.received", "paid")) < told.index(("step.waiting", "paid"))


async def test_a_signal_from_the_command_line(system: System, client: AsyncClient) -> None:
    run_id = (await client.start_run("shipping", {"run": fresh_name("shipping")})).run_id
    payload = ("--payload", "amount:=12", "--payload", "by=card")
    told = await asyncio.to_thread(paracle, "runs", "signal", run_id, "paid", *payload, url=system.url)
    assert told.returncode == 0, told.stderr
    assert (await ended(client, run_id)).output == {"amount": 12, "by": "card"}


async def test_a_pause_holds_through_a_restart(system: System, client: AsyncClient) -> None:
    name = fresh_name("twice")
    with system.effects.held():
        run_id = (await client.start_run("twice-then-paid", {"run": name})).run_id
        for _ in range(2):
            assert (await client.pause(run_id, "looking into it")).status is RunStatus.PAUSED
        await restart(system, "orchestrator")
    await step_is(client, run_id, "before", StepStatus.COMPLETED)
    assert run_id in {run.run_id for run in (await client.runs(status=RunStatus.PAUSED, limit=500)).runs}
    assert set(system.effects.times_by_step(name)) == {"before"}
    for _ in range(2):
        assert (await client.resume(run_id)).status is not RunStatus.PAUSED
    await client.signal(run_id, "paid")
    assert (await ended(client, run_id)).run.status is RunStatus.COMPLETED
    assert system.effects.times_by_step(name)["after"] == 1
    await assert_sound(client, run_id)


async def test_a_paused_run_can_be_cancelled(client: AsyncClient) -> None:
    run_id = (await client.start_run("shipping", {"run": fresh_name("shipping")})).run_id
    await client.pause(run_id)
    await client.cancel(run_id)
    assert (await ended(client, run_id)).run.status is RunStatus.CANCELLED
    with pytest.raises(Conflict, match="cancelled"):
        await client.resume(run_id)


async def test_a_fork_of_a_failed_run_does_only_the_rest(system: System, client: AsyncClient) -> None:
    name = fresh_name("fragile")
    failed = await system.run("fragile", {"run": name})
    assert failed.run.status is RunStatus.FAILED
    given: JsonValue = {"run": name, "good": "second"}
    forks = [
        await client.fork(failed.run.run_id, "second", value=given, idempotency_key=f"again-{name}") for _ in range(2)
    ]
    (fork_id,) = {fork.run_id for fork in forks}
    run = await ended(client, fork_id)
    assert run.run.status is RunStatus.COMPLETED
    assert run.run.forked_from == failed.run.run_id
    assert system.effects.times_by_step(name) == {"first": 1, "second": 1, "third": 1}
    kept = [event.data["step"] for event in await history(client, fork_id) if event.type == "step.kept"]
    assert kept == ["first"]
    with pytest.raises(NotFound, match="there is no step 'sekond'"):
        await client.fork(failed.run.run_id, "sekond")


async def test_a_fork_with_a_mended_workflow(system: System, client: AsyncClient) -> None:
    name = fresh_name("fragile")
    failed = await system.run("fragile", {"run": name})
    mended = manifests(system.effects.port).replace("{{ input.good }}", "mended")
    await client.apply(mended)
    newest = (await client.get("workflows", "fragile")).revision
    told = await asyncio.to_thread(
        paracle, "runs", "fork", failed.run.run_id, "--from", "second", "--revision", str(newest), "-o", "json",
        url=system.url,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    fork_id = json.loads(told.stdout)["run_id"]
    assert (await ended(client, fork_id)).run.status is RunStatus.COMPLETED
    assert system.effects.times_by_step(name) == {"first": 1, "mended": 1, "third": 1}
    assert (await client.get_run(failed.run.run_id)).run.revision == newest - 1
