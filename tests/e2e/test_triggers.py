"""Triggers over real processes: each time is one run, and so is each message, whoever dies and however many watch."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

import nats
import pytest
from nats.aio.client import Client as Nats
from tests.e2e.world import ROOT, System

from paracle_chassis.frames import flushed
from paracle_chassis.testing.eventually import eventually
from paracle_client import AsyncClient
from paracle_domain.errors import SpecInvalid
from paracle_domain.run.commands import RunStatus, RunSummary
from paracle_domain.trigger.commands import FireStatus

WORKFLOW = """
apiVersion: paracle/v1
kind: Tool
metadata: {name: echo-trigger}
spec:
  description: Gives back its arguments.
  backend: {type: builtin, function: noop}
---
apiVersion: paracle/v1
kind: Workflow
metadata: {name: echo}
spec:
  input: {type: object, required: [said], properties: {said: {type: string}}}
  steps: [{id: say, tool: echo-trigger, input: {said: "{{ input.said }}"}}]
  output: "{{ input.said }}"
"""
EVERY_SECOND = """
apiVersion: paracle/v1
kind: Trigger
metadata: {name: %s}
spec:
  workflow: echo
  input: {said: "{{ trigger.scheduled_at }}"}
  schedule: {cron: "* * * * * *", overlap: allow, catch_up_s: 600}
"""
ON_ORDERS = """
apiVersion: paracle/v1
kind: Trigger
metadata: {name: %s}
spec:
  workflow: echo
  input: {said: "{{ message.id }}"}
  subject: {topic: "%s.*", filter: "{{ message.total > 100 }}", dedupe: "{{ message.id }}"}
"""
LONGEST_S = 100


@asynccontextmanager
async def ticking(system: System, name: str) -> AsyncIterator[AsyncClient]:
    """A trigger that fires every second, for as long as the test looks."""
    await asyncio.to_thread(system.apply, f"{WORKFLOW}---{EVERY_SECOND % name}")
    async with asyncio.timeout(LONGEST_S), system.client() as client:
        try:
            yield client
        finally:
            await client.delete("triggers", name)


async def runs_of(client: AsyncClient, name: str) -> list[RunSummary]:
    """All runs that a trigger started."""
    found: list[RunSummary] = []
    cursor: str | None = None
    while True:
        page = await client.runs(labels={"trigger": name}, limit=500, cursor=cursor)
        found += page.runs
        cursor = page.next_cursor
        if cursor is None:
            return found


async def fired(client: AsyncClient, name: str) -> int:
    return (await client.get_trigger(name)).trigger.counts.fired


async def wait_for_fires(client: AsyncClient, name: str, number: int) -> None:
    """Until so many more runs have been started."""
    wanted = await fired(client, name) + number

    async def enough() -> bool:
        return await fired(client, name) >= wanted

    await eventually(enough, within_s=60)


async def check_times(client: AsyncClient, name: str) -> None:
    """Every second, from the first one on, had exactly one run, and all of them completed."""
    await client.pause_trigger(name)

    async def all_done() -> bool:
        runs = await runs_of(client, name)
        settled = all(run.status is not FireStatus.PENDING for run in (await client.get_trigger(name)).last_runs)
        return settled and len(runs) == await fired(client, name) and all(run.status.terminal for run in runs)

    await eventually(all_done, within_s=60)
    runs = await runs_of(client, name)
    assert Counter(run.status for run in runs) == {RunStatus.COMPLETED: len(runs)}
    said = sorted([str((await client.get_run(run.run_id)).output) for run in runs])
    first = datetime.fromisoformat(said[0])
    expected = [(first + timedelta(seconds=n)).isoformat().replace("+00:00", "Z") for n in range(len(said))]
    assert said == expected
    view = await client.get_trigger(name)
    assert (view.trigger.counts.dropped, view.trigger.counts.failed) == (0, 0)


async def test_a_schedule_is_applied_runs_and_is_paused(system: System) -> None:
    async with ticking(system, "tick") as client:
        await wait_for_fires(client, "tick", 3)
        await check_times(client, "tick")
        before = await fired(client, "tick")
        run = (await runs_of(client, "tick"))[0]
        assert (await client.get_run(run.run_id)).principal == "trigger:tick"
        accepted = await client.fire_trigger("tick")
        assert (await client.wait(accepted.run_id)).run.status is RunStatus.COMPLETED
        assert await fired(client, "tick") == before + 1


@pytest.mark.parametrize("victim", ["orchestrator", "nats", "postgres", "registry"])
async def test_a_kill_in_the_middle_of_a_fire_neither_loses_nor_doubles_it(system: System, victim: str) -> None:
    name = f"tick-{victim}"
    async with ticking(system, name) as client:
        for _ in range(4 if victim == "orchestrator" else 1):
            await kill_in_a_fire(system, victim)
            await wait_for_fires(client, name, 2)
        await check_times(client, name)


async def kill_in_a_fire(system: System, victim: str) -> None:
    """`kill -9` once a trigger's start is on its way: decided, and not yet settled. Then start it again."""
    url = system.stack.nats_url
    async with await nats.connect(url, connect_timeout=30, allow_reconnect=False, error_cb=_not_heard) as bare:
        starts = await bare.subscribe("paracle.v1.default.cmd.orchestrator.start_run")
        await starts.next_msg(timeout=30)
        system.stack.kill(victim)
    await asyncio.to_thread(system.stack.start, victim)


async def _not_heard(_error: Exception) -> None:
    """What breaks because the server was killed is meant to."""


async def test_two_orchestrators_fire_each_time_once(system: System) -> None:
    await asyncio.to_thread(system.scale, orchestrator=2)
    async with ticking(system, "tick-two") as client:
        await wait_for_fires(client, "tick-two", 5)
        await kill_in_a_fire(system, "orchestrator-2")
        await wait_for_fires(client, "tick-two", 3)
        await check_times(client, "tick-two")


async def say(client: Nats, topic: str, *messages: object) -> None:
    """Publish, and have it in NATS."""
    for message in messages:
        body = message if isinstance(message, bytes) else json.dumps(message).encode()
        await client.publish(f"paracle.v1.default.in.{topic}", body)
    await flushed(client)


async def test_messages_start_runs_once_whoever_is_killed(system: System) -> None:
    name = "orders-kill"
    await asyncio.to_thread(system.apply, f"{WORKFLOW}---{ON_ORDERS % (name, name)}")
    async with asyncio.timeout(LONGEST_S), system.client() as client:
        async with await nats.connect(system.stack.nats_url) as bare:
            for part in range(4):
                orders = [{"id": f"{part}-{number}", "total": 101} for number in range(25)]
                await say(bare, f"{name}.new", *orders, {"id": "small", "total": 100}, orders[0])
                system.stack.kill("orchestrator")
                await asyncio.to_thread(system.stack.start, "orchestrator")

        async def all_there() -> bool:
            return await fired(client, name) == 100

        await eventually(all_there, within_s=60)
        runs = await runs_of(client, name)
        for run in runs:
            await client.wait(run.run_id)
        said = Counter([str((await client.get_run(run.run_id)).output) for run in runs])
        assert said == Counter({f"{part}-{number}": 1 for part in range(4) for number in range(25)})
        await client.delete("triggers", name)


async def test_a_message_is_answered_with_runs_that_are_there(system: System) -> None:
    name = "orders-ask"
    await asyncio.to_thread(system.apply, f"{WORKFLOW}---{ON_ORDERS % (name, name)}")
    async with asyncio.timeout(LONGEST_S), system.client() as client:
        bare = await nats.connect(system.stack.nats_url)
        try:
            told = await bare.request(f"paracle.v1.default.in.{name}.new", b'{"id": "1", "total": 101}', timeout=30)
            refused = await bare.request(f"paracle.v1.default.in.{name}.new", b"{}", timeout=30)
        finally:
            await bare.close()
        answer = json.loads(told.data)
        ((trigger, run_id),) = [(run["trigger"], run["run_id"]) for run in answer["runs"]]
        assert (trigger, answer["stream"]) == (name, "INTAKE")
        assert (await client.wait(run_id)).run.status is RunStatus.COMPLETED
        assert "`message.total` is undefined" in json.loads(refused.data)["detail"]
        await client.delete("triggers", name)


async def test_what_is_no_json_and_what_a_filter_cannot_judge_are_dead_letters(system: System) -> None:
    name = "orders-bad"
    await asyncio.to_thread(system.apply, f"{WORKFLOW}---{ON_ORDERS % (name, name)}")
    async with asyncio.timeout(LONGEST_S), system.client() as client:
        async with await nats.connect(system.stack.nats_url) as bare:
            await say(bare, f"{name}.new", b"\xff no json", {"id": 1})

        async def reasons() -> bool:
            letters = (await client.dead_letters(limit=100)).letters
            told = [letter.reason for letter in letters if letter.subject == f"paracle.v1.default.in.{name}.new"]
            assert any("are JSON" in one for one in told)
            assert any(f"trigger {name!r}: `message.total` is undefined" in one for one in told)
            return True

        await eventually(reasons, within_s=30)
        assert (await client.get_trigger(name)).trigger.counts.failed == 1
        await client.delete("triggers", name)


async def test_what_triggers_use_cannot_be_deleted(system: System) -> None:
    await asyncio.to_thread(system.apply, f"{WORKFLOW}---{ON_ORDERS % ('user', 'user')}")
    async with system.client() as client:
        with pytest.raises(SpecInvalid, match="it is in use"):
            await client.delete("workflows", "echo")
        await client.delete("triggers", "user")


async def test_the_example_runs_as_it_stands(system: System) -> None:
    folder = ROOT / "examples" / "triggers"
    text = "\n---\n".join(path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.yaml")))
    await asyncio.to_thread(system.apply, text)
    async with asyncio.timeout(LONGEST_S), system.client() as client:
        accepted = await client.fire_trigger("big-orders", {"order_id": 1, "total": 200})
        assert (await client.wait(accepted.run_id)).output == {"what": "order 1", "tax": 38.0}
        accepted = await client.fire_trigger("every-minute")
        assert (await client.wait(accepted.run_id)).run.status is RunStatus.COMPLETED
        await client.delete_manifests(text)
