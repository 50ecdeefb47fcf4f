"""People are asked to raise a budget, on real processes: what they agree to is what they were asked about."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any, Final

import psutil
import pytest
from nats.aio.client import Client as Nats
from tests.e2e.deciding import asked_for, person
from tests.e2e.world import PATIENCE_S, System

from paracle_chassis.frames import flushed
from paracle_chassis.testing.eventually import eventually
from paracle_client import AsyncClient
from paracle_domain import subjects
from paracle_domain.budget.messages import BudgetUse
from paracle_domain.budget.spec import Budget, BudgetScope, OnHit
from paracle_domain.machine import EventRecord
from paracle_domain.run.commands import ApprovalStatus, ApprovalView, RunStatus, RunView

NAME: Final = "asks-first"
AGENT: Final = """
apiVersion: paracle/v1
kind: Agent
metadata: {name: short-answerer}
spec:
  model: {name: sandbox/rules, max_output_tokens: 50}
  instructions: Answer the letter in one sentence.
"""


@pytest.fixture
async def bob(system: System) -> AsyncIterator[AsyncClient]:
    """Whoever starts a run does not decide about its budget; he does."""
    async with person(system, "bob") as client:
        yield client


@contextmanager
def held_still(system: System, service: str) -> Iterator[None]:
    """It hangs, and hears of nothing."""
    pid = system.stack.pid(service)
    assert pid is not None
    process = psutil.Process(pid)
    process.suspend()
    try:
        yield
    finally:
        process.resume()


async def test_an_approval_raises_no_budget_that_was_changed_since_it_was_asked(
    system: System, bob: AsyncClient, bare: Nats
) -> None:
    """The runtime hangs while somebody changes the budget, and another agrees to what he was asked before."""
    told: dict[int, str] = {}  # what is told again has the same number

    async def hear(message: Any) -> None:
        told[EventRecord.model_validate_json(message.data).seq] = message.subject.rpartition(".")[2]

    await bare.subscribe(subjects.evt("default", "budget", NAME, "*"), cb=hear)
    await flushed(bare)
    await asyncio.to_thread(system.apply, AGENT)
    budget = Budget(name=NAME, scope=BudgetScope.PROJECT, of=NAME, limit_tokens=1, on_hit=OnHit.ASK)
    async with person(system, "ann") as ann, asyncio.timeout(2 * PATIENCE_S):
        await ann.set_budget(budget)
        assert (await answered(ann)).run.status is RunStatus.COMPLETED
        waiting = (await ann.invoke("short-answerer", {"text": "Where is it?"}, labels={"project": NAME})).run_id
        old = await asked_for(bob, waiting)
        with held_still(system, "agent_runtime"):
            await ann.set_budget(budget.model_copy(update={"limit_tokens": 2}))
            await bob.decide(old.approval_id, "approve", digest=old.digest)
        new = await eventually(lambda: another(bob, waiting, old))
        assert new is not None
        assert (await use(bob)).raised_tokens == 0
        assert (await bob.get_approval(old.approval_id)).status is ApprovalStatus.APPROVED
        await bob.decide(new.approval_id, "approve", digest=new.digest)
        assert (await ann.wait(waiting)).run.status is RunStatus.COMPLETED
        assert (await use(bob)).raised_tokens > 0
        expected = ["set", "set", "raise_void", "raised"]
        await eventually(lambda: [one for _, one in sorted(told.items()) if one != "hit"] == expected)
        await ann.delete_budget(NAME)


async def answered(client: AsyncClient) -> RunView:
    accepted = await client.invoke("short-answerer", {"text": "Thank you."}, labels={"project": NAME})
    return await client.wait(accepted.run_id)


async def another(client: AsyncClient, run_id: str, before: ApprovalView) -> ApprovalView | None:
    """What the run asks besides `before`."""
    found = (await client.approvals(run_id=run_id)).approvals
    return next((one for one in found if one.approval_id != before.approval_id), None)


async def use(client: AsyncClient) -> BudgetUse:
    (view,) = (await client.budgets(name=NAME)).budgets
    (found,) = view.uses
    return found
