"""A cancel reaches all that a tree of agents has set going, five deep, within a second of its acknowledgement."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from datetime import UTC, datetime
from typing import Any, Final

import pytest
import yaml
from tests.e2e.load import counting_tool
from tests.e2e.world import NEEDS_BUBBLEWRAP, PATIENCE_S, SUMMARY, System, allowed_s, named

from paracle_chassis.testing.eventually import eventually
from paracle_chassis.testing.fake_openai import FakeOpenAI
from paracle_chassis.testing.wire import ToolUse, Turn
from paracle_domain.run.commands import RunStatus

PROMISED_S: Final = 1.0
USUAL_S: Final = 1.0
"""To set all of the tree to work."""
LEAVES: Final = ("deep-open", "deep-command", "deep-busy")
OPEN, COMMAND, BUSY = LEAVES


def agent(name: str, **spec: Any) -> dict[str, Any]:
    model = {"name": "openai-compatible/fake-model"}
    return {"kind": "Agent", "metadata": {"name": name}, "spec": {"model": model, "instructions": name, **spec}}


def manifests(port: int) -> str:
    """A line of agents, each asking the next, and three at its end: the fifth delegates on the way."""
    asks = [[{"agent": f"deep-{level + 1}"}] for level in range(4)] + [[{"agent": leaf} for leaf in LEAVES]]
    command = {
        "description": "Runs a command.",
        "backend": {"type": "builtin", "function": "shell"},
        "permissions": {"execute": {}},
        "timeout_s": 600,
    }
    many = {"turns": 1_000, "tool_calls": 1_000}
    documents = [
        *(agent(f"deep-{level}", delegates=delegates, limits=many) for level, delegates in enumerate(asks)),
        agent(OPEN),
        agent(COMMAND, tools=["deep-shell"]),
        agent(BUSY, tools=["deep-count"], limits=many),
        {"kind": "Tool", "metadata": {"name": "deep-shell"}, "spec": command},
        counting_tool("deep-count", "idempotent", port),
    ]
    return "\n---\n".join(yaml.safe_dump({"apiVersion": "paracle/v1", **document}) for document in documents)


class Model:
    """Answers each agent as its part in the tree wants it, and notes when it was asked."""

    def __init__(self, run: str) -> None:
        self.asked: list[tuple[float, str]] = []
        self._run = run
        self._steps = itertools.count()

    def __call__(self, body: Any) -> Turn:
        name = str(body["messages"][0]["content"])
        self.asked.append((time.monotonic(), name))
        match name:
            case "deep-open":
                return Turn(text="This takes long. " * 1_000, drip_s=0.2)
            case "deep-command":
                return Turn(tools=(ToolUse("deep-shell", json.dumps({"command": "sleep 600 & sleep 600"})),))
            case "deep-busy":
                arguments = {"run": self._run, "step": f"s{next(self._steps)}"}
                return Turn(tools=(ToolUse("deep-count", json.dumps(arguments)),), delay_s=0.02)
            case "deep-4":
                return Turn(tools=tuple(asking(leaf) for leaf in LEAVES))
            case _:
                return Turn(tools=(asking(f"deep-{int(name[-1]) + 1}"),))

    def times(self, name: str) -> int:
        return sum(one == name for _, one in self.asked)


def asking(agent: str) -> ToolUse:
    return ToolUse(f"ask_{agent}", '{"text": "Go on."}')


@NEEDS_BUBBLEWRAP
async def test_a_cancel_at_depth_five_stops_streams_calls_and_commands(
    system: System, openai: FakeOpenAI, request: pytest.FixtureRequest
) -> None:
    await asyncio.to_thread(system.apply, manifests(system.effects.port))
    runtime = system.process("agent_runtime")
    before = runtime.descendants()
    async with system.client() as client, asyncio.timeout(PATIENCE_S):
        model = openai.otherwise = Model("deep")
        began = time.monotonic()
        started = await client.invoke("deep-0", {"text": "Go on."})

        async def all_at_work() -> bool:
            if len(system.effects.calls("deep")) <= 5 or model.times(OPEN) != 1:
                return False
            return len(await asyncio.to_thread(runtime.descendants, named("sleep"))) == 2

        await eventually(all_at_work, within_s=30)
        took_s = time.monotonic() - began
        children = [child for child in runtime.descendants() if child not in before]
        await client.cancel(started.run_id)
        acknowledged, at = time.monotonic(), datetime.now(UTC)
        run = await client.wait(started.run_id)
        assert run.run.status is RunStatus.CANCELLED
        await eventually(lambda: not [child for child in children if child.alive])
        stream = next(seen for seen in openai.journal if seen.body["messages"][0]["content"] == OPEN)
        await eventually(stream.gone.is_set)
        # Whoever were to go on would have done so by the time that another tree has come to its end and was stopped.
        other = Model("another")
        openai.otherwise = other
        again = await client.invoke("deep-0", {"text": "Go on."})
        await eventually(lambda: other.times(BUSY) > 50, within_s=30)
        await client.cancel(again.run_id)
        await client.wait(again.run_id)
    models = max(moment for moment, _ in model.asked) - acknowledged
    calls = system.effects.calls("deep")
    tools = (max(call.at for call in calls) - at).total_seconds()
    request.config.stash[SUMMARY].append(
        f"cancel at depth 5: last model call {models:+.3f} s, last tool call {tools:+.3f} s after the acknowledgement"
        f" ({took_s:.1f} s to begin)"
    )
    assert max(models, tools) < allowed_s(PROMISED_S, took_s, USUAL_S)
    assert model.times(OPEN) == model.times(COMMAND) == 1
    assert len({call.step for call in calls}) == len(calls), "no call was made twice"
