"""Embeddings as people ask for them: of the built-in model, and of a provider with a price, which budgets go by."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from decimal import Decimal

import pytest
import yaml
from tests.e2e.deciding import fresh_name, person, restart
from tests.e2e.world import System, paracle

from paracle_chassis.testing.eventually import eventually
from paracle_chassis.testing.fake_embeddings import vector_of
from paracle_chassis.testing.fake_openai import FakeOpenAI
from paracle_chassis.testing.wire import say
from paracle_domain.errors import BudgetExceeded, InvalidInput
from paracle_domain.inference.ledger import UsageFilter
from paracle_provider_gateway.adapters.builtin import wordllama_folder

BUILTIN = "builtin/wordllama-256"
TEXTS = ("How do I reset my password?", "I forgot my login credentials.", "The soup needs more salt.")


@pytest.fixture
async def fake(system: System) -> AsyncIterator[FakeOpenAI]:
    """A provider of embeddings at 1,000 USD per million tokens, of which a request uses 20."""
    async with FakeOpenAI(say("", input_tokens=20)) as found:
        known = {"capabilities": {"embeddings": True}, "price": {"input": 1000, "output": 0}}
        manifest = {
            "apiVersion": "paracle/v1",
            "kind": "Provider",
            "metadata": {"name": "vectors"},
            "spec": {"base_url": found.url, "models": {"words": known}},
        }
        await asyncio.to_thread(system.apply, yaml.safe_dump(manifest))
        yield found


async def command(system: System, *arguments: str) -> str:
    done = await asyncio.to_thread(paracle, *arguments, url=system.url)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(wordllama_folder() is None, reason="there is no wheel of the model for this platform")
async def test_the_built_in_model_finds_what_is_alike_without_a_provider(system: System):
    told = (await command(system, "embed", *TEXTS, "--model", BUILTIN)).splitlines()
    _, itself, alike, other = [line.split()[0] for line in told[:4]]
    assert float(itself) == 1
    assert float(alike) > float(other) + 0.2
    assert told[4].endswith("tokens, $0.00")
    lines = (await command(system, "embed", *TEXTS, "--model", BUILTIN, "--json")).splitlines()
    assert [len(json.loads(line)["embedding"]) for line in lines] == [256] * 3
    assert BUILTIN in await command(system, "models")
    async with system.client() as client:

        async def asked() -> list[tuple[float, ...]]:
            return (await client.embed(TEXTS, model=BUILTIN, dimensions=64, idempotency_key="the same")).numbers

        before = await asked()
        await restart(system, "provider_gateway")
        assert await asked() == before


async def test_what_is_embedded_is_paid_for_as_any_call(system: System, fake: FakeOpenAI):
    ann = fresh_name("ann")
    async with person(system, ann) as client:
        options = ("--scope", "user", "--of", ann, "--usd", "0.05", "--window", "total")
        await command(system, "budget", "set", ann, *options)
        for _ in range(3):
            found = await client.embed(TEXTS, model="vectors/words")
            assert found.numbers == [tuple(vector_of(text)) for text in TEXTS]
            assert found.cost_usd == Decimal("0.02")

        async def settled() -> bool:
            spend = (await client.query_usage(which=UsageFilter(user=ann))).total
            return (spend.attempts, spend.input_tokens, spend.cost_usd) == (3, 60, Decimal("0.06"))

        await eventually(settled)
        with pytest.raises(BudgetExceeded, match=r"0.06 of 0.05 USD"):
            await client.embed(TEXTS, model="vectors/words")
        with pytest.raises(InvalidInput, match="sandbox/rules makes no embeddings"):
            await client.embed(TEXTS, model="sandbox/rules")
        assert len(fake.journal) == 3
        assert await settled()
