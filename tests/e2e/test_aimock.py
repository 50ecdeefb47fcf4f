"""The main path against an independent fake of the providers, the npm package `@copilotkit/aimock`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml
from tests.e2e.histories import assert_sound
from tests.e2e.load import assert_one_key_each, manifests
from tests.e2e.test_providers import ANSWER, assert_completed, assert_no_success
from tests.e2e.world import ROOT, System

from paracle_chassis.testing.npm import installed, needs_node, serving
from paracle_domain.run.commands import RunView

PACKAGE = ROOT / "services" / "provider_gateway" / "tests" / "aimock" / "package.json"
HOME = ROOT / ".paracle" / "aimock"  # the provider gateway's tests use it as well
MODELS = {"openai": "openai/gpt-4o", "anthropic": "anthropic/claude-sonnet-5"}

pytestmark = needs_node()


@pytest.fixture(params=sorted(MODELS))
async def wire(request: pytest.FixtureRequest, system: System, tmp_path: Path) -> AsyncIterator[str]:
    """Which provider's API is spoken; aimock answers it, and agents that ask it are in."""
    wire = str(request.param)
    fixtures = tmp_path / "fixtures.json"
    fixtures.write_text(json.dumps({"fixtures": replies(f"aimock-{wire}")}), encoding="utf-8")
    text = manifests(system.effects.port) + "\n---\n" + yaml.safe_dump_all(agents(wire))
    await asyncio.to_thread(system.apply, text)
    port = system.ports.openai if wire == "openai" else system.ports.anthropic
    arguments = ["-p", str(port), "-f", str(fixtures), "--strict", "--log-level", "silent"]
    async with serving(installed(PACKAGE, HOME) / "dist" / "cli.js", port, *arguments):
        yield wire


def replies(run: str) -> list[dict[str, object]]:
    count = {"name": "count", "arguments": {"run": run, "step": "one"}}
    return [
        {"match": {"userMessage": "count it", "hasToolResult": True}, "response": {"content": "It is counted."}},
        {"match": {"userMessage": "count it"}, "response": {"toolCalls": [count]}},
        {"match": {"userMessage": "hello"}, "response": {"content": "Hello! How can I help you today?"}},
        {"match": {"userMessage": "as json"}, "response": {"content": '{"answer": 42}'}},
        {
            "match": {"userMessage": "broken"},
            "response": {"error": {"message": "out of order", "type": "api_error"}, "status": 500},
        },
    ]


def agents(wire: str) -> list[dict[str, object]]:
    common = {"model": {"name": MODELS[wire]}, "instructions": "Do as you are told.", "limits": {"wall_time_s": 20}}
    specs = {
        f"mocked-{wire}": common,
        f"mocked-worker-{wire}": common | {"tools": ["count"]},
        f"mocked-shaped-{wire}": common | {"output": ANSWER},
        f"mocked-hasty-{wire}": common | {"limits": {"wall_time_s": 2}},
    }
    return [
        {"apiVersion": "paracle/v1", "kind": "Agent", "metadata": {"name": name}, "spec": spec}
        for name, spec in specs.items()
    ]


async def test_words(system: System, wire: str) -> None:
    assert_completed(await system.invoke(f"mocked-{wire}", "hello"), "Hello! How can I help you today?")


async def test_a_tool_call_and_its_result(system: System, wire: str) -> None:
    ended: RunView = await system.invoke(f"mocked-worker-{wire}", "count it")
    assert_completed(ended, "It is counted.")
    assert_one_key_each(system.effects.keys_by_step(f"aimock-{wire}"), ("one",))
    async with system.client() as client:
        await assert_sound(client, ended.run.run_id)


async def test_structured_output(system: System, wire: str) -> None:
    assert_completed(await system.invoke(f"mocked-shaped-{wire}", "as json"), {"answer": 42})


async def test_a_failure_stays_one(system: System, wire: str) -> None:
    assert_no_success(await system.invoke(f"mocked-hasty-{wire}", "broken"))
