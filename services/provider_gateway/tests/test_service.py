"""The use cases on a provider in memory: once for an id, routing, prices, the list of models, concurrency."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from decimal import Decimal

import pytest
from provider_gateway_samples import CANARY, CONTEXT, TASK, ask, gateway
from pydantic import ValidationError

from paracle_chassis.testing.eventually import eventually
from paracle_chassis.testing.memory import MemoryBus
from paracle_domain.envelope import Context
from paracle_domain.errors import (
    Cancelled,
    Conflict,
    InternalError,
    InvalidInput,
    NotFound,
    ParacleError,
    RateLimited,
    Unavailable,
)
from paracle_domain.ids import new_id
from paracle_domain.inference.chat import ChatMessage
from paracle_domain.inference.deltas import Delta, TextDelta
from paracle_domain.inference.request import AbortCall, Complete, ListModels
from paracle_domain.inference.response import Completion, FinishReason
from paracle_domain.inference.usage import Usage
from paracle_provider_gateway import attempts
from paracle_provider_gateway.accounts import Full
from paracle_provider_gateway.adapters.outlet import BusOutlet
from paracle_provider_gateway.adapters.sandbox import SandboxProvider
from paracle_provider_gateway.app import create_providers
from paracle_provider_gateway.calls import CallTable
from paracle_provider_gateway.ports import Reply, StreamItem
from paracle_provider_gateway.settings import GatewaySettings


class Gated:
    """A provider that answers once its gate is open."""

    source = "memory"
    sandbox = False
    listed_models = ("big",)

    def __init__(self, name: str = "openai", error: Exception | None = None) -> None:
        self.name = name
        self.gate = asyncio.Event()
        self.asked: list[Complete] = []
        self._error = error

    async def default_model(self) -> str:
        return "big"

    async def ask(self, model: str, request: Complete) -> Reply:
        self.asked.append(request)
        await self.gate.wait()
        if self._error is not None:
            raise self._error
        usage = Usage(input_tokens=1_000_000, output_tokens=1_000_000, model_calls=1)
        return Reply(ChatMessage.assistant(f"{model} no. {len(self.asked)}"), FinishReason.STOP, usage, model)

    async def stream(self, model: str, request: Complete) -> AsyncGenerator[StreamItem]:
        raise AssertionError("not asked to stream here")
        yield

    async def close(self) -> None:
        pass


async def test_a_finished_call_is_not_made_again():
    provider = Gated()
    provider.gate.set()
    over, request = gateway(provider), ask()
    first = await over.completions.complete(request, CONTEXT)
    told = {"timeout_s": 9, "stream_to": TASK, "attempts_before": 1_000}
    again = await over.completions.complete(request.model_copy(update=told), CONTEXT)
    assert first == again
    assert len(provider.asked) == 1


async def test_callers_of_one_id_share_the_call_in_the_air():
    provider = Gated()
    over, request = gateway(provider), ask()
    asking = [asyncio.create_task(over.completions.complete(request, CONTEXT)) for _ in range(5)]
    await eventually(lambda: len(provider.asked) == 1)
    asking[0].cancel()
    provider.gate.set()
    answers = await asyncio.gather(*asking[1:])
    assert {answer.message.text for answer in answers} == {"big no. 1"}
    assert over.calls.in_air == 0


async def test_the_same_id_in_another_tenant_is_another_call():
    provider = Gated()
    provider.gate.set()
    over, request = gateway(provider), ask()
    one = await over.completions.complete(request, CONTEXT)
    other = await over.completions.complete(request, Context("globex"))
    assert (one.message.text, other.message.text) == ("big no. 1", "big no. 2")


async def test_an_id_stands_for_one_request():
    provider = Gated()
    provider.gate.set()
    over, request = gateway(provider), ask()
    await over.completions.complete(request, CONTEXT)
    with pytest.raises(Conflict, match="another request") as caught:
        await over.completions.complete(ask("Something else", call_id=request.call_id), CONTEXT)
    assert caught.value.path == "call_id"


async def test_failures_are_not_kept():
    provider = Gated(error=InvalidInput("bad"))
    provider.gate.set()
    over, request = gateway(provider), ask()
    for expected in (1, 2):
        with pytest.raises(InvalidInput):
            await over.completions.complete(request, CONTEXT)
        assert len(provider.asked) == expected


async def test_answers_are_forgotten_with_time_and_with_number():
    now = 0.0
    table = CallTable(keep_s=10, limit=2, clock=lambda: now)
    made: list[str] = []
    sandbox = SandboxProvider()

    async def once(name: str) -> None:
        async def work():
            made.append(name)
            return await gateway(sandbox).completions.complete(ask(), CONTEXT)

        await table.once(("acme", name), b"same", work)

    for name in ("a", "b", "a", "c", "a"):
        await once(name)
    assert made == ["a", "b", "c", "a"], "the third answer pushes the oldest out"
    now = 11.0
    await once("c")
    assert made[-1] == "c"


async def test_what_is_held_is_forgotten_as_answers_are():
    now = 0.0
    table = CallTable(keep_s=10, limit=2, clock=lambda: now)
    answer = await gateway(SandboxProvider()).completions.complete(ask(), CONTEXT)

    async def fail(name: str) -> None:
        async def work() -> Completion:
            table.hold(("acme", name), answer)
            assert table.held(("acme", name), b"same") is answer
            raise Unavailable("a guard is away")

        with pytest.raises(Unavailable):
            await table.once(("acme", name), b"same", work)

    def held() -> list[str]:
        return [name for name in "abc" if table.held(("acme", name), b"same") is answer]

    for name in "aabc":
        await fail(name)
    assert held() == ["b", "c"], "the oldest goes"
    assert table.kept(("acme", "c"), b"same") is None, "nobody may have it"
    with pytest.raises(Conflict):
        table.held(("acme", "c"), b"other")

    async def work() -> Completion:
        return answer

    assert await table.once(("acme", "c"), b"same", work) is answer
    assert (held(), table.kept(("acme", "c"), b"same")) == (["b"], answer)
    now = 11.0
    await table.once(("acme", "d"), b"same", work)
    assert held() == []


async def test_a_tenant_that_has_too_many_calls_in_the_air_is_asked_to_come_back():
    table, gate = CallTable(most_of_tenant=2), asyncio.Event()

    async def work():
        await gate.wait()
        return await gateway(SandboxProvider()).completions.complete(ask(), CONTEXT)

    names = [("noisy", "a"), ("noisy", "b"), ("noisy", "b"), ("quiet", "a")]
    asking = [asyncio.create_task(table.once(name, b"same", work)) for name in names]
    await eventually(lambda: table.in_air == 3)
    with pytest.raises(RateLimited, match="2 model calls of tenant noisy are in the air") as refused:
        await table.once(("noisy", "c"), b"same", work)
    assert refused.value.retry_after_s is not None
    assert table.most_in_air() == 3
    gate.set()
    await asyncio.gather(*asking)
    assert (table.most_in_air(), table.most_in_air()) == (3, 0)
    assert isinstance(await table.once(("noisy", "c"), b"same", work), Completion)


async def test_an_abort_that_overtakes_its_call_stops_it_too():
    provider = Gated()
    over, request = gateway(provider), ask()
    await over.completions.abort("acme", AbortCall(call_id=request.call_id, reason="run cancelled"))
    with pytest.raises(Cancelled, match="run cancelled"):
        await over.completions.complete(request, CONTEXT)
    await over.completions.abort("globex", AbortCall(call_id="unheard-of"))
    assert provider.asked == []


async def test_everyone_who_waits_hears_of_the_abort():
    provider = Gated()
    over, request = gateway(provider), ask()
    asking = [asyncio.create_task(over.completions.complete(request, CONTEXT)) for _ in range(2)]
    await eventually(lambda: len(provider.asked) == 1)
    await over.completions.abort("acme", AbortCall(call_id=request.call_id))
    results = await asyncio.gather(*asking, return_exceptions=True)
    assert [type(result) for result in results] == [Cancelled, Cancelled]


async def test_closing_the_table_sends_callers_elsewhere():
    provider = Gated()
    over = gateway(provider)
    asking = asyncio.create_task(over.completions.complete(ask(), CONTEXT))
    await eventually(lambda: len(provider.asked) == 1)
    await over.calls.close()
    with pytest.raises(Unavailable, match="shutting down"):
        await asking


async def test_no_more_calls_at_once_than_allowed():
    provider = Gated()
    over = gateway(provider, slots=2)
    asking = [asyncio.create_task(over.completions.complete(ask(), CONTEXT)) for _ in range(3)]
    await eventually(lambda: len(provider.asked) == 2)
    assert over.calls.in_air == 3
    provider.gate.set()
    await asyncio.gather(*asking)
    assert len(provider.asked) == 3


async def test_a_configured_provider_that_fails_is_not_replaced_by_the_sandbox():
    provider = Gated(error=InternalError("boom"))
    provider.gate.set()
    with pytest.raises(InternalError):
        await gateway(provider, SandboxProvider()).completions.complete(ask(), CONTEXT)


class TestAccounts:
    async def test_an_attempt_is_opened_before_it_is_made_and_settled_with_its_reply(self):
        provider = Gated()
        over, request = gateway(provider), ask()
        asking = asyncio.create_task(over.completions.complete(request, CONTEXT))
        await eventually(lambda: len(provider.asked) == 1)
        (opened,) = over.accounts.opened
        assert (opened.number, opened.deployment.name, opened.context) == (1, "openai/big", CONTEXT)
        assert over.accounts.settled == []
        provider.gate.set()
        answer = await asking
        ((settled, outcome),) = over.accounts.settled
        assert settled is opened
        assert isinstance(outcome.reply, Reply)
        assert (outcome.reply.message, outcome.error) == (answer.message, None)

    async def test_whatever_becomes_of_an_attempt_is_settled(self):
        failing = Gated(error=InvalidInput("bad"))
        failing.gate.set()
        over = gateway(failing)
        with pytest.raises(InvalidInput):
            await over.completions.complete(ask(), CONTEXT)
        buggy = Gated(error=ValueError("bug"))
        buggy.gate.set()
        over_buggy = gateway(buggy)
        with pytest.raises(ValueError, match="bug"):
            await over_buggy.completions.complete(ask(), CONTEXT)
        hanging = Gated()
        over_hanging, request = gateway(hanging), ask()
        asking = asyncio.create_task(over_hanging.completions.complete(request, CONTEXT))
        await eventually(lambda: len(hanging.asked) == 1)
        await over_hanging.completions.abort("acme", AbortCall(call_id=request.call_id))
        with pytest.raises(Cancelled):
            await asking
        told = [over.accounts.settled[0][1].error for over in (over, over_buggy, over_hanging)]
        assert told == ["invalid_input", "internal", "cancelled"]

    async def test_what_is_full_is_waited_for(self):
        provider = Gated()
        provider.gate.set()
        over = gateway(provider)
        over.accounts.answers = [Full("requests per minute", 0.01), Full("requests per minute", 0.01)]
        answer = await over.completions.complete(ask(), CONTEXT)
        assert (answer.attempts, len(provider.asked), len(over.accounts.opened)) == (1, 1, 3)
        assert len(over.accounts.settled) == 1, "what was not granted is not settled"
        assert over.outbox.retries == []

    @pytest.mark.parametrize(
        ("budget", "why"),
        [(None, "its requests"), (("acme", "b"), "its requests"), (("else", "b"), "others have what is left")],
    )
    async def test_whoever_watches_is_told_of_a_long_wait_but_not_of_the_budgets_of_others(
        self, monkeypatch: pytest.MonkeyPatch, budget: tuple[str, str] | None, why: str
    ):
        monkeypatch.setattr(attempts, "WORTH_TELLING_S", 0.0)
        over, request = gateway(SandboxProvider()), ask(stream_to=TASK)
        over.accounts.answers = [Full("its requests", 0.05, budget)]
        await over.completions.complete(request, CONTEXT)
        [told] = over.outbox.retries
        assert (told.call_id, told.tried, told.error.code) == (request.call_id, 0, "rate_limited")
        assert why in told.error.message


class TestCatalog:
    async def test_default_is_the_first_provider(self):
        provider = Gated()
        provider.gate.set()
        answer = await gateway(provider, SandboxProvider()).completions.complete(ask(), CONTEXT)
        assert (answer.provider, answer.model) == ("openai", "big")

    async def test_default_can_be_set(self):
        over = gateway(Gated(), SandboxProvider(), default="sandbox/rules")
        assert (await over.completions.complete(ask(), CONTEXT)).sandbox

    @pytest.mark.parametrize(
        ("model", "error", "hint"),
        [
            ("anthropic/claude", NotFound, "set ANTHROPIC_API_KEY"),
            ("openai-compatible/llama", NotFound, "set PARACLE_OPENAI_BASE_URL"),
            ("nobody/x", NotFound, "kind Provider, or use one of anthropic, openai, openai-compatible, sandbox"),
            ("gpt-5", InvalidInput, "write provider/model"),
            ("openai/", InvalidInput, "write provider/model"),
            ("sandbox/genius", NotFound, "it has sandbox/rules, sandbox/slow"),
        ],
    )
    async def test_what_is_not_there_is_named_with_the_way_out(self, model: str, error: type[ParacleError], hint: str):
        with pytest.raises(error, match=hint) as caught:
            await gateway(SandboxProvider()).completions.complete(ask(model=model), CONTEXT)
        assert caught.value.path == "model"


async def test_models_are_listed_with_prices_and_the_default():
    found = await gateway(Gated(), SandboxProvider()).completions.list_models(ListModels(), CONTEXT)
    assert [model.name for model in found.models] == ["openai/big", "sandbox/rules", "sandbox/slow"]
    assert found.default == "openai/big"
    assert [model.default for model in found.models] == [True, False, False]
    assert found.models[0].input_usd_per_mtok is None
    assert found.models[1].output_usd_per_mtok == Decimal("0.4")


async def test_a_default_that_is_not_listed_is_listed_all_the_same():
    over = gateway(Gated(), SandboxProvider(), default="openai/special")
    found = await over.completions.list_models(ListModels(), CONTEXT)
    assert (found.models[0].name, found.models[0].default) == ("openai/special", True)


class TestSettings:
    VARIABLES = (
        "OPENAI_API_KEY",
        "OPENAI_BASE_URL",
        "ANTHROPIC_API_KEY",
        "ANTHROPIC_BASE_URL",
        "PARACLE_OPENAI_BASE_URL",
        "PARACLE_OPENAI_API_KEY",
        "PARACLE_OPENAI_MODEL",
        "PARACLE_DEFAULT_MODEL",
    )

    @pytest.fixture(autouse=True)
    def _bare(self, monkeypatch: pytest.MonkeyPatch):
        for name in self.VARIABLES:
            monkeypatch.delenv(name, raising=False)

    def test_without_any_key_there_is_the_sandbox(self):
        assert next(iter(create_providers(GatewaySettings()))).name == "sandbox"

    def test_the_environment_sets_providers_up_in_order_of_preference(self, monkeypatch: pytest.MonkeyPatch):
        for name in self.VARIABLES:
            url = "http://127.0.0.1:1/v1"
            monkeypatch.setenv(name, url if name.endswith("URL") else "openai/big" if "DEFAULT" in name else CANARY)
        settings = GatewaySettings()
        providers = create_providers(settings)
        assert [provider.name for provider in providers][:4] == ["openai-compatible", "openai", "anthropic", "sandbox"]
        assert settings.default_model == "openai/big"
        assert providers[0].listed_models == (CANARY,)
        assert CANARY not in repr(settings).replace(f"compatible_model='{CANARY}'", "")

    def test_a_url_that_is_none_is_refused(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("PARACLE_OPENAI_BASE_URL", "localhost:11434")
        with pytest.raises(ValidationError, match="PARACLE_OPENAI_BASE_URL"):
            GatewaySettings()


async def test_a_delta_that_nats_does_not_take_stops_no_reply():
    class Away(MemoryBus):
        async def broadcast(self, message):
            raise Unavailable("NATS is away")

    delta = Delta(call_id="call_a", seq=0, change=TextDelta(text="Hi"))
    await BusOutlet(Away()).publish(new_id("task"), delta, Context(tenant="default"))


def test_a_model_whose_name_no_ledger_can_keep_is_refused_at_the_edge():
    with pytest.raises(ValidationError, match=r"U\+0000"):
        ask(model="openai/big\0")
