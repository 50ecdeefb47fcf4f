"""Poisoned messages in every mailbox: what is documented for each becomes of it, and what is beside it goes on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml
from nats.aio.client import Client as Nats
from tests.e2e.world import System, paracle

from paracle_chassis.frames import flushed
from paracle_chassis.testing.eventually import eventually
from paracle_client import AsyncClient
from paracle_domain import subjects
from paracle_domain.dead_letters import DeadLetter, DeadLetterFilter
from paracle_domain.errors import NotFound
from paracle_domain.ids import derive_id, new_id
from paracle_domain.machine import EventRecord
from paracle_domain.run.commands import RunStatus, RunView

TENANT = "default"
MALFORMED = "malformed_message"


def workflow(name: str, *steps: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "Workflow", "metadata": {"name": name}, "spec": {"steps": list(steps)}}


ADD = {"id": "add", "tool": "pass_on", "input": {"number": "{{ input.number }}"}}
MANIFESTS = [
    {
        "kind": "Tool",
        "metadata": {"name": "pass_on"},
        "spec": {
            "description": "Give back the number.",
            "input": {"type": "object", "properties": {"number": {"type": "integer"}}},
            "backend": {"type": "builtin", "function": "noop"},
            "effect": "none",
        },
    },
    {
        "kind": "Workflow",
        "metadata": {"name": "sound"},
        "spec": {"steps": [ADD, {**ADD, "id": "more", "needs": ["add"]}]},
    },
    {"kind": "Workflow", "metadata": {"name": "patient"}, "spec": {"steps": [{"id": "rest", "wait": {"for_s": 3600}}]}},
]
LATER = {"kind": "Workflow", "metadata": {"name": "later"}, "spec": {"steps": [ADD]}}


@dataclass(frozen=True)
class Poison:
    """A message that cannot be handled; `by` is who gives it up, `code` why. Without them nothing becomes of it."""

    subject: str
    body: bytes
    by: str = ""
    code: str = ""
    type: str = ""


def text(manifests: list[dict[str, Any]]) -> str:
    return yaml.safe_dump_all([{"apiVersion": "paracle/v1"} | one for one in manifests])


@pytest.fixture
async def client(system: System) -> AsyncIterator[AsyncClient]:
    await asyncio.to_thread(system.apply, text(MANIFESTS))
    async with system.client() as found:
        for letter in (await found.dead_letters(limit=500)).letters:
            await found.drop(letter.id, "of another test")
        yield found


async def send(bare: Nats, poison: Poison, id: str) -> None:
    headers = {"Nats-Msg-Id": id, **({"ce-type": poison.type} if poison.type else {})}
    await bare.publish(poison.subject, poison.body, headers=headers)


async def letters(client: AsyncClient, **which: Any) -> tuple[DeadLetter, ...]:
    return (await client.dead_letters(DeadLetterFilter(**which), limit=500)).letters


def result(run_id: str, **more: Any) -> bytes:
    known = {"task_id": derive_id("task", run_id, "x"), "run_id": run_id, "step": "rest", "attempt": 1}
    return json.dumps({**known, "status": "completed", "output": 1, **more}).encode()


def task(run_id: str, **more: Any) -> bytes:
    known = {
        "task_id": new_id("task"),
        "run_id": run_id,
        "step": "rest",
        "attempt": 1,
        "plan": "sha256:none",
        "effect_scope": "x",
    }
    return json.dumps({**known, "target_kind": "tool", "target": "pass_on", **more}).encode()


def poisons(run_id: str, ended: str) -> list[Poison]:
    """For a run that waits, and one that is over."""
    command, tasks = subjects.cmd(TENANT, "orchestrator", "start_run"), subjects.task(TENANT, "agents")
    to_run, unknown = subjects.result(TENANT, run_id), new_id("run")
    event = subjects.evt(TENANT, "agent", "a", "revised")
    stranger = {"entity": "other", "id": "a", "seq": 1, "type": "x", "at": "2026-01-01T00:00:00Z"}
    return [
        Poison(command, b"\xff\x00 no json", "orchestrator", MALFORMED),
        Poison(command, b'{"workflow": 7}', "orchestrator", MALFORMED),
        Poison(command, b'{"workflow": "sound", "agent": "both"}', "orchestrator", "invalid_input"),
        Poison(command, b'{"workflow": "nowhere"}', "orchestrator", "not_found"),
        Poison(subjects.cmd(TENANT, "orchestrator", "dance"), b"{}", "orchestrator", MALFORMED),
        Poison(
            subjects.cmd(TENANT, "orchestrator", "cancel_run"),
            json.dumps({"run_id": unknown}).encode(),
            "orchestrator",
            "not_found",
        ),
        Poison(to_run, b"no json", "orchestrator", MALFORMED, "task.result"),
        Poison(to_run, b"{}", "orchestrator", MALFORMED, "task.result"),
        Poison(to_run, result(run_id), "orchestrator", MALFORMED, "run.sneeze"),
        Poison(to_run, result(run_id, status="perhaps"), "orchestrator", MALFORMED, "task.result"),
        Poison(to_run, result(run_id), type="task.result"),
        Poison(to_run, result(run_id, step="none", attempt=99), type="task.result"),
        Poison(subjects.result(TENANT, unknown), result(unknown), type="task.result"),
        Poison(subjects.result(TENANT, ended), result(ended, step="add"), type="task.result"),
        Poison(tasks, b"no json", "agent_runtime", MALFORMED),
        Poison(tasks, task(run_id, attempt="first"), "agent_runtime", MALFORMED),
        Poison(tasks, task(unknown), type="task"),
        Poison(tasks, task(unknown, deadline_at="0001-01-01T00:00:00Z"), type="task"),
        Poison(subjects.cmd(TENANT, "agent_runtime", "cancel_task"), b"[]", "agent_runtime", MALFORMED),
        Poison(event, b"no json", "observability", MALFORMED),
        Poison(
            event,
            json.dumps(stranger).encode(),
            "observability",
            MALFORMED,
        ),
        Poison(subjects.dlq(TENANT, "elsewhere"), b"put here by hand", "elsewhere", "unknown"),
    ]


async def test_poison_in_every_mailbox_stops_nothing_and_is_never_lost(client: AsyncClient, bare: Nats) -> None:
    waiting = (await client.start_run("patient")).run_id
    ended = (await client.wait((await client.start_run("sound", {"number": 1})).run_id)).run.run_id
    expected = [poison for poison in poisons(waiting, ended) if poison.by]
    for number, poison in enumerate(poisons(waiting, ended)):
        await send(bare, poison, f"poison {new_id('msg')} {number}")
        if not poison.by:
            await send(bare, poison, f"again {new_id('msg')} {number}")
    neighbours = [(await client.start_run("sound", {"number": number})).run_id for number in range(20)]
    views = await asyncio.gather(*(client.wait(run_id) for run_id in neighbours))
    assert {view.run.status for view in views} == {RunStatus.COMPLETED}

    async def given_up() -> bool:
        found = sorted((one.service, one.code, one.subject or "") for one in await letters(client))
        kept = [(one, subjects.kept_as(one.subject)) for one in expected]
        assert found == sorted((one.by, one.code, subject if one.code != "unknown" else "") for one, subject in kept)
        return True

    await eventually(given_up, within_s=30)
    over = await client.get_run(ended)
    assert over.run.status is RunStatus.COMPLETED
    assert (await client.get_run(waiting)).run.status is RunStatus.RUNNING
    await client.drop_all(DeadLetterFilter(), "seen")
    await client.cancel(waiting)


async def until_stuck(client: AsyncClient, run_id: str) -> AsyncIterator[EventRecord]:
    """What a follower of the run is told, until it is told that the run is stuck."""
    async for record in client.events(run_id, follow=True):
        yield record
        if record.type == "run.stuck":
            return


@pytest.mark.parametrize("time", ["nonsense", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59+23:59", "2026-01-01"])
async def test_absurd_times_are_nobodys_problem(client: AsyncClient, bare: Nats, time: str) -> None:
    """What a client says of the time is kept nowhere: what happens, happens when it is decided."""
    run_id = new_id("run")
    body = json.dumps({"workflow": "sound", "input": {"number": 1}, "run_id": run_id}).encode()
    await bare.publish(subjects.cmd(TENANT, "orchestrator", "start_run"), body, headers={"ce-time": time})

    async def begun() -> bool:
        with suppress(NotFound):
            await client.get_run(run_id)
            return True
        return False

    await eventually(begun)
    view = await client.wait(run_id)
    assert view.run.status is RunStatus.COMPLETED
    assert abs((datetime.now(UTC) - view.run.created_at).total_seconds()) < 3600


async def test_a_run_is_stuck_until_its_letter_is_dropped(system: System, client: AsyncClient, bare: Nats) -> None:
    run_id = (await client.start_run("patient")).run_id
    told = await bare.subscribe(subjects.evt(TENANT, "stuck", subjects.ANY, subjects.ANY))
    await flushed(bare)
    await send(bare, Poison(subjects.result(TENANT, run_id), b"no json"), new_id("msg"))

    async def is_stuck() -> RunView:
        view = await client.get_run(run_id)
        assert view.run.stuck is not None
        return view

    view = await eventually(is_stuck)
    (letter,) = await eventually(lambda: letters(client, run_id=run_id))
    assert view.run.stuck is not None
    assert (view.run.stuck.dead_letter, view.run.stuck.code) == (letter.id, MALFORMED)
    assert json.loads((await told.next_msg(timeout=30)).data)["data"]["run_id"] == run_id
    assert [run.run_id for run in (await client.runs(stuck=True)).runs] == [run_id]
    async with asyncio.timeout(60):
        assert letter.id in [record.id async for record in until_stuck(client, run_id)]
    listed = await asyncio.to_thread(paracle, "runs", "ls", "--stuck", url=system.url)
    assert "running, stuck" in listed.stdout
    shown = await asyncio.to_thread(paracle, "dlq", "show", letter.id, url=system.url)
    assert "no json" in shown.stdout
    dropped = await asyncio.to_thread(paracle, "dlq", "drop", letter.id, "--reason", "a test", url=system.url)
    assert dropped.stdout == "1 dead letter dropped\n"

    async def goes_on() -> bool:
        return (await client.get_run(run_id)).run.stuck is None

    await eventually(goes_on)
    assert json.loads((await told.next_msg(timeout=30)).data)["type"] == "run.unstuck"

    async def audited() -> bool:
        events = [stored.event for stored in (await client.audit(run_id)).events]
        assert {"run.stuck", "dead_letter.dropped", "run.unstuck"} <= {event.type for event in events}
        (drop,) = [event for event in events if event.type == "dead_letter.dropped"]
        assert (drop.data["by"], drop.data["why"]) == ("anonymous", "a test")
        return True

    await eventually(audited)
    await client.cancel(run_id)


async def test_what_is_redriven_after_its_cause_was_mended_is_done(
    system: System, client: AsyncClient, bare: Nats
) -> None:
    """A start that nobody waited for, of a workflow that was not there yet; its body is large enough for a claim."""
    since = datetime.now(UTC)
    start = {"workflow": "later", "input": {"number": 1}, "labels": {"of": "redriving"}}
    body = json.dumps({**start, "note": "x" * 300_000}).encode()
    await send(bare, Poison(subjects.cmd(TENANT, "orchestrator", "start_run"), body), f"start {new_id('msg')}")
    (letter,) = await eventually(lambda: letters(client, code="not_found", since=since))
    assert (letter.size, letter.subject) == (len(body), subjects.cmd(TENANT, "orchestrator", "start_run"))
    await asyncio.to_thread(system.apply, text([LATER]))
    done = await asyncio.to_thread(paracle, "dlq", "redrive", letter.id, url=system.url)
    assert done.stdout == "1 dead letter redriven\n"

    async def begun() -> str:
        (run,) = (await client.runs(workflow="later", labels={"of": "redriving"}, created_after=since)).runs
        return run.run_id

    run_id = await eventually(begun)
    assert (await client.wait(run_id)).run.status is RunStatus.COMPLETED
    assert (await client.redrive(letter.id)).settled == (letter.id,)  # as the first time
    with pytest.raises(NotFound, match="it was redriven by"):
        await client.drop(letter.id, "done")
    assert await letters(client) == ()
