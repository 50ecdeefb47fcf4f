"""An agent with tools of an MCP server that others wrote: `@modelcontextprotocol/server-everything`, from npm."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

import yaml
from tests.e2e.test_providers import PROVIDERS, agent, assert_completed
from tests.e2e.world import EVERYTHING, MCP_HOME, System, named, paracle

from paracle_chassis.testing.eventually import eventually
from paracle_chassis.testing.fake_openai import FakeOpenAI
from paracle_chassis.testing.npm import installed, needs_node
from paracle_chassis.testing.wire import call, say
from paracle_embedded import ProcessRef

PACKAGE = Path(__file__).parent / "mcp_server" / "package.json"

pytestmark = needs_node()


def servers(system: System) -> list[ProcessRef]:
    """The living processes of it that the agent runtime has started."""
    return system.process("agent_runtime").descendants(named("node"))


def broken_off(system: System, openai: FakeOpenAI) -> bool:
    """Whether the model has been told how its second call ended; until then, whoever may work on that is killed."""
    if len(openai.journal) >= 3:
        return True
    for server in servers(system):
        server.send(signal.SIGKILL)
    return False


async def test_an_agent_goes_on_with_a_server_that_was_killed(system: System, openai: FakeOpenAI) -> None:
    await asyncio.to_thread(installed, PACKAGE, MCP_HOME)
    made = await asyncio.to_thread(paracle, "import", "mcp", "everything", "--", "node", str(EVERYTHING), "stdio")
    assert made.returncode == 0, made.stderr
    assert "13 tools" in made.stderr
    tools = ["everything-echo", "everything-trigger-long-running-operation"]
    bot = yaml.safe_dump(agent("mcp-bot", f"{PROVIDERS['openai']}/model-mcp", tools=tools))
    await asyncio.to_thread(system.apply, f"{made.stdout}\n---\n{bot}")
    openai.script(
        call("everything-echo", {"message": "before"}, id="call_1"),
        call("everything-trigger-long-running-operation", {"duration": 600, "steps": 1}, id="call_2"),
        call("everything-echo", {"message": "after"}, id="call_3"),
        say("Both were heard."),
    )
    async with system.client() as client, asyncio.timeout(90):
        accepted = await client.invoke("mcp-bot", "Echo.")
        await eventually(lambda: len(openai.journal) >= 2, within_s=30)
        (first,) = servers(system)
        await eventually(lambda: broken_off(system, openai), within_s=30)
        ended = await client.wait(accepted.run_id)
    assert_completed(ended, "Both were heard.")
    (second,) = servers(system)
    assert second.pid != first.pid
    said = json.dumps(openai.journal[-1].body)
    assert "Echo: before" in said
    assert "MCP server 'everything'" in said, "the model is told that a call broke off"
    assert "Echo: after" in said
    await asyncio.to_thread(system.stack.kill, "agent_runtime")
    await eventually(lambda: not second.alive)  # servers die with the runtime, whatever kills it
