"""Embeddings through the gateway: over both transports, in as many requests as providers want, of one model alone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from typing import Any, override

import pytest
from hypothesis import given
from hypothesis import strategies as st
from provider_gateway_samples import CANARY, CONTEXT, Gateway, Peer, ask, embed, gateway, openai_like
from workshop_desk import Shop, shop

from paracle_chassis.testing.fake_embeddings import vector_of
from paracle_chassis.testing.fake_openai import FakeOpenAI
from paracle_chassis.testing.wire import Turn, fail, say
from paracle_domain.errors import (
    BudgetExceeded,
    Conflict,
    InvalidInput,
    NotFound,
    ProviderFailed,
    ProviderUnavailable,
)
from paracle_domain.inference.embedding import Embed, Embeddings, pack
from paracle_domain.inference.usage import Usage
from paracle_domain.provider.presets import PRESETS, Quirks
from paracle_provider_gateway.adapters.config import TransportName
from paracle_provider_gateway.adapters.sandbox import SandboxProvider
from paracle_provider_gateway.app import create_providers
from paracle_provider_gateway.calls import CallTable
from paracle_provider_gateway.embedding import parts_of
from paracle_provider_gateway.plans import Deployment, Plan, Route, Tier
from paracle_provider_gateway.ports import Embedder, Provider, Vectors
from paracle_provider_gateway.retries import RetryPolicy
from paracle_provider_gateway.settings import GatewaySettings

MODEL = "openai/text-embedding-3-small"
TEXTS = ("a cat", "a dog", "a house")


@pytest.fixture
async def fake() -> AsyncIterator[FakeOpenAI]:
    async with FakeOpenAI(say("", input_tokens=5)) as server:
        yield server


type Over = Callable[..., Gateway]


@pytest.fixture
async def over(fake: FakeOpenAI) -> AsyncIterator[Over]:
    """Makes gateways over the fake."""
    made: list[Provider] = []

    def make(*others: Provider, url: str = fake.url, default_embedding: str | None = None, **more: Any) -> Gateway:
        made.append(openai_like(url, key=CANARY, **more))
        return gateway(*others, made[-1], default_embedding=default_embedding, retry=RetryPolicy(attempts=2))

    yield make
    for provider in made:
        await provider.close()


async def embedded(peer: Gateway, *texts: str, model: str = MODEL, **more: object) -> Embeddings:
    return await peer.completions.embed(embed(*texts, model=model, **more), CONTEXT)


@pytest.mark.parametrize("vectors", ["float", "base64"])
async def test_each_text_has_its_vector(fake: FakeOpenAI, over: Over, transport: TransportName, vectors: Any):
    answer = await embedded(over(transport=transport, quirks=Quirks(vectors=vectors)), *TEXTS)
    assert answer.numbers == [tuple(vector_of(text)) for text in TEXTS]
    assert (answer.dimensions, answer.provider, answer.deployment) == (8, "openai", MODEL)
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.model_calls) == (5, 0, 1)
    assert answer.usage.cost_usd == Decimal("0.0000001"), "the list price of five tokens"
    (seen,) = fake.journal
    assert (seen.path, seen.body["input"]) == ("/v1/embeddings", list(TEXTS))
    if transport == "aiohttp":
        assert seen.body.get("encoding_format") == ("base64" if vectors == "base64" else None)


async def test_every_openai_api_makes_them_and_anthropics_does_not(peer: Peer):
    asked = embedded(peer.gateway, *TEXTS, model=f"{peer.name}/m")
    if peer.name == "anthropic":
        with pytest.raises(InvalidInput, match="anthropic/m makes no embeddings; use another model"):
            await asked
    else:
        assert len((await asked).vectors) == 3


async def test_vectors_can_be_shorter_and_parameters_are_passed_on(fake: FakeOpenAI, over: Over):
    answer = await embedded(over(), *TEXTS, dimensions=4, params={"input_type": "query"})
    assert (answer.dimensions, len(answer.numbers[0])) == (4, 4)
    assert (fake.journal[0].body["dimensions"], fake.journal[0].body["input_type"]) == (4, "query")
    with pytest.raises(InvalidInput, match="dimensions cannot be a parameter") as refused:
        await embedded(over(), *TEXTS, params={"dimensions": 4})
    assert refused.value.path == "params"


async def test_what_is_not_as_long_as_was_asked_is_no_success(over: Over):
    class Stubborn(FakeOpenAI):
        @override
        def whole_at(self, path: str, turn: Turn, request: Any) -> Any:
            return super().whole_at(path, turn, request | {"dimensions": 8})

    async with Stubborn() as server:
        with pytest.raises(ProviderFailed, match="answered vectors of 8 dimensions instead of 4"):
            await embedded(over(url=server.url), *TEXTS, dimensions=4)


async def test_many_texts_are_asked_for_in_parts_each_of_which_is_an_attempt(fake: FakeOpenAI, over: Over):
    texts = [f"text {number}" for number in range(7)]
    peer = over(quirks=Quirks(texts_at_once=3))
    fake.script(say("", input_tokens=5), fail(500))
    answer = await embedded(peer, *texts)
    assert answer.numbers == [tuple(vector_of(text)) for text in texts]
    assert [len(seen.body["input"]) for seen in fake.journal] == [3, 3, 3, 1], "what was answered is not asked again"
    assert (answer.attempts, answer.usage.model_calls, answer.usage.input_tokens) == (4, 3, 15)
    assert [(one.number, outcome.error) for one, outcome in peer.accounts.settled] == [
        (1, None), (1, "provider_unavailable"), (2, None), (1, None),
    ]  # fmt: skip


class Lengthening(SandboxProvider):
    """A provider whose vectors are as long as it is told in words."""

    name = "odd"
    texts_at_once = 1
    embedding_model = None

    async def embed(self, model: str, request: Embed) -> Vectors:
        length = int(request.texts[0])
        return Vectors((pack([1.0] * length),), length, Usage(input_tokens=1, model_calls=1), "")


@given(count=st.integers(1, 256), most=st.integers(1, 256))
def test_parts_are_all_of_it_in_order(count: int, most: int):
    class Some(Lengthening):
        texts_at_once = most

    plan = Plan("m", (Tier((Route(Deployment(Some(), "m")),)),))
    request = embed(*map(str, range(count)))
    parts = list(parts_of(request, plan))
    assert all(len(part.texts) <= most and part.call_id == request.call_id for part in parts)
    assert tuple(text for part in parts for text in part.texts) == request.texts


async def test_parts_that_cannot_be_compared_are_no_answer():
    provider = Lengthening()
    with pytest.raises(ProviderFailed, match="odd/m: it answered vectors of 1 and 2 dimensions to one call"):
        await embedded(gateway(provider), "1", "2", "1", model="odd/m")
    assert (await embedded(gateway(provider), "2", model="odd/m")).model == "m", "the name that was asked for"


class TestOnce:
    async def test_a_call_is_made_once(self, fake: FakeOpenAI, over: Over):
        peer, request = over(), embed(*TEXTS, model=MODEL)
        first = await peer.completions.embed(request, CONTEXT)
        assert await peer.completions.embed(request, CONTEXT) == first
        assert len(fake.journal) == 1

    async def test_an_id_is_of_one_question(self, fake: FakeOpenAI, over: Over):
        peer = over()
        await peer.completions.embed(embed(*TEXTS, model=MODEL, call_id="one"), CONTEXT)
        with pytest.raises(Conflict):
            await peer.completions.embed(embed("another", model=MODEL, call_id="one"), CONTEXT)
        with pytest.raises(Conflict):
            await peer.completions.complete(ask(model="openai/m", call_id="one"), CONTEXT)

    async def test_of_vectors_no_more_are_kept_than_memory_bears(self):
        calls, text = CallTable(), "A" * (8 * 2**20)
        answer = Embeddings(
            vectors=(text,), dimensions=1, usage=Usage(), provider="p", model="m", deployment="p/m", latency_s=0
        )

        async def work() -> Embeddings:
            return answer

        for number in range(6):
            await calls.once(("acme", str(number)), b"", work)
        kept = [number for number in range(6) if calls.kept(("acme", str(number)), b"") is not None]
        assert kept == [2, 3, 4, 5]


class TestWhoIsAsked:
    async def test_a_model_for_conversations_is_refused(self, fake: FakeOpenAI, over: Over):
        with pytest.raises(InvalidInput, match="openai/gpt-5-mini makes no embeddings; use another model") as refused:
            await embedded(over(), *TEXTS, model="openai/gpt-5-mini")
        assert refused.value.path == "model"
        with pytest.raises(InvalidInput, match="sandbox/rules makes no embeddings; use another model"):
            await embedded(gateway(SandboxProvider()), *TEXTS, model="sandbox/rules")
        assert fake.journal == []

    async def test_one_for_embeddings_does_not_talk(self, fake: FakeOpenAI, over: Over):
        with pytest.raises(InvalidInput, match="can make embeddings and nothing else"):
            await over().completions.complete(ask(model=MODEL), CONTEXT)

    async def test_default_is_the_first_that_is_known(self, fake: FakeOpenAI, over: Over):
        known = over(SandboxProvider(), embedding_model="nomic-embed-text")
        assert (await embedded(known, *TEXTS, model="default")).model == "nomic-embed-text"
        with pytest.raises(
            NotFound, match=r"no model for embeddings is set up; set PARACLE_DEFAULT_EMBEDDING_MODEL.*, or: "
        ):
            await embedded(gateway(SandboxProvider()), *TEXTS, model="default")

    async def test_or_what_the_operator_says(self, fake: FakeOpenAI, over: Over):
        told = over(embedding_model="nomic-embed-text", default_embedding="openai/bge-m3")
        assert (await embedded(told, *TEXTS, model="default")).model == "bge-m3"

    def test_openai_has_one_that_is_known_and_the_built_in_one_comes_last(self):
        settings = GatewaySettings.model_validate({"OPENAI_API_KEY": CANARY, "PARACLE_OPENAI_BASE_URL": "http://x/v1"})
        found = [one.embedding_model for one in create_providers(settings) if isinstance(one, Embedder)]
        assert found[:2] == [None, "text-embedding-3-small"]
        assert found[2:] in ([], ["wordllama-256"])


class TestTenants:
    async def asked(self, mine: Shop, model: str, **more: object) -> Embeddings:
        mine.following.doubt()
        return await embedded(mine.gateway, *TEXTS, model=model, **more)

    async def test_their_providers_are_asked_as_presets_know_them(self, fake: FakeOpenAI):
        mine = shop()
        for name in ("mistral", "cohere", "together"):
            mine.registry.provider(name, preset=name, base_url=fake.url, key=None)
            await self.asked(mine, f"{name}/e", dimensions=4)
        mistral, cohere, together = [seen.body for seen in fake.journal]
        assert (mistral["output_dimension"], mistral["encoding_format"]) == (4, "base64")
        assert cohere["dimensions"] == together["dimensions"] == 4
        assert "encoding_format" not in cohere | together
        assert (PRESETS["cohere"].quirks.texts_at_once, PRESETS["gemini"].quirks.texts_at_once) == (96, 100)
        await mine.workshop.close()

    async def test_default_can_be_a_model_of_their_own(self, fake: FakeOpenAI):
        mine = shop()
        mine.registry.provider("p", base_url=fake.url)
        mine.registry.model("default-embedding", "p/nomic-embed-text")
        assert (await self.asked(mine, "default")).deployment == "p/nomic-embed-text"
        await mine.workshop.close()

    async def test_one_model_may_run_in_several_places(self, fake: FakeOpenAI):
        mine = shop()
        mine.registry.provider("a", base_url=fake.url)
        mine.registry.provider("b", base_url=fake.url)
        other = "b/nomic-ai/Nomic-Embed-Text"
        mine.registry.model("words", "a/nomic-embed-text:latest", "sandbox/gpt-5-mini", fallbacks=[other])
        fake.script(fail(500))
        answer = await self.asked(mine, "words")
        assert (answer.deployment, answer.attempts) == (other, 2)
        await mine.workshop.close()

    async def test_different_models_do_not_stand_in_for_each_other(self, fake: FakeOpenAI):
        mine = shop()
        mine.registry.provider("a", base_url=fake.url)
        mine.registry.model("words", "a/nomic-embed-text", fallbacks=["a/bge-m3"])
        with pytest.raises(InvalidInput, match="different models \\(a/nomic-embed-text, a/bge-m3\\), whose vectors"):
            await self.asked(mine, "words")
        assert fake.journal == []
        await mine.workshop.close()


async def test_a_budget_that_is_used_up_has_no_other_model(fake: FakeOpenAI, over: Over):
    peer = over()
    peer.accounts.answers.append(BudgetExceeded("used up", details={"model": "openai/text-embedding-3-large"}))
    with pytest.raises(BudgetExceeded):
        await embedded(peer, *TEXTS)
    assert fake.journal == []


async def test_what_does_not_come_is_asked_again_and_then_given_up(fake: FakeOpenAI, over: Over):
    fake.script(*[fail(503)] * 2)
    with pytest.raises(ProviderUnavailable):
        await embedded(over(), *TEXTS)
    assert len(fake.journal) == 2
