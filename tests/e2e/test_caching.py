"""Cached answers, as people have them by a manifest: what is asked once, what that saves, and what it outlives."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest
import yaml
from tests.e2e.deciding import fresh_name, person, restart
from tests.e2e.histories import assert_sound
from tests.e2e.test_budgets import CALL_USD, priced
from tests.e2e.world import PATIENCE_S, System, paracle

from paracle_chassis.testing.eventually import eventually
from paracle_chassis.testing.fake_openai import FakeOpenAI
from paracle_client import AsyncClient
from paracle_domain.run.commands import RunStatus


def twins() -> str:
    """Two agents who ask the same, in two steps at once; the younger inherits that a kept answer will do."""
    model = {"name": "priced/small", "max_output_tokens": 10, "cache": {"ttl_s": 3600}}
    steps = [{"id": agent, "agent": agent, "input": {"text": "Which?"}} for agent in ("elder", "younger")]
    documents: list[dict[str, Any]] = [
        {"kind": "Agent", "metadata": {"name": "elder"}, "spec": {"model": model, "instructions": "Answer."}},
        {"kind": "Agent", "metadata": {"name": "younger"}, "spec": {"extends": "elder"}},
        {"kind": "Workflow", "metadata": {"name": "twins"}, "spec": {"steps": steps}},
    ]
    return yaml.safe_dump_all([{"apiVersion": "paracle/v1"} | one for one in documents])


@pytest.fixture
async def fake(system: System) -> AsyncIterator[FakeOpenAI]:
    """What answers the twins."""
    async with priced(system) as found:
        await asyncio.to_thread(system.apply, twins())
        yield found


@pytest.fixture
async def ann(system: System) -> AsyncIterator[AsyncClient]:
    """She starts runs."""
    async with person(system, "ann") as client:
        yield client


async def command(system: System, *arguments: str) -> str:
    """What the command line says to it."""
    done = await asyncio.to_thread(paracle, *arguments, url=system.url)
    assert done.returncode == 0, done.stderr
    return done.stdout


async def run(client: AsyncClient, project: str) -> tuple[list[str], Decimal | None]:
    """The answers of a run, and what it cost."""
    async with asyncio.timeout(PATIENCE_S):
        view = await client.wait((await client.start_run("twins", labels={"project": project})).run_id)
    await assert_sound(client, view.run.run_id)
    assert view.run.status is RunStatus.COMPLETED, view.error
    return [str(step.output) for step in view.steps], view.usage.cost_usd


async def attempts(system: System, project: str, number: int) -> dict[str, int]:
    """How many attempts came to what, as `paracle usage` tells once it knows of so many."""
    found: dict[str, Any] = {}

    async def are_told() -> bool:
        found.update(json.loads(await command(system, "usage", "--by", "outcome", "--project", project, "--json")))
        return bool(found["total"]["attempts"] >= number)

    await eventually(are_told, within_s=30)
    total = found["total"]
    assert Decimal(total["saved_usd"]) == total["cached"] * CALL_USD
    assert Decimal(total["cost_usd"]) == (total["attempts"] - total["cached"]) * CALL_USD
    return {row["by"]["outcome"]: row["spend"]["attempts"] for row in found["rows"]}


async def test_what_was_answered_once_costs_nothing_again(system: System, fake: FakeOpenAI, ann: AsyncClient) -> None:
    name = fresh_name("cached")
    await command(system, "budget", "set", name, "--scope", "project", "--of", name, "--usd", "0.005")
    assert await run(ann, name) == (["Done.", "Done."], CALL_USD), "who asks the same at the same time joins"
    assert await run(ann, name) == (["Done.", "Done."], Decimal(0)), "although the budget is used up"
    assert await attempts(system, name, 4) == {"completed": 1, "cached": 3}
    await restart(system, "provider_gateway")
    assert await run(ann, name) == (["Done.", "Done."], Decimal(0)), "although its memory is gone"
    assert len(fake.journal) == 1
    assert await attempts(system, name, 6) == {"completed": 1, "cached": 5}
    await command(system, "budget", "rm", name)
    assert "cached answers dropped: 1" in await command(system, "cache", "clear")
    assert await run(ann, name) == (["Done.", "Done."], CALL_USD)
    assert len(fake.journal) == 2
