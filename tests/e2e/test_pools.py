"""Worker pools on real processes: tasks go where they are sent, and wait there for whoever is to come."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import httpx2
import pytest
import yaml
from tests.e2e.deciding import fresh_name
from tests.e2e.load import assert_one_key_each, counting_tool
from tests.e2e.world import NEEDS_BUBBLEWRAP, System, named, paracle

from paracle_chassis.testing.eventually import eventually
from paracle_client import AsyncClient
from paracle_client.stack.state import State
from paracle_domain.run.commands import RunStatus, RunView
from paracle_domain.task.pools import PoolState, PoolView

POOLED: Final = """
apiVersion: paracle/v1
kind: Tool
metadata: {name: pooled-nap}
spec:
  description: Waits.
  backend: {type: builtin, function: sleep}
  pool: heavy
---
apiVersion: paracle/v1
kind: Tool
metadata: {name: pooled-command}
spec:
  description: Runs a command.
  backend: {type: builtin, function: shell}
  permissions: {execute: {}}
  pool: heavy
  timeout_s: 600
---
apiVersion: paracle/v1
kind: Agent
metadata: {name: pooled-agent}
spec: {model: {name: sandbox/rules}, instructions: Say hello., pool: heavy}
---
apiVersion: paracle/v1
kind: Workflow
metadata: {name: pooled-naps}
spec:
  input: {type: object, required: [naps, seconds]}
  steps:
    - id: naps
      map: {over: "{{ range(input.naps) | list }}", tool: pooled-nap, input: {seconds: "{{ input.seconds }}"}}
---
apiVersion: paracle/v1
kind: Workflow
metadata: {name: pooled-counts}
spec:
  input: {type: object, required: [run, items]}
  steps:
    - id: each
      map:
        over: "{{ range(input.items) | list }}"
        tool: pooled-count
        input: {run: "{{ input.run }}", step: "s{{ index }}"}
---
apiVersion: paracle/v1
kind: Workflow
metadata: {name: pooled-command}
spec:
  steps:
    - {id: run, tool: pooled-command, input: {command: sleep 600}}
---
apiVersion: paracle/v1
kind: Workflow
metadata: {name: unpooled}
spec:
  steps:
    - {id: nap, tool: pooled-nap, pool: agents, input: {seconds: 0}}
"""
HEAVY: Final = {"PARACLE_POOLS": "heavy=2"}
LONGEST_S: Final = 100.0


@pytest.fixture
async def client(system: System) -> AsyncIterator[AsyncClient]:
    counting = counting_tool("pooled-count", "idempotent", system.effects.port, pool="heavy", timeout_s=90)
    own = yaml.safe_dump({"apiVersion": "paracle/v1", **counting})
    await asyncio.to_thread(system.apply, f"{POOLED}---\n{own}")
    async with system.client() as found, asyncio.timeout(LONGEST_S):
        yield found
        await found.resume_pool("heavy")


async def heavy(client: AsyncClient) -> PoolView:
    return await client.get_pool("heavy")


async def until(client: AsyncClient, state: PoolState, **numbers: int) -> PoolView:
    """The pool `heavy`, once it stands so; its processes say every two seconds how they stand."""

    async def stands() -> PoolView:
        view = await heavy(client)
        assert view.state is state, view
        assert {name: getattr(view, name) for name in numbers} == numbers, view
        return view

    return await eventually(stands)


async def naps(client: AsyncClient, number: int, seconds: float) -> str:
    return (await client.start_run("pooled-naps", {"naps": number, "seconds": seconds})).run_id


async def counts(client: AsyncClient, number: int) -> tuple[str, str]:
    """A run of so many calls that are counted, each of which takes as long as the test holds it; its name, too."""
    name = fresh_name("pooled")
    return (await client.start_run("pooled-counts", {"run": name, "items": number})).run_id, name


async def ended(client: AsyncClient, run_id: str) -> RunView:
    run = await client.wait(run_id)
    assert run.run.status is RunStatus.COMPLETED, run.error
    return run


def shown(system: System, *command: str) -> str:
    told = paracle(*command, url=system.url)
    assert told.returncode == 0, told.stderr
    return told.stdout


async def readiness(system: System, name: str) -> dict[str, Any]:
    """What a process says of itself."""
    port = State.load(system.stack.root).members[name].health_port
    async with httpx2.AsyncClient(timeout=30, trust_env=False) as http:
        return dict((await http.get(f"http://127.0.0.1:{port}/readyz")).json())


async def test_a_task_waits_for_a_pool_that_nobody_serves_and_is_shown_to(system: System, client: AsyncClient) -> None:
    accepted = await client.invoke("pooled-agent", {"text": "Hello."})
    view = await until(client, PoolState.UNSERVED, waiting=1)
    assert (view.in_hand, view.replicas) == (0, ())
    assert "nobody serves it" in shown(system, "pools", "ls")
    assert "PARACLE_POOLS=heavy" in shown(system, "pools", "show", "heavy")
    assert "pool heavy takes no new tasks: nobody serves it" in shown(system, "runs", "show", accepted.run_id)
    (step,) = (await client.get_run(accepted.run_id)).steps
    assert step.pool == "heavy"
    await ended(client, (await client.start_run("unpooled")).run_id)
    await asyncio.to_thread(system.scale, {"agent_runtime-2": HEAVY}, agent_runtime=2)
    await ended(client, accepted.run_id)
    view = await until(client, PoolState.OPEN, waiting=0, in_hand=0)
    assert [each.pid for each in view.replicas] == [system.stack.pid("agent_runtime-2")]


async def test_no_process_has_more_in_hand_than_its_pool_allows(system: System, client: AsyncClient) -> None:
    others = {"agent_runtime-2": HEAVY, "agent_runtime-3": {"PARACLE_POOLS": "heavy=3,agents"}}
    await asyncio.to_thread(system.scale, others, agent_runtime=3)
    pids = [system.stack.pid("agent_runtime-2"), system.stack.pid("agent_runtime-3")]
    with system.effects.held():
        run_id, _ = await counts(client, 200)
        view = await until(client, PoolState.OPEN, in_hand=5, waiting=195)  # the rest is nobody's yet
        assert view.concurrency == 5
        assert {each.pid: each.in_hand for each in view.replicas} == dict(zip(pids, (2, 3), strict=True))
    for seen in await watched(client, run_id):
        assert seen.get(pids[0] or 0, 0) <= 2
        assert seen.get(pids[1] or 0, 0) <= 3


async def watched(client: AsyncClient, run_id: str) -> Sequence[dict[int, int]]:
    """What each process had in hand, from now until the run has ended."""
    run, seen = asyncio.create_task(ended(client, run_id)), []
    while not run.done():
        seen.append({each.pid: each.in_hand for each in (await heavy(client)).replicas})
        await asyncio.wait((run,), timeout=0.1)
    await run
    return seen


async def test_a_drained_pool_finishes_what_it_has_and_takes_nothing_until_it_is_resumed(
    system: System, client: AsyncClient
) -> None:
    await asyncio.to_thread(system.scale, {"agent_runtime-2": HEAVY}, agent_runtime=2)
    drain = ("pools", "drain", "heavy", "--reason", "new drivers", "--wait", "-o", "json")
    with system.effects.held():
        run_id, name = await counts(client, 40)
        await until(client, PoolState.OPEN, in_hand=2)
        draining = asyncio.create_task(asyncio.to_thread(shown, system, *drain))
        await until(client, PoolState.DRAINING, in_hand=2)
    drained = PoolView.model_validate(json.loads(await draining))
    assert (drained.state, drained.in_hand) == (PoolState.DRAINED, 0)
    assert drained.waiting > 0
    assert drained.drain is not None
    assert drained.drain.reason == "new drivers"
    await ended(client, (await client.start_run("unpooled")).run_id)
    await eventually(lambda: waiting(client, 38))
    await eventually(lambda: finished(client, run_id, 2))  # what was in hand, and no more was taken
    await asyncio.to_thread(system.scale, {"agent_runtime-2": {"PARACLE_POOLS": "heavy=40"}}, agent_runtime=2)
    await asyncio.to_thread(system.stack.restart, "agent_runtime-2")
    view = await until(client, PoolState.DRAINED)
    assert (await readiness(system, "agent_runtime-2"))["pools"]["heavy"]["state"] == "drained"
    assert len(view.replicas) == 1
    assert "it is drained" in shown(system, "runs", "show", run_id)
    await ended(client, (await client.start_run("unpooled")).run_id)
    assert await finished(client, run_id, 2)
    await client.resume_pool("heavy")
    await ended(client, run_id)
    assert len(system.effects.keys_by_step(name)) == 40


async def waiting(client: AsyncClient, least: int) -> bool:
    """Whether so many tasks wait for the pool; what waits for long is handed out again, and counts once more."""
    view = await heavy(client)
    return view.state is PoolState.DRAINED and view.waiting >= least


async def finished(client: AsyncClient, run_id: str, number: int) -> bool:
    """Whether so many calls of the run have ended."""
    return (await client.get_run(run_id)).steps[0].parts_ended == number


async def test_a_killed_process_loses_none_of_its_pool(system: System, client: AsyncClient) -> None:
    others = {"agent_runtime-2": HEAVY, "agent_runtime-3": HEAVY}
    await asyncio.to_thread(system.scale, others, agent_runtime=3)
    with system.effects.held():
        run_id, name = await counts(client, 12)
        await until(client, PoolState.OPEN, in_hand=4)
        system.stack.kill("agent_runtime-2")
    await ended(client, run_id)
    assert_one_key_each(system.effects.keys_by_step(name), tuple(f"s{number}" for number in range(12)))
    view = await until(client, PoolState.OPEN, concurrency=2, waiting=0, in_hand=0)
    assert [each.pid for each in view.replicas] == [system.stack.pid("agent_runtime-3")]


@NEEDS_BUBBLEWRAP
async def test_a_process_that_is_told_to_stop_hands_over_and_leaves_no_command_behind(
    system: System, client: AsyncClient
) -> None:
    others = {"agent_runtime-2": HEAVY}
    await asyncio.to_thread(system.scale, others, agent_runtime=2)
    run_id = (await client.start_run("pooled-command")).run_id
    process = system.process("agent_runtime-2")
    await eventually(lambda: process.descendants(named("sleep")))
    children = process.descendants()
    await asyncio.to_thread(system.scale, {**others, "agent_runtime-3": HEAVY}, agent_runtime=3)
    heir = system.process("agent_runtime-3")
    process.send(signal.SIGTERM)
    await eventually(lambda: not process.alive)
    await eventually(lambda: not [each for each in children if each.alive])  # what was killed takes a moment to end
    await eventually(lambda: heir.descendants(named("sleep")))
    view = await until(client, PoolState.OPEN, in_hand=1, concurrency=2)
    assert [each.pid for each in view.replicas] == [heir.pid]
    await client.cancel(run_id)
    assert (await client.wait(run_id)).run.status is RunStatus.CANCELLED
    await eventually(lambda: not heir.descendants(named("sleep")))


async def test_above_its_memory_ceiling_a_process_takes_nothing_and_others_do(
    system: System, client: AsyncClient
) -> None:
    full = {"agent_runtime-2": {"PARACLE_POOLS": "heavy=50", "PARACLE_MEMORY_CEILING_MB": "64"}}
    await asyncio.to_thread(system.scale, full, agent_runtime=2)
    run_id = await naps(client, 4, 0.1)
    view = await until(client, PoolState.OVER_MEMORY, waiting=4)
    assert (view.replicas[0].memory_mb or 0) > 64 == view.replicas[0].memory_ceiling_mb
    said = await readiness(system, "agent_runtime-2")
    assert (said["status"], said["pools"]["heavy"]["state"]) == ("ready", "over_memory")
    assert "the ceiling is 64 MiB" in system.stack.log_path("agent_runtime-2").read_text("utf-8")
    assert "at their memory ceiling" in shown(system, "runs", "show", run_id)
    await asyncio.to_thread(system.scale, {**full, "agent_runtime-3": HEAVY}, agent_runtime=3)
    await ended(client, run_id)
