"""The main path against an independent fake of the providers, the npm package `@copilotkit/aimock`."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml
from tests.e2e.histories import assert_sound
from tests.e2e.load import assert_one_key_each, manifests
from tests.e2e.test_providers import ANSWER, assert_completed, assert_no_success
from tests.e2e.world import ROOT, System

from paracle_chassis.testing.eventually import eventually
from paracle_domain.run.commands import RunView

PACKAGE = ROOT / "services" / "provider_gateway" / "tests" / "aimock" / "package.json"
ABSENT = [tool for tool in ("node", "npm") if shutil.which(tool) is None]
MODELS = {"openai": "openai/gpt-4o", "anthropic": "anthropic/claude-sonnet-5"}

pytestmark = [
    pytest.mark.node,
    pytest.mark.skipif(bool(ABSENT), reason=f"needs {' and '.join(ABSENT)} on the PATH"),
]


@pytest.fixture(scope="session")
def aimock() -> Path:
    """The package's entry point, in the folder that the provider gateway's tests use as well."""
    home = ROOT / ".paracle" / "aimock"
    entry = home / "node_modules" / "@copilotkit" / "aimock" / "dist" / "cli.js"
    wanted = PACKAGE.read_text(encoding="utf-8")
    if not entry.exists() or (home / "package.json").read_text(encoding="utf-8") != wanted:
        home.mkdir(parents=True, exist_ok=True)
        (home / "package.json").write_text(wanted, encoding="utf-8")
        command = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error"]
        subprocess.run(command, cwd=home, check=True, capture_output=True, timeout=100)
    return entry


@pytest.fixture(params=sorted(MODELS))
async def wire(request: pytest.FixtureRequest, system: System, aimock: Path, tmp_path: Path) -> AsyncIterator[str]:
    """Which provider's API is spoken; aimock answers it, and agents that ask it are in."""
    wire = str(request.param)
    fixtures = tmp_path / "fixtures.json"
    fixtures.write_text(json.dumps({"fixtures": replies(f"aimock-{wire}")}), encoding="utf-8")
    text = manifests(system.effects.port) + "\n---\n" + yaml.safe_dump_all(agents(wire))
    await asyncio.to_thread(system.apply, text)
    port = system.ports.openai if wire == "openai" else system.ports.anthropic
    arguments = ["-p", str(port), "-f", str(fixtures), "--strict", "--log-level", "silent"]
    process = await asyncio.create_subprocess_exec("node", str(aimock), *arguments)

    async def listening() -> bool:
        assert process.returncode is None, "aimock did not start"
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        writer.close()
        await writer.wait_closed()
        return True

    try:
        await eventually(listening, within_s=30)
        yield wire
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


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
