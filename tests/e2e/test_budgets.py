"""Budgets on real processes: many agents, two replicas of the gateway, one of which is killed in the middle."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from decimal import Decimal
from typing import Any, Final

import psutil
import pytest
import yaml
from tests.e2e.world import System

from paracle_chassis.nats_bus import NatsBus
from paracle_chassis.settings import ServiceSettings
from paracle_chassis.testing.eventually import eventually
from paracle_chassis.testing.fake_openai import FakeOpenAI
from paracle_chassis.testing.wire import Turn
from paracle_domain.budget.messages import BudgetUse, DeleteBudget, ListBudgets, SetBudget
from paracle_domain.budget.spec import Budget
from paracle_domain.envelope import Context
from paracle_domain.errors import BudgetExceeded, ParacleError
from paracle_domain.ids import new_id
from paracle_domain.inference.chat import ChatMessage, Sampling
from paracle_domain.inference.ledger import QueryUsage
from paracle_domain.inference.request import CallLabels, Complete

AGENTS: Final = 200
CALL_USD: Final = Decimal("0.01")
"""What one call costs: 20 tokens at 100 USD a million, and 8 at 1,000."""
SESSIONS: Final = "sessions of postgres"
CRASHED_S: Final = 12.0
"""Longer than a replica may be silent."""
CONTEXT: Final = Context("default", principal="tester")
PROVIDER: Final[dict[str, Any]] = {
    "apiVersion": "paracle/v1",
    "kind": "Provider",
    "metadata": {"name": "priced"},
    "spec": {"models": {"small": {"price": {"input": 100, "output": 1000}}}},
}


@pytest.fixture
async def bus(system: System) -> AsyncIterator[NatsBus]:
    found = NatsBus("tester", ServiceSettings(nats_url=system.stack.nats_url))
    await found.open()
    yield found
    await found.close()


@asynccontextmanager
async def priced(system: System) -> AsyncIterator[FakeOpenAI]:
    """A provider that is set up by a manifest, with a price."""
    async with FakeOpenAI() as fake:
        fake.otherwise = Turn(text="Done.", delay_s=0.3, input_tokens=20, output_tokens=8)
        manifest = PROVIDER | {"spec": PROVIDER["spec"] | {"base_url": fake.url}}
        await asyncio.to_thread(system.apply, yaml.safe_dump(manifest))
        yield fake


async def agent(bus: NatsBus, name: str, project: str) -> int:
    """Calls until the budget says no; what may pass is asked again with the same id, as the agent runtime does."""
    answered = 0
    while True:
        call = Complete(
            call_id=new_id("call"),
            model="priced/small",
            messages=(ChatMessage.user("Go on."),),
            sampling=Sampling(max_output_tokens=10),
            labels=CallLabels(agent=name, project=project),
            timeout_s=90,
        )
        try:
            await _answered(bus, call)
        except BudgetExceeded:
            return answered
        answered += 1


async def _answered(bus: NatsBus, call: Complete) -> None:
    while True:
        try:
            await bus.call(call, CONTEXT, timeout_s=100, idle_s=5)
        except ParacleError as error:
            if not error.retryable:
                raise
            await asyncio.sleep(0.1)
        else:
            return


async def crash_for_long(system: System) -> None:
    """The sessions of PostgreSQL die with what they had not written, and it takes its time to be there again.

    Its main process lives on, so PostgreSQL says that it has been there all the time.
    """
    pid = system.stack.pid("postgres")
    assert pid is not None
    main = psutil.Process(pid)
    main.suspend()
    try:
        for session in main.children():
            with suppress(psutil.NoSuchProcess):
                session.kill()
        enough = time.monotonic() + CRASHED_S
        await eventually(lambda: time.monotonic() > enough)
    finally:
        main.resume()


async def use(bus: NatsBus, name: str) -> BudgetUse:
    """How the budget's only count stands."""
    (view,) = (await bus.call(ListBudgets(name=name), CONTEXT)).budgets
    (found,) = view.uses
    return found


@pytest.mark.parametrize("killed", [None, "provider_gateway-2", "postgres", SESSIONS])
async def test_all_agents_together_pass_a_budget_by_one_call_at_most(
    system: System, bus: NatsBus, killed: str | None
) -> None:
    """In peace, with a replica killed in the middle, and with the budgets themselves: they lose their last moments."""
    await asyncio.to_thread(system.scale, provider_gateway=2)
    name = f"dollar-{killed}".replace(" ", "-")
    budget = Budget(name=name, scope="project", of=name, limit_usd=Decimal(1))
    await bus.call(SetBudget(budget=budget), CONTEXT)
    async with priced(system) as fake, asyncio.timeout(110):
        agents = [asyncio.create_task(agent(bus, f"agent-{number}", name)) for number in range(AGENTS)]
        if killed is not None:
            await eventually(lambda: len(fake.journal) >= 40, within_s=30)
            if killed == SESSIONS:
                await crash_for_long(system)
            else:
                system.stack.kill(killed)
        if killed == "postgres":
            await asyncio.to_thread(system.stack.start, killed)
        answered = sum(await asyncio.gather(*agents))
        made = len(fake.journal)
    assert answered <= made
    assert made * CALL_USD <= 1 + CALL_USD, "what the provider was asked is what is paid"
    await eventually(lambda: _settled(bus, name), within_s=30)
    found = await use(bus, name)
    assert (found.reserved_usd, found.reserved_tokens) == (Decimal(0), 0)
    assert found.spent_usd >= 1
    assert found.hit_at is not None
    assert found.spent_usd >= made * CALL_USD, "whatever was paid is counted"
    if killed != "provider_gateway-2":  # nobody knows what the replica that died had used
        assert found.spent_usd == made * CALL_USD == Decimal(answered) * CALL_USD
        assert answered == 100
    await eventually(lambda: _nothing_is_open(bus, name), within_s=30)
    await bus.call(DeleteBudget(name=name), CONTEXT)


async def test_a_budget_of_another_model_turns_to_it(system: System, bus: NatsBus) -> None:
    budget = Budget(
        name="turns", scope="project", of="turns", limit_usd=Decimal("0.005"), on_hit="model", model="sandbox/rules"
    )
    await bus.call(SetBudget(budget=budget), CONTEXT)
    async with priced(system):
        answers = []
        for _ in range(2):
            call = Complete(
                call_id=new_id("call"),
                model="priced/small",
                messages=(ChatMessage.user("Go on."),),
                labels=CallLabels(project="turns"),
            )
            answers.append(await bus.call(call, CONTEXT, timeout_s=30, idle_s=5))
            await eventually(lambda: _settled(bus, "turns"))
    assert [answer.provider for answer in answers] == ["priced", "sandbox"]
    assert (await use(bus, "turns")).calls == 2
    await bus.call(DeleteBudget(name="turns"), CONTEXT)


async def _settled(bus: NatsBus, name: str) -> bool:
    return (await use(bus, name)).reserved_tokens == 0


async def _nothing_is_open(bus: NatsBus, project: str) -> bool:
    """Whether the ledger has no attempt of the project in the air any more."""
    total = (await bus.call(QueryUsage(by=("project",), project=project), CONTEXT)).total
    return total.open == 0
