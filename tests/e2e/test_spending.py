"""Budgets as people set them, through the command line and the API: what becomes of a run when one is used up."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any, Final

import pytest
import yaml
from tests.e2e.deciding import FINANCE, asked_for, fresh_name, person, restart
from tests.e2e.histories import assert_sound, audit
from tests.e2e.test_budgets import CALL_USD, priced
from tests.e2e.world import PATIENCE_S, ROOT, System, paracle

from paracle_chassis.testing.eventually import eventually
from paracle_chassis.testing.fake_openai import FakeOpenAI
from paracle_client import AsyncClient
from paracle_domain.budget.messages import BudgetUse
from paracle_domain.run.commands import ApprovalStatus, ApprovalView, RunStatus, RunView, StepStatus

EXAMPLE: Final = ROOT / "examples" / "budget" / "agents.yaml"
BOB: Final = {"PARACLE_PRINCIPAL": "bob", "PARACLE_ROLES": ",".join(FINANCE)}


def clerks() -> str:
    """A workflow of three model calls, one after the other, each of which costs `CALL_USD`."""
    model = {"name": "priced/small", "max_output_tokens": 10}
    steps = [
        {"id": "first", "agent": "clerk", "input": {"text": "One."}},
        {"id": "second", "agent": "clerk", "input": {"text": "Two."}, "needs": ["first"]},
        {"id": "third", "agent": "clerk", "input": {"text": "Three."}, "needs": ["second"]},
    ]
    documents: list[dict[str, Any]] = [
        {"kind": "Agent", "metadata": {"name": "clerk"}, "spec": {"model": model, "instructions": "Answer."}},
        {"kind": "Workflow", "metadata": {"name": "clerks"}, "spec": {"steps": steps}},
    ]
    return yaml.safe_dump_all([{"apiVersion": "paracle/v1"} | one for one in documents])


@pytest.fixture
async def fake(system: System) -> AsyncIterator[FakeOpenAI]:
    """What answers the clerks."""
    async with priced(system) as found:
        await asyncio.to_thread(system.apply, clerks())
        yield found


@pytest.fixture
async def ann(system: System) -> AsyncIterator[AsyncClient]:
    """She starts runs."""
    async with person(system, "ann") as client:
        yield client


async def command(system: System, *arguments: str, **environment: str) -> str:
    """What the command line says to it."""
    done = await asyncio.to_thread(paracle, *arguments, url=system.url, environment=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


async def set_budget(system: System, name: str, *more: str) -> None:
    """For the project of the same name; it lasts for one call and a half."""
    await command(system, "budget", "set", name, "--scope", "project", "--of", name, "--usd", "0.015", *more)


async def run(client: AsyncClient, project: str) -> str:
    return (await client.start_run("clerks", labels={"project": project})).run_id


async def ended(client: AsyncClient, run_id: str) -> RunView:
    async with asyncio.timeout(PATIENCE_S):
        view = await client.wait(run_id)
    await assert_sound(client, run_id)
    return view


async def spent(system: System, name: str) -> BudgetUse:
    """How the budget stands, as `paracle budget ls` tells, once nothing is reserved."""
    found: list[BudgetUse] = []

    async def is_settled() -> bool:
        (view,) = json.loads(await command(system, "budget", "ls", name, "--json"))["budgets"]
        found[:] = [BudgetUse.model_validate(use) for use in view["uses"]]
        return not found[0].reserved_tokens

    await eventually(is_settled, within_s=30)
    return found[0]


async def used(system: System, project: str) -> dict[str, tuple[int, Decimal]]:
    """Attempts and cost by deployment, as `paracle usage` tells."""
    table = json.loads(await command(system, "usage", "--by", "deployment", "--project", project, "--json"))
    rows = {row["by"]["deployment"]: row["spend"] for row in table["rows"]}
    assert sum(spend["attempts"] for spend in rows.values()) == table["total"]["attempts"]
    return {name: (spend["attempts"], Decimal(spend["cost_usd"])) for name, spend in rows.items()}


async def test_a_budget_that_is_used_up_stops_the_run(system: System, fake: FakeOpenAI, ann: AsyncClient) -> None:
    name = fresh_name("stop")
    await set_budget(system, name)
    view = await ended(ann, await run(ann, name))
    assert view.run.status is RunStatus.FAILED
    assert view.error is not None
    assert (view.error.code, view.error.retryable) == ("budget_exceeded", False)
    assert name in view.error.message
    assert [step.status for step in view.steps[:2]] == [StepStatus.COMPLETED] * 2
    use = await spent(system, name)
    assert (len(fake.journal), use.calls, use.spent_usd, use.remaining_usd) == (2, 2, 2 * CALL_USD, Decimal(0))
    assert use.hit_at is not None
    assert await used(system, name) == {"priced/small": (2, 2 * CALL_USD)}
    await command(system, "budget", "rm", name)
    view = await ended(ann, await run(ann, name))
    assert view.run.status is RunStatus.COMPLETED, "a budget that is gone holds nothing back"


async def test_a_run_goes_on_with_the_cheaper_model(system: System, fake: FakeOpenAI, ann: AsyncClient) -> None:
    name = fresh_name("cheaper")
    await set_budget(system, name, "--on-hit", "model", "--model", "sandbox/rules")
    view = await ended(ann, await run(ann, name))
    assert view.run.status is RunStatus.COMPLETED, view.error
    use = await spent(system, name)
    by_model = await used(system, name)
    attempts, cheap = by_model.pop("sandbox/rules")
    assert by_model == {"priced/small": (2, 2 * CALL_USD)}
    assert (attempts, len(fake.journal)) == (1, 2)
    assert cheap < CALL_USD
    assert (use.calls, use.spent_usd) == (3, 2 * CALL_USD + cheap), "it counts, and is not held back"
    await command(system, "budget", "rm", name)


async def test_people_raise_a_budget_once_whoever_dies_meanwhile(
    system: System, fake: FakeOpenAI, ann: AsyncClient
) -> None:
    name = fresh_name("ask")
    await set_budget(system, name, "--on-hit", "ask", "--role", "finance")
    run_id = await run(ann, name)
    one = await asked_for(ann, run_id)
    assert len(fake.journal) == 2
    await restart(system, "agent_runtime")
    assert (await ann.get_run(run_id)).run.status is RunStatus.RUNNING
    assert (await ann.get_approval(one.approval_id)).status is ApprovalStatus.OPEN
    await command(system, "approvals", "approve", one.approval_id, "--digest", one.digest, "--reason", "go on", **BOB)
    await restart(system, "agent_runtime")
    view = await ended(ann, run_id)
    assert view.run.status is RunStatus.COMPLETED, view.error
    assert [asked.approval_id for asked in (await ann.approvals(run_id=run_id)).approvals] == [one.approval_id]
    use = await spent(system, name)
    assert isinstance(one.action, dict)
    assert use.raised_usd == Decimal(str(one.action["raise_usd"])), "once, by what the approver was shown"
    assert use.limit_usd == Decimal("0.015") + use.raised_usd
    assert use.spent_usd == len(fake.journal) * CALL_USD
    attempts, cost = (await used(system, name))["priced/small"]
    assert (attempts, cost) == (use.calls, use.spent_usd)
    await command(system, "budget", "rm", name)


async def test_a_raise_that_is_refused_fails_the_run(system: System, fake: FakeOpenAI, ann: AsyncClient) -> None:
    name = fresh_name("refuse")
    await set_budget(system, name, "--on-hit", "ask", "--role", "finance")
    run_id = await run(ann, name)
    one = await asked_for(ann, run_id)
    await command(system, "approvals", "reject", one.approval_id, "--digest", one.digest, "--reason", "no", **BOB)
    view = await ended(ann, run_id)
    assert view.error is not None
    assert (view.run.status, view.error.code) == (RunStatus.FAILED, "budget_exceeded")
    use = await spent(system, name)
    assert (use.raised_usd, len(fake.journal)) == (Decimal(0), 2)
    await command(system, "budget", "rm", name)


async def all_wait(client: AsyncClient, run_ids: list[str]) -> ApprovalView:
    """The one approval that all these runs wait for."""

    async def are_held() -> bool:
        stored = [await audit(client, run_id) for run_id in run_ids]
        return all(any(one.event.type == "task.budget_held" for one in events) for events in stored)

    await eventually(are_held, within_s=60)
    asked = [one for run_id in run_ids for one in (await client.approvals(run_id=run_id)).approvals]
    (only,) = asked
    return only


async def test_all_runs_that_wait_for_a_budget_go_on_once_it_is_raised_by_hand(
    system: System, fake: FakeOpenAI, ann: AsyncClient
) -> None:
    name = fresh_name("by-hand")
    await set_budget(system, name, "--on-hit", "ask", "--role", "finance")
    run_ids = [await run(ann, name) for _ in range(4)]
    one = await all_wait(ann, run_ids)
    await restart(system, "agent_runtime")
    assert len(fake.journal) == 2
    await command(system, "budget", "raise", name, name, "--usd", "1", "--reason", "go on")
    views = [await ended(ann, run_id) for run_id in run_ids]
    assert [view.run.status for view in views] == [RunStatus.COMPLETED] * 4
    assert await all_wait(ann, run_ids) == await ann.get_approval(one.approval_id), "nobody was asked again"
    await eventually(lambda: _is(ann, one, ApprovalStatus.VOID))
    use = await spent(system, name)
    assert (use.raised_usd, use.spent_usd, len(fake.journal)) == (Decimal(1), 12 * CALL_USD, 12)
    await command(system, "budget", "rm", name)


async def test_a_rejection_fails_all_runs_that_wait_for_the_budget(
    system: System, fake: FakeOpenAI, ann: AsyncClient
) -> None:
    name = fresh_name("refuse-all")
    await set_budget(system, name, "--on-hit", "ask", "--role", "finance")
    run_ids = [await run(ann, name) for _ in range(4)]
    one = await all_wait(ann, run_ids)
    await command(system, "approvals", "reject", one.approval_id, "--digest", one.digest, "--reason", "no", **BOB)
    views = [await ended(ann, run_id) for run_id in run_ids]
    assert {view.error.code for view in views if view.error} == {"budget_exceeded"}
    assert [view.run.status for view in views] == [RunStatus.FAILED] * 4
    assert ((await spent(system, name)).raised_usd, len(fake.journal)) == (Decimal(0), 2)
    await command(system, "budget", "rm", name)


async def _is(client: AsyncClient, one: ApprovalView, status: ApprovalStatus) -> bool:
    return (await client.get_approval(one.approval_id)).status is status


async def test_the_example_runs_as_it_stands(system: System, ann: AsyncClient) -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    await asyncio.to_thread(system.apply, text)
    labels = {"project": "demo"}
    await command(system, "budget", "set", "demo", "--scope", "project", "--of", "demo", "--tokens", "60")
    view = await ended(ann, (await ann.start_run("letters", labels=labels)).run_id)
    assert view.error is not None
    assert (view.run.status, view.error.code) == (RunStatus.FAILED, "budget_exceeded")
    assert [step.status for step in view.steps] == [StepStatus.COMPLETED, StepStatus.COMPLETED, StepStatus.FAILED]
    await command(system, "budget", "raise", "demo", "demo", "--tokens", "100", "--reason", "they must go out today")
    fork = await ann.fork(view.run.run_id, "third")
    view = await ended(ann, fork.run_id)
    assert view.run.status is RunStatus.COMPLETED, view.error
    await command(system, "budget", "rm", "demo")
    await ann.delete_manifests(text)
