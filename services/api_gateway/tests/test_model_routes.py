"""What the routes of models ask of the gateway, and what they make of its answers."""

import asyncio
from decimal import Decimal

import pytest

from paracle_domain.errors import BudgetExceeded, ProviderFailed
from paracle_domain.inference.embedding import Embed, EmbeddingList, Embeddings, pack
from paracle_domain.inference.request import ListModels
from paracle_domain.inference.response import ModelInfo, ModelList
from paracle_domain.inference.usage import Usage

FOUND = Embeddings(
    vectors=(pack([1, 0]), pack([0.5, -0.5])),
    dimensions=2,
    usage=Usage(input_tokens=7, model_calls=1, cost_usd=Decimal("0.00000014")),
    provider="openai",
    model="text-embedding-3-small",
    deployment="openai/text-embedding-3-small",
    latency_s=0.1,
)


async def test_texts_are_embedded_as_openais_api_has_it(client, world):
    world.bus.answers[Embed] = FOUND
    body = {"input": ["one", "two"], "model": "openai/text-embedding-3-small", "dimensions": 2}
    response = await client.post("/v1/embeddings", json=body)
    assert response.json() == {
        "object": "list",
        "data": [
            {"object": "embedding", "index": 0, "embedding": [1, 0]},
            {"object": "embedding", "index": 1, "embedding": [0.5, -0.5]},
        ],
        "model": "text-embedding-3-small",
        "usage": {"prompt_tokens": 7, "total_tokens": 7},
        "dimensions": 2,
        "deployment": "openai/text-embedding-3-small",
        "cost_usd": "1.4E-7",
    }
    asked, _ = world.bus.asked[-1]
    assert (asked.texts, asked.model, asked.dimensions) == (("one", "two"), "openai/text-embedding-3-small", 2)


async def test_one_text_and_vectors_as_text(client, world):
    world.bus.answers[Embed] = FOUND.model_copy(update={"usage": Usage(cost_usd=None)})
    body = {"input": "one", "encoding_format": "base64", "params": {"input_type": "query"}}
    response = await client.post("/v1/embeddings", json=body)
    assert [one["embedding"] for one in response.json()["data"]] == list(FOUND.vectors)
    assert "cost_usd" not in response.json(), "unknown is not zero"
    assert EmbeddingList.model_validate(response.json()).numbers == FOUND.numbers
    asked, _ = world.bus.asked[-1]
    assert (asked.texts, asked.model, asked.params) == (("one",), "default", {"input_type": "query"})


async def test_others_have_their_turn_while_many_vectors_are_written(client, world):
    turns, answered = 0, asyncio.Event()

    async def take_turns():
        nonlocal turns
        while not answered.is_set():
            turns += bool(world.bus.asked)
            await asyncio.sleep(0)

    world.bus.answers[Embed] = FOUND.model_copy(update={"vectors": FOUND.vectors * 128})
    others = asyncio.create_task(take_turns())
    response = await client.post("/v1/embeddings", json={"input": "one"})
    answered.set()
    await others
    assert len(response.json()["data"]) == 256
    assert turns > 256, "one after each vector"


async def test_the_same_key_is_the_same_call(client, world):
    world.bus.answers[Embed] = FOUND
    for headers in ({"idempotency-key": "a"}, {"idempotency-key": "a"}, {"idempotency-key": "b"}, {}):
        await client.post("/v1/embeddings", json={"input": "x"}, headers=headers)
    first, again, other, fresh = [asked.call_id for asked, _ in world.bus.asked]
    assert first == again
    assert len({first, other, fresh}) == 3


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({}, "input"),
        ({"input": []}, "input"),
        ({"input": ""}, "input[0]"),
        ({"input": ["a", 1]}, "input[1]"),
        ({"input": ["a"] * 257}, "input"),
        ({"input": ["a" * 190_000] * 6}, "input"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format"),
        ({"input": "a", "dimensions": 0}, "dimensions"),
        ({"input": "a", "user": "me"}, "user"),
    ],
)
async def test_what_is_no_question_is_refused(client, world, body, path):
    response = await client.post("/v1/embeddings", json=body)
    assert (response.status_code, response.json()["path"]) == (422, path)
    assert world.bus.asked == []


@pytest.mark.parametrize(("error", "status"), [(BudgetExceeded("used up"), 402), (ProviderFailed("broken"), 502)])
async def test_errors_are_told(client, world, error, status):
    world.bus.answers[Embed] = error
    response = await client.post("/v1/embeddings", json={"input": "a"})
    assert (response.status_code, response.json()["code"]) == (status, error.code)


async def test_models_are_listed(client, world):
    info = ModelInfo(name="builtin/wordllama-256", provider="builtin", capabilities=("embeddings",))
    world.bus.answers[ListModels] = ModelList(models=(info,), default="sandbox/rules", default_embedding=info.name)
    response = await client.get("/v1/models")
    assert ModelList.model_validate(response.json()) == world.bus.answers[ListModels]
