"""Starts that are published with nothing but a NATS client."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from asyncio.subprocess import PIPE
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client as Nats
from nats.errors import TimeoutError as NatsTimeout
from tests.e2e.histories import assert_sound
from tests.e2e.world import COMMAND_S, ROOT, System

from paracle_chassis.frames import flushed
from paracle_chassis.testing.eventually import eventually
from paracle_domain.run.commands import RunStatus

START = "paracle.v1.default.cmd.orchestrator.start_run"
README_URL = "nats://127.0.0.1:4222"


def shown(name: str) -> str:
    """What the README shows under this name."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(rf"<!-- run by tests/e2e: {re.escape(name)} -->\n```\w+\n(.*?)```", text, re.DOTALL)
    assert found is not None, f"the README does not show {name} any more"
    return found[1]


@pytest.fixture
async def client(system: System, bare: Nats) -> Nats:
    """A bare NATS client; the README's agent and workflow are in."""
    await asyncio.to_thread(system.apply, shown("brief.yaml"))
    return bare


def body(text: str, **more: Any) -> bytes:
    return json.dumps({"workflow": "brief", "input": {"text": text}, **more}).encode()


async def test_the_readme_shows_what_happens(system: System, client: Nats, tmp_path: Path) -> None:
    assert client.is_connected
    script = tmp_path / "start.py"
    code = shown("start.py")
    assert README_URL in code
    script.write_text(code.replace(README_URL, system.stack.nats_url), encoding="utf-8")
    process = await asyncio.create_subprocess_exec(sys.executable, script, stdout=PIPE, stderr=PIPE)
    async with asyncio.timeout(COMMAND_S):
        told, complaints = await process.communicate()
    assert process.returncode == 0, complaints.decode()
    answer, *events = told.decode().splitlines()
    accepted = json.loads(answer)
    assert accepted["created"] is True
    assert events == ["1 run.started", "2 step.started", "3 step.completed", "4 run.completed"]
    async with system.client() as rest:
        await assert_sound(rest, accepted["run_id"])


async def test_a_start_without_a_reply_subject_is_taken_just_as_durably(system: System, client: Nats) -> None:
    labels = {"sent": "without waiting"}
    await client.publish(START, body("Nobody waits for an answer.", labels=labels))
    await flushed(client)
    async with system.client() as rest:

        async def completed() -> bool:
            page = await rest.runs(workflow="brief", limit=500)
            return [run.status for run in page.runs if run.labels == labels] == [RunStatus.COMPLETED]

        await eventually(completed)


async def test_the_same_message_id_is_the_same_run(client: Nats) -> None:
    headers = {"Nats-Msg-Id": "order-4711"}
    answers = [await _ask(client, body("Once."), headers) for _ in range(3)]
    assert answers[0]["created"] is True
    assert len({answer["run_id"] for answer in answers}) == 1


async def test_the_same_message_id_with_another_request_is_a_conflict(client: Nats) -> None:
    headers = {"Nats-Msg-Id": "order-4712"}
    assert (await _ask(client, body("Once."), headers))["created"] is True

    async def refused() -> bool:
        # JetStream drops what comes with the same id within a tenth of a second, and then nobody answers: ask again
        with suppress(NatsTimeout):
            problem = json.loads((await client.request(START, body("Twice."), timeout=1, headers=headers)).data)
            assert (problem["code"], problem["status"]) == ("conflict", 409)
            return True
        return False

    await eventually(refused)


async def test_the_same_run_id_is_the_same_run(client: Nats) -> None:
    chosen = "run_01JDZ7T6C4W2V9M3N5K8Q0XHRB"
    answers = [await _ask(client, body("Once.", run_id=chosen), {}) for _ in range(2)]
    assert [one["run_id"] for one in answers] == [chosen, chosen]
    assert [one["created"] for one in answers] == [True, False]


@pytest.mark.parametrize(
    ("sent", "code", "names"),
    [
        (b"\xff\xfe", "malformed_message", "xff"),
        (b'{"workflow": "nowhere"}', "not_found", "workflow 'nowhere'"),
        (b'{"workflow": ["brief"]}', "malformed_message", "['brief']"),
        (b"{}", "invalid_input", "exactly one of workflow and agent"),
    ],
    ids=["not UTF-8", "unknown workflow", "wrong type", "nothing"],
)
async def test_a_bad_start_is_answered_with_a_problem(
    system: System, client: Nats, sent: bytes, code: str, names: str
) -> None:
    async with system.client() as rest:

        async def known() -> list[str]:  # some that others started may still go on
            return [run.run_id for run in (await rest.runs(limit=500)).runs]

        before = await known()
        problem = await _ask(client, sent, {})
        assert problem["code"] == code
        assert names in problem["detail"]
        assert await known() == before


async def _ask(client: Nats, sent: bytes, headers: dict[str, str]) -> dict[str, Any]:
    answer = await client.request(START, sent, timeout=15, headers=headers)
    found: dict[str, Any] = json.loads(answer.data)
    return found
