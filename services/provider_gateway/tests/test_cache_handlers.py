"""The cache over real NATS and PostgreSQL, with two replicas: what they share, write down and drop."""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal

import asyncpg
import pytest
from memory_registry import MemoryRegistry
from nats.aio.client import Client
from provider_gateway_samples import TASK, ask
from served_gateway import served

from paracle_chassis.bus import outgoing
from paracle_chassis.frames import flushed
from paracle_chassis.nats_bus import NatsBus
from paracle_chassis.testing.eventually import eventually
from paracle_chassis.testing.fake_openai import FakeOpenAI
from paracle_chassis.testing.infra import OpenBus
from paracle_chassis.testing.wire import say
from paracle_domain import subjects
from paracle_domain.envelope import Context
from paracle_domain.ids import id_from_key
from paracle_domain.inference.caching import CachePolicy, ClearCache
from paracle_domain.inference.deltas import Delta, assemble
from paracle_domain.inference.ledger import ListAttempts, Outcome, QueryUsage, Spend, UsageBy
from paracle_domain.inference.request import CallLabels, Complete
from paracle_domain.inference.response import Completion
from paracle_domain.registry import SpecsChanged, changed_subject

pytestmark = pytest.mark.connected
CONTEXT, THEIRS = Context("acme"), Context("globex")
RUN = id_from_key("run", "a")
HOUR = CachePolicy(ttl_s=3_600)


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
    """A caller's bus, with two replicas of the service behind NATS."""
    async with served(
        nats_url, postgres_dsn, open_bus, registry, replicas=2, compatible_base_url=provider.url
    ) as found:
        yield found


@pytest.fixture
async def rows(postgres_dsn: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(postgres_dsn)
    yield connection
    await connection.close()


def question(text: str = "Which?", **more: object) -> Complete:
    labels = CallLabels(agent="helper", run_id=RUN, principal="ann")
    return ask(text, cache=HOUR, **{"model": "mine/a", "labels": labels} | more)


async def told(bus: NatsBus, request: Complete, context: Context = CONTEXT) -> Completion:
    return await bus.call(request, context, timeout_s=20)


async def set_up(bus: NatsBus, registry: MemoryRegistry, url: str, tenant: str = "acme") -> None:
    """A provider at a price."""
    models = {"a": {"price": {"input": "1000", "output": "1000"}}}
    registry.provider("mine", tenant=tenant, base_url=url, models=models)
    await bus.broadcast(outgoing(changed_subject(tenant), SpecsChanged(), Context(tenant), source="test"))


async def kept(rows: asyncpg.Connection, number: int) -> None:
    async def there() -> bool:
        found: int = await rows.fetchval("select count(*) from answers")
        return found == number

    await eventually(there)


async def test_replicas_share_answers_and_the_ledger_says_what_was_spared(
    bus: NatsBus, provider: FakeOpenAI, registry: MemoryRegistry, rows: asyncpg.Connection
):
    await set_up(bus, registry, provider.url)
    first = await told(bus, question())
    await kept(rows, 1)
    again = [await told(bus, question()) for _ in range(10)]
    assert len(provider.journal) == 1
    assert {(one.message, one.saved, one.usage.cost_usd) for one in again} == {(first.message, first.usage, Decimal(0))}
    total = Spend()

    async def noted() -> bool:
        nonlocal total
        total = (await bus.call(QueryUsage(), CONTEXT)).total
        return total.attempts == 11

    await eventually(noted)
    cost = first.usage.cost_usd
    assert cost
    assert (total.cached, total.failed, total.cost_usd) == (10, 0, cost)
    assert (total.saved_usd, total.saved_tokens) == (10 * cost, 10 * first.usage.total_tokens)
    assert total.input_tokens + total.output_tokens == first.usage.total_tokens
    [cached, made] = (await bus.call(QueryUsage(by=(UsageBy.OUTCOME,), agent="helper"), CONTEXT)).rows[::-1]
    assert (cached.by[UsageBy.OUTCOME], made.by[UsageBy.OUTCOME]) == ("cached", "completed")
    records = (await bus.call(ListAttempts(outcome=Outcome.CACHED), CONTEXT)).records
    assert len(records) == 10
    one = records[0]
    assert (one.cost_usd, one.saved_usd, one.saved_tokens) == (Decimal(0), cost, first.usage.total_tokens)
    assert (one.agent, one.run_id, one.user, one.provider, one.model) == ("helper", RUN, "ann", "mine", "a")


async def test_dropping_them_drops_the_tenants_own_at_every_replica(
    bus: NatsBus, provider: FakeOpenAI, registry: MemoryRegistry, rows: asyncpg.Connection
):
    provider.script(say("ours"), say("theirs"), say("ours anew"))
    for tenant in ("acme", "globex"):
        await set_up(bus, registry, provider.url, tenant)
    assert (await told(bus, question())).message.text == "ours"
    assert (await told(bus, question(), THEIRS)).message.text == "theirs"
    await kept(rows, 2)
    assert {(await told(bus, question())).message.text for _ in range(10)} == {"ours"}, "both replicas have it at hand"
    assert (await bus.call(ClearCache(), CONTEXT)).answers == 1
    assert (await told(bus, question())).message.text == "ours anew"
    await kept(rows, 2)
    assert {(await told(bus, question())).message.text for _ in range(10)} == {"ours anew"}
    assert {(await told(bus, question(), THEIRS)).message.text for _ in range(10)} == {"theirs"}


async def test_a_name_that_leads_elsewhere_does_not_give_old_answers(
    bus: NatsBus, provider: FakeOpenAI, registry: MemoryRegistry, rows: asyncpg.Connection
):
    async with FakeOpenAI() as other:
        other.script(say("from elsewhere"))
        await set_up(bus, registry, provider.url)
        here = await told(bus, question())
        await kept(rows, 1)
        await set_up(bus, registry, other.url)
        assert (await told(bus, question())).message.text == "from elsewhere"
        await set_up(bus, registry, provider.url)
        assert (await told(bus, question())).message == here.message
        assert len(provider.journal) == 1


async def test_a_kept_answer_streams_to_its_task(bus: NatsBus, rows: asyncpg.Connection, nats_client: Client):
    heard: list[Delta] = []

    async def hear(message) -> None:
        found = Delta.decode(message.data)
        assert isinstance(found, Delta)
        heard.append(found)

    await told(bus, question(model="default"))
    await kept(rows, 1)
    await nats_client.subscribe(subjects.out("acme", TASK), cb=hear)
    await flushed(nats_client)
    answer = await told(bus, question(model="default", stream_to=TASK))
    await eventually(lambda: heard and heard[-1].change.type == "end")
    assert answer.saved is not None
    assert assemble(heard) == answer.message
