"""Trees of agents and held calls on real processes: killed, taken up, cancelled and decided."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.e2e.deciding import asked_for, person
from tests.e2e.world import PATIENCE_S, System

from paracle_chassis.testing.eventually import eventually
from paracle_chassis.testing.fake_openai import FakeOpenAI
from paracle_chassis.testing.wire import ToolUse, Turn
from paracle_client import AsyncClient
from paracle_domain.errors import Forbidden
from paracle_domain.run.commands import RunStatus

TREE = """
apiVersion: paracle/v1
kind: Agent
metadata: {name: tree-leaf}
spec: {model: {name: openai-compatible/fake-model}, instructions: Answer.}
---
apiVersion: paracle/v1
kind: Agent
metadata: {name: tree-branch}
spec: {extends: tree-leaf, delegates: [{agent: tree-leaf, description: Finds out what a question is about.}]}
---
apiVersion: paracle/v1
kind: Agent
metadata: {name: tree-root}
spec: {extends: tree-leaf, delegates: [{agent: tree-branch, description: Finds out what a question is about.}]}
---
apiVersion: paracle/v1
kind: Tool
metadata: {name: tree-pay}
spec:
  description: Pays.
  backend: {type: builtin, function: noop}
  effect: at_most_once
  approval: {when: "arguments.amount > 5", ask: "Pay {{ arguments.amount }}?", roles: [treasury]}
---
apiVersion: paracle/v1
kind: Workflow
metadata: {name: tree-pay}
spec:
  steps:
    - {id: pay, tool: tree-pay, input: {amount: "{{ input.amount }}"}}
  output: "{{ steps.pay.output }}"
"""


@pytest.fixture
async def ann(system: System) -> Any:
    """She starts runs."""
    await asyncio.to_thread(system.apply, TREE)
    async with person(system, "ann") as client:
        yield client


def asks(agent: str) -> Turn:
    """A turn that takes a second, and turns to another agent."""
    return Turn(tools=(ToolUse(f"ask_{agent}", '{"text": "What is it?"}'),), delay_s=1.0)


def says(text: str) -> Turn:
    return Turn(text=text, delay_s=1.0)


DEEP = (asks("tree-branch"), asks("tree-leaf"), says("the leaf"), says("the branch"), says("the root"))


@pytest.mark.parametrize("seen", [1, 2, 3, 4, 5])
async def test_a_killed_tree_goes_on_where_it_was(
    system: System, ann: AsyncClient, openai: FakeOpenAI, seen: int
) -> None:
    """Whatever depth it had come to: each model call is made once, and its answer used."""
    openai.script(*DEEP)
    started = await ann.invoke("tree-root", {"text": "What is it?"})
    await eventually(lambda: len(openai.journal) == seen)
    system.stack.kill("agent_runtime")
    await asyncio.to_thread(system.stack.start, "agent_runtime")
    async with asyncio.timeout(PATIENCE_S):
        run = await ann.wait(started.run_id)
    assert (run.run.status, run.output) == (RunStatus.COMPLETED, "the root"), run.error
    assert (run.usage.model_calls, run.usage.tool_calls) == (5, 2)
    assert len(openai.journal) == 5


async def test_a_cancel_closes_the_deepest_call(system: System, ann: AsyncClient, openai: FakeOpenAI) -> None:
    openai.script(asks("tree-branch"), asks("tree-leaf"), Turn(text="never", hang_after=0))
    started = await ann.invoke("tree-root", {"text": "What is it?"})
    await eventually(lambda: len(openai.journal) == 3)
    await ann.cancel(started.run_id)
    async with asyncio.timeout(PATIENCE_S):
        run = await ann.wait(started.run_id)
    assert run.run.status is RunStatus.CANCELLED
    await eventually(openai.journal[2].gone.is_set)
    assert len(openai.journal) == 3


@pytest.mark.parametrize("victim", ["agent_runtime", "orchestrator", "nats", "postgres"])
async def test_a_held_call_outlives_any_process(system: System, ann: AsyncClient, victim: str) -> None:
    run_id = (await ann.start_run("tree-pay", {"amount": 9})).run_id
    async with person(system, "tess", "treasury") as tess:
        one = await asked_for(tess, run_id)
        assert (one.ask, one.tool) == ("Pay 9?", "tree-pay")
        assert one.action["arguments"] == {"amount": 9}  # type: ignore[index,call-overload]  # an object, as asked
        system.stack.kill(victim)
        await asyncio.to_thread(system.stack.start, victim)
        with pytest.raises(Forbidden):
            await ann.decide(one.approval_id, "approve", digest=one.digest)
        await tess.decide(one.approval_id, "approve", digest=one.digest)
        async with asyncio.timeout(PATIENCE_S):
            run = await ann.wait(run_id)
    assert (run.run.status, run.output) == (RunStatus.COMPLETED, {"amount": 9})


async def test_a_small_sum_asks_nobody_and_a_rejected_one_is_not_paid(system: System, ann: AsyncClient) -> None:
    async with asyncio.timeout(PATIENCE_S):
        small = await ann.wait((await ann.start_run("tree-pay", {"amount": 5})).run_id)
    assert small.run.status is RunStatus.COMPLETED
    run_id = (await ann.start_run("tree-pay", {"amount": 6})).run_id
    async with person(system, "tess", "treasury") as tess:
        one = await asked_for(tess, run_id)
        await tess.decide(one.approval_id, "reject", digest=one.digest, reason="no")
    async with asyncio.timeout(PATIENCE_S):
        large = await ann.wait(run_id)
    assert large.error
    assert (large.run.status, large.error.code) == (RunStatus.FAILED, "approval_rejected")
