"""Whatever anybody asks over NATS is answered, or refused as what it is; and nothing stays reserved for it."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, cast

import hostile
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from memory_registry import MemoryRegistry
from pydantic import SecretStr
from served_gateway import served

from paracle_chassis.nats_bus import NatsBus
from paracle_chassis.testing.eventually import eventually
from paracle_chassis.testing.fake_anthropic import FakeAnthropic
from paracle_chassis.testing.fake_openai import FakeOpenAI
from paracle_chassis.testing.infra import OpenBus
from paracle_domain.budget.messages import DeleteBudget, ListBudgets, RaiseBudget, SetBudget
from paracle_domain.budget.spec import Budget, BudgetScope
from paracle_domain.envelope import Context
from paracle_domain.errors import InternalError, InvalidInput, MalformedMessage, ParacleError
from paracle_domain.ids import new_id
from paracle_domain.inference.caching import ClearCache
from paracle_domain.inference.deployments import ListDeployments
from paracle_domain.inference.embedding import Embed
from paracle_domain.inference.ledger import ListAttempts, QueryUsage
from paracle_domain.inference.request import Complete, ListModels
from paracle_domain.inference.response import Completion
from paracle_domain.messages import Message, Request

pytestmark = pytest.mark.connected
CALLER, OTHER = Context("acme", principal="mallory"), Context("globex", principal="mallory")
OTHERS = (
    DeleteBudget,
    ListBudgets,
    RaiseBudget,
    SetBudget,
    ClearCache,
    ListDeployments,
    ListAttempts,
    QueryUsage,
    ListModels,
)
FUZZED = settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip


@dataclass
class Raw:
    """A request whose body nobody looked at before it was sent."""

    kind: type[Request[Any]]
    body: bytes

    def encode(self) -> bytes:
        return self.body

    def __getattr__(self, name: str) -> Any:
        return getattr(self.kind, name)


@pytest.fixture
async def bus(nats_url: str, postgres_dsn: str, open_bus: OpenBus) -> AsyncIterator[NatsBus]:
    """A caller's bus, with the service behind NATS, and providers of every API that it speaks behind that."""
    async with (
        FakeOpenAI() as openai,
        FakeAnthropic() as anthropic,
        served(
            nats_url,
            postgres_dsn,
            open_bus,
            MemoryRegistry(),
            compatible_base_url=openai.url,
            openai_api_key=SecretStr("key"),
            official_openai_base_url=openai.url,
            anthropic_api_key=SecretStr("key"),
            anthropic_base_url=anthropic.origin,
        ) as found,
    ):
        await found.call(SetBudget(budget=Budget(name="all", limit_tokens=10**15)), CALLER)
        yield found


async def told(bus: NatsBus, kind: type[Request[Any]], body: bytes, caller: Context) -> Message | ParacleError:
    """What the gateway says to `body`, which has to be soon."""
    body = body.replace(hostile.CALL.encode(), new_id("call").encode())
    async with asyncio.timeout(30):
        try:
            return await bus.call(cast("Request[Any]", Raw(kind, body)), caller, timeout_s=60)
        except InternalError:
            raise
        except ParacleError as error:
            return error


async def check_settled(bus: NatsBus) -> None:
    """That nothing is in the air, and nothing reserved."""

    async def settled() -> bool:
        [view] = (await bus.call(ListBudgets(), CALLER)).budgets
        usage = await bus.call(QueryUsage(), CALLER)
        return all(use.reserved_tokens == 0 and use.reserved_usd == 0 for use in view.uses) and usage.total.open == 0

    await eventually(settled)


def complete(**more: Any) -> bytes:
    found = {
        "call_id": hostile.CALL,
        "model": "openai-compatible/m",
        "messages": [{"role": "user", "parts": []}],
        "timeout_s": 5,
    }
    return json.dumps(found | more).encode()


def attached(**part: Any) -> bytes:
    return complete(messages=[{"role": "user", "parts": [{"type": "text", "text": "?"}, part]}])


@FUZZED
@given(body=hostile.bodies(Complete))
@example(body=attached(type="file", data="QUI", media_type="text/plain"))
@example(body=attached(type="file", data="\x00", media_type="application/json"))
@example(body=attached(type="image", data="QUJD", media_type="image/\n"))
@example(body=attached(type="file", data="/w==", media_type="text/plain"))
@example(
    body=complete(model="anthropic/m", output={"json_schema": {"type": "object", "properties": 1}, "strict": True})
)
@example(body=complete(labels={"agent": "a\x00b"}))
@example(body=complete(labels={"principal": "\U0010ffff" * 3_000}))
@example(body=complete(sampling={"max_output_tokens": 10**30, "seed": 10**30}, attempts_before=10**30))
async def test_any_question_is_answered_or_refused(bus: NatsBus, body: bytes):
    await told(bus, Complete, body, CALLER)
    await check_settled(bus)


@FUZZED
@given(body=hostile.bodies(Embed))
async def test_any_texts_are_embedded_or_refused(bus: NatsBus, body: bytes):
    await told(bus, Embed, body, CALLER)
    await check_settled(bus)


@FUZZED
@given(asked=st.one_of(*(st.tuples(st.just(kind), hostile.bodies(kind)) for kind in OTHERS)))
async def test_anything_else_is_answered_or_refused(bus: NatsBus, asked: tuple[type[Request[Any]], bytes]):
    kind, body = asked
    said = await told(bus, kind, body, OTHER)
    assert isinstance(said, (kind.answer, ParacleError))


@pytest.mark.parametrize("data", ["QUI", "no base64!", "Zoë=", "QUJD\n"])
async def test_what_is_no_base64_is_refused_before_anything_is_spent(bus: NatsBus, data: str):
    said = await told(bus, Complete, attached(type="file", name="a", data=data, media_type="text/plain"), CALLER)
    assert isinstance(said, MalformedMessage)
    assert said.path == "messages[0].parts[1].file.data"
    assert f"{data!r} is no base64" in said.message
    assert "or give a url instead" in said.message
    [view] = (await bus.call(ListBudgets(), CALLER)).budgets
    assert not any(use.calls or use.reserved_tokens for use in view.uses)
    assert (await bus.call(ListAttempts(), CALLER)).records == ()


async def test_a_name_that_is_too_long_to_count_by_is_refused(bus: NatsBus):
    await bus.call(SetBudget(budget=Budget(name="each", scope=BudgetScope.USER, limit_tokens=10**15)), CALLER)
    nameless = random.Random(1).randbytes(4_000).hex()  # which no index takes
    said = await told(bus, Complete, complete(), Context("acme", principal=nameless))
    assert isinstance(said, InvalidInput)
    assert (said.path, said.message[:28]) == ("paracle-principal", "the name has 8,000 character")
    longest = Context("acme", principal="\U0010ffff" * 256)
    assert isinstance(await told(bus, Complete, complete(), longest), Completion)
