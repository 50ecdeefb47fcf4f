"""Many runs at once: one order to all of them, a limit on how many are under way, and the end of their time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from typing import Any, Final

import asyncpg
import pytest
from tests.e2e.world import PATIENCE_S, System, paracle

from paracle_chassis.testing.eventually import eventually
from paracle_client import AsyncClient
from paracle_domain.errors import NotFound
from paracle_domain.run.commands import RunFilter, RunStatus, RunSummary

MANIFESTS: Final = """
apiVersion: paracle/v1
kind: Workflow
metadata: {name: sleeper}
spec:
  steps: [{id: nap, wait: {for_s: 600}}]
---
apiVersion: paracle/v1
kind: Workflow
metadata: {name: narrow}
spec:
  max_runs: 3
  steps: [{id: nap, wait: {signal: up}}]
---
apiVersion: paracle/v1
kind: Workflow
metadata: {name: fleeting}
spec:
  retention: {keep_s: 3}
  steps: [{id: talk, agent: talker, input: {text: hello}}]
---
apiVersion: paracle/v1
kind: Workflow
metadata: {name: lasting}
spec:
  steps: [{id: talk, agent: talker, input: {text: hello}}]
---
apiVersion: paracle/v1
kind: Agent
metadata: {name: talker}
spec: {instructions: Say hello., model: {name: sandbox/rules}}
"""
MANY: Final = 300
ACTIVE: Final = (RunStatus.RUNNING, RunStatus.PAUSED, RunStatus.CANCELLING)


@pytest.fixture
async def client(system: System) -> AsyncIterator[AsyncClient]:
    await asyncio.to_thread(system.apply, MANIFESTS)
    async with system.client() as client, asyncio.timeout(2 * PATIENCE_S):
        yield client


async def start(client: AsyncClient, workflow: str, number: int, **labels: str) -> set[str]:
    started = await asyncio.gather(*(client.start_run(workflow, labels=labels) for _ in range(number)))
    return {accepted.run_id for accepted in started}


async def found(client: AsyncClient, **wanted: Any) -> list[RunSummary]:
    runs: list[RunSummary] = []
    cursor = None
    while True:
        page = await client.runs(**wanted, limit=500, cursor=cursor)
        runs += page.runs
        cursor = page.next_cursor
        if cursor is None:
            return runs


def ids(runs: Iterable[RunSummary]) -> set[str]:
    return {run.run_id for run in runs}


async def test_one_order_cancels_hundreds_of_runs_and_no_other_though_it_is_killed(
    system: System, client: AsyncClient
) -> None:
    gone, stay = await start(client, "sleeper", MANY, batch="gone"), await start(client, "sleeper", 20, batch="stay")
    labels = ("--workflow", "sleeper", "--label", "batch=gone")
    counted = await asyncio.to_thread(paracle, "runs", "cancel", *labels, "--dry-run", "-o", "json", url=system.url)
    assert json.loads(counted.stdout) == {"count": MANY}
    assert len(await found(client, workflow="sleeper", labels={"batch": "gone"}, status=RunStatus.RUNNING)) == MANY
    order = asyncio.create_task(client.cancel_runs(RunFilter(workflow="sleeper", labels={"batch": "gone"}), "enough"))

    async def begun() -> bool:
        return bool(await found(client, labels={"batch": "gone"}, status=(RunStatus.CANCELLING, RunStatus.CANCELLED)))

    await eventually(begun)
    system.stack.kill("orchestrator")
    await asyncio.to_thread(system.stack.start, "orchestrator")
    await order

    async def ended() -> bool:
        return ids(await found(client, labels={"batch": "gone"}, status=RunStatus.CANCELLED)) == gone

    await eventually(ended)
    assert ids(await found(client, labels={"batch": "stay"}, status=RunStatus.RUNNING)) == stay
    reasons = [event.data["reason"] async for event in client.events(next(iter(gone))) if event.type == "run.cancelled"]
    assert reasons == ["enough"]
    told = await asyncio.to_thread(paracle, "runs", "cancel", "--label", "batch=stay", url=system.url)
    assert told.stdout == "told 20 runs to cancel\n"


async def test_a_limit_holds_over_two_orchestrators_and_kills_lose_no_slot(system: System, client: AsyncClient) -> None:
    await asyncio.to_thread(system.scale, orchestrator=2)
    try:
        started = await start(client, "narrow", 24, batch="limit")
        woken: set[str] = set()
        while len(woken) < len(started):
            for run_id in await eventually(lambda: three_that_sleep(client, woken)):
                await client.signal(run_id, "up")
                woken.add(run_id)
            if len(woken) == 9:
                system.stack.kill("orchestrator")
        ended = [await client.wait(run_id) for run_id in started]
        assert {view.run.status for view in ended} == {RunStatus.COMPLETED}
        queued = [event async for event in client.events(next(iter(started))) if event.type == "run.admitted"]
        assert len(queued) == 1
    finally:
        await asyncio.to_thread(system.scale)


async def three_that_sleep(client: AsyncClient, woken: set[str]) -> set[str]:
    """Once as many runs are under way as may be, and none of those that were woken; there are never more."""
    runs = await found(client, workflow="narrow", labels={"batch": "limit"})
    active = ids(run for run in runs if run.status in ACTIVE)
    assert len(active) <= 3
    return active if len(active - woken) == 3 else set()


async def test_runs_go_when_their_time_is_over(system: System, client: AsyncClient) -> None:
    database = await asyncpg.connect(system.stack.postgres.dsn_of("paracle_agent_runtime"))
    try:
        fleeting, lasting = await start(client, "fleeting", 20), await start(client, "lasting", 1)

        async def tasks(runs: set[str]) -> int:
            sql = "select count(*) from tasks where run_id = any($1)"
            return int(await database.fetchval(sql, list(runs)))

        async def gone() -> bool:
            left, rows = await found(client, workflow="fleeting"), await tasks(fleeting)
            assert (left, rows) == ([], 0)
            return True

        (kept,) = [await client.wait(run_id) for run_id in lasting]
        await eventually(gone, within_s=60)
        assert await tasks(lasting) == 1
    finally:
        await database.close()
    for run_id in fleeting:
        with pytest.raises(NotFound):
            await client.get_run(run_id)
    assert (await client.get_run(kept.run.run_id)).run.status is RunStatus.COMPLETED
