"""The service over real NATS: asked over RPC, streaming to its subject, aborted by a broadcast."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from memory_registry import MemoryRegistry
from nats.aio.client import Client
from provider_gateway_samples import TASK, ask, embed
from served_gateway import served

from paracle_chassis.bus import outgoing
from paracle_chassis.frames import flushed
from paracle_chassis.nats_bus import NatsBus
from paracle_chassis.testing.eventually import eventually
from paracle_chassis.testing.fake_embeddings import vector_of
from paracle_chassis.testing.fake_openai import FakeOpenAI
from paracle_chassis.testing.infra import OpenBus
from paracle_chassis.testing.wire import Turn, say
from paracle_domain import subjects
from paracle_domain.budget.messages import SetBudget
from paracle_domain.budget.spec import Budget
from paracle_domain.envelope import Context
from paracle_domain.errors import BudgetExceeded, Cancelled, NotFound
from paracle_domain.inference.deltas import Delta, assemble
from paracle_domain.inference.deployments import ListDeployments
from paracle_domain.inference.ledger import ListAttempts, Outcome, UsageRecord
from paracle_domain.inference.request import AbortCall, CallLabels, ListModels, abort_subject
from paracle_domain.registry import SpecsChanged, changed_subject

pytestmark = pytest.mark.connected
CONTEXT = Context("acme")


@pytest.fixture
async def provider() -> AsyncIterator[FakeOpenAI]:
    async with FakeOpenAI() as server:
        yield server


@pytest.fixture
def registry() -> MemoryRegistry:
    return MemoryRegistry()


@pytest.fixture
async def bus(
    nats_url: str, postgres_dsn: str, open_bus: OpenBus, provider: FakeOpenAI, registry: MemoryRegistry
) -> AsyncIterator[NatsBus]:
    """A caller's bus, with the service running behind NATS."""
    async with served(nats_url, postgres_dsn, open_bus, registry, compatible_base_url=provider.url) as found:
        yield found


async def test_a_call_over_rpc_streams_to_its_task(bus: NatsBus, provider: FakeOpenAI, nats_client: Client):
    provider.script(say("Words in many pieces."))
    heard: list[Delta] = []

    async def hear(message) -> None:
        found = Delta.decode(message.data)
        assert isinstance(found, Delta)
        heard.append(found)

    await nats_client.subscribe(subjects.out("acme", TASK), cb=hear)
    await flushed(nats_client)
    answer = await bus.call(ask(stream_to=TASK), CONTEXT, timeout_s=20)
    assert answer.message.text == "Words in many pieces."
    await eventually(lambda: heard and heard[-1].change.type == "end")
    assert assemble(heard) == answer.message


async def test_an_abort_is_heard(bus: NatsBus, provider: FakeOpenAI):
    provider.script(Turn(text="Never comes.", hang_after=0))
    request = ask()
    asking = asyncio.create_task(bus.call(request, CONTEXT, timeout_s=20))
    await eventually(lambda: len(provider.journal) == 1)
    order = AbortCall(call_id=request.call_id, reason="enough")
    await bus.broadcast(outgoing(abort_subject("acme"), order, CONTEXT, source="test"))
    with pytest.raises(Cancelled, match="enough"):
        await asking
    await asyncio.wait_for(provider.journal[0].gone.wait(), 30)


async def test_embeddings_come_whole_however_large(bus: NatsBus):
    request = embed(*map(str, range(256)), model="openai-compatible/e", dimensions=1_536)
    answer = await bus.call(request, CONTEXT, timeout_s=20)
    assert len(answer.encode()) > 2_000_000, "more than NATS takes"
    assert answer.numbers[255] == tuple(vector_of("255", 1_536))
    assert await bus.call(request, CONTEXT, timeout_s=20) == answer


async def test_what_is_embedded_is_in_the_ledger_and_on_budgets(bus: NatsBus, provider: FakeOpenAI):
    terms = {"name": "few", "scope": "agent", "limit_tokens": 10}
    await bus.call(SetBudget(budget=Budget.model_validate(terms)), CONTEXT)
    provider.otherwise = say("", input_tokens=12)
    request = embed("some", "texts", model="openai-compatible/e", labels=CallLabels(agent="reader"))
    await bus.call(request, CONTEXT, timeout_s=20)

    async def record() -> UsageRecord | None:
        found = await bus.call(ListAttempts(agent="reader"), CONTEXT)
        return next((one for one in found.records if one.outcome is Outcome.COMPLETED), None)

    await eventually(record)
    kept = await record()
    assert kept is not None
    assert (kept.model, kept.input_tokens, kept.output_tokens) == ("e", 12, 0)
    with pytest.raises(BudgetExceeded, match="12 of 10 tokens"):
        await bus.call(embed("more", model="openai-compatible/e", labels=CallLabels(agent="reader")), CONTEXT)


async def test_errors_come_out_as_what_they_are(bus: NatsBus):
    with pytest.raises(NotFound, match="set ANTHROPIC_API_KEY"):
        await bus.call(ask(model="anthropic/claude"), CONTEXT)


async def test_models_are_listed(bus: NatsBus):
    found = await bus.call(ListModels(), CONTEXT)
    assert found.default == "openai-compatible/fake-model"
    assert {model.name for model in found.models} >= {"sandbox/rules", "openai-compatible/fake-model"}
    embeds = [model.name for model in found.models if "embeddings" in model.capabilities]
    assert embeds == ([] if found.default_embedding is None else [found.default_embedding])


async def test_what_a_tenant_applied_is_asked_from_its_next_call_on(
    bus: NatsBus, provider: FakeOpenAI, registry: MemoryRegistry
):
    async def tell() -> None:
        await bus.broadcast(outgoing(changed_subject("acme"), SpecsChanged(), CONTEXT, source="test"))

    with pytest.raises(NotFound, match="provider 'mine' is unknown; apply a manifest of kind Provider"):
        await bus.call(ask(model="mine/a"), CONTEXT)
    registry.provider("mine", base_url=provider.url)
    await tell()
    answer = await bus.call(ask(model="mine/a"), CONTEXT)
    assert (answer.provider, answer.model) == ("mine", "a")
    with pytest.raises(NotFound, match="provider 'mine' is unknown"):
        await bus.call(ask(model="mine/a"), Context("globex"))
    registry.put("acme", "Provider", "mine", None)
    await tell()
    with pytest.raises(NotFound, match="provider 'mine' is unknown"):
        await bus.call(ask(model="mine/a"), CONTEXT)


async def test_deployments_are_listed_with_what_is_under_way(
    bus: NatsBus, provider: FakeOpenAI, registry: MemoryRegistry
):
    registry.provider("mine", base_url=provider.url, limits={"concurrency": 2}, models={"a": {}})
    await bus.broadcast(outgoing(changed_subject("acme"), SpecsChanged(), CONTEXT, source="test"))
    provider.script(Turn(text="Slowly.", hang_after=0))
    request = ask(model="mine/a")
    asking = asyncio.create_task(bus.call(request, CONTEXT, timeout_s=20))
    await eventually(lambda: len(provider.journal) == 1)
    found = await bus.call(ListDeployments(name="mine/a"), CONTEXT)
    (one,) = found.deployments
    assert found.replica.startswith("rep_")
    assert (one.limits.concurrency, one.use and one.use.in_air) == (2, 1)
    order = AbortCall(call_id=request.call_id)
    await bus.broadcast(outgoing(abort_subject("acme"), order, CONTEXT, source="test"))
    with pytest.raises(Cancelled):
        await asking
    assert "sandbox/rules" in {one.name for one in (await bus.call(ListDeployments(), CONTEXT)).deployments}
