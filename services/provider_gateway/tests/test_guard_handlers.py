"""Guards of the running service: over real NATS, with the ledger in PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from memory_registry import MemoryRegistry
from provider_gateway_samples import ask
from served_gateway import served

from paracle_chassis.nats_bus import NatsBus
from paracle_chassis.testing.eventually import eventually
from paracle_chassis.testing.fake_openai import FakeOpenAI
from paracle_chassis.testing.infra import OpenBus
from paracle_chassis.testing.wire import say
from paracle_client.worker import GuardAnswer, Worker
from paracle_domain.envelope import Context
from paracle_domain.errors import ContentRefused, Unavailable
from paracle_domain.inference.ledger import ListAttempts, UsageRecord
from paracle_domain.inference.request import CallLabels

pytestmark = pytest.mark.connected
CONTEXT = Context("acme")
PII: dict[str, Any] = {"name": "no-mail", "type": "pii"}
OURS: dict[str, Any] = {"name": "ours", "type": "nats", "guard": "check", "on": "output", "timeout_s": 1}
KIND: dict[str, Any] = {
    "name": "kind", "type": "moderation", "model": "openai-compatible/omni-moderation-latest", "on": "input",
}  # fmt: skip


@pytest.fixture
async def provider() -> AsyncIterator[FakeOpenAI]:
    async with FakeOpenAI() as server:
        yield server


@pytest.fixture
async def bus(nats_url: str, postgres_dsn: str, open_bus: OpenBus, provider: FakeOpenAI) -> AsyncIterator[NatsBus]:
    """A caller's bus, with the service running behind NATS."""
    async with served(nats_url, postgres_dsn, open_bus, MemoryRegistry(), compatible_base_url=provider.url) as found:
        yield found


async def test_what_is_let_in_and_out_is_redacted(bus: NatsBus, provider: FakeOpenAI):
    provider.script(say("To b@example.com."))
    answer = await bus.call(ask("From a@example.com.", guards=[PII]), CONTEXT, timeout_s=20)
    assert answer.message.text == "To [EMAIL]."
    assert "From [EMAIL]." in str(provider.journal[0].body)


async def test_a_refusal_comes_out_as_what_it_is(bus: NatsBus, provider: FakeOpenAI):
    with pytest.raises(ContentRefused, match="guard 'no-mail' refused the input") as refused:
        await bus.call(ask("From a@example.com.", guards=[PII | {"on_hit": "refuse"}]), CONTEXT)
    assert refused.value.details["guard"] == "no-mail"
    assert provider.journal == []


async def test_a_guard_of_the_output_that_comes_back_judges_what_was_paid_for(
    nats_url: str, postgres_dsn: str, open_bus: OpenBus, provider: FakeOpenAI
):
    request = ask(guards=[OURS])
    worker = Worker(nats_url, tenant="acme")
    worker.guard(name="check")(
        lambda question: GuardAnswer.replaced(*(shown.text + "?" for shown in question.passages))
    )
    async with served(
        nats_url, postgres_dsn, open_bus, MemoryRegistry(), replicas=2, compatible_base_url=provider.url
    ) as bus:
        provider.script(say("Paid once"), say("Paid again"))
        for _ in range(4):
            with pytest.raises(Unavailable, match="guard 'ours' cannot be asked about the output"):
                await bus.call(request, CONTEXT, timeout_s=20)
        async with worker.serving():
            for _ in range(4):
                assert (await bus.call(request, CONTEXT, timeout_s=20)).message.text == "Paid once?"
    assert len(provider.journal) == 1


async def test_moderation_is_in_the_ledger_at_no_cost(bus: NatsBus, provider: FakeOpenAI):
    provider.script(say("kill"))
    labels = CallLabels(agent="writer")
    with pytest.raises(ContentRefused, match=r"violence \(1\)"):
        await bus.call(ask("I kill you.", guards=[KIND], labels=labels), CONTEXT, timeout_s=20)
    found: list[UsageRecord] = []

    async def settled() -> bool:
        found[:] = (await bus.call(ListAttempts(), CONTEXT)).records
        return bool(found) and found[0].outcome != "open"

    await eventually(settled)
    (one,) = found
    assert (one.model, one.agent, one.outcome) == ("omni-moderation-latest", "writer", "completed")
    assert one.cost_usd == 0
