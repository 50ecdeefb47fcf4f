"""Models and embeddings: asked for by the clients and by the command line."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from paracle_client import AsyncClient, Client
from paracle_domain.inference.embedding import EmbeddingItem, EmbeddingList, EmbeddingUsage, pack
from paracle_domain.inference.response import ModelInfo, ModelList


def found(*vectors: list[float], cost: str | None = "0") -> EmbeddingList:
    return EmbeddingList(
        data=tuple(EmbeddingItem(index=index, embedding=pack(vector)) for index, vector in enumerate(vectors)),
        model="m-1",
        usage=EmbeddingUsage(prompt_tokens=1200, total_tokens=1200),
        dimensions=2,
        deployment="p/m",
        cost_usd=None if cost is None else Decimal(cost),
    )


def lines(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]


def test_both_clients_ask_for_vectors(api: Any) -> None:
    api.on("POST /v1/embeddings", found([1, 0]))
    with Client(api.url) as client:
        answer = client.embed(["one"], model="p/m", dimensions=2, params={"a": 1}, idempotency_key="k", timeout_s=5)
    assert answer.numbers == [(1, 0)]
    assert api.asked[-1].headers["idempotency-key"] == "k"
    assert api.asked[-1].json == {
        "input": ["one"], "model": "p/m", "dimensions": 2, "encoding_format": "base64", "params": {"a": 1},
        "timeout_s": 5,
    }  # fmt: skip

    async def ask() -> None:
        async with AsyncClient(api.url) as client:
            assert await client.embed(["one"]) == answer

    asyncio.run(ask())
    assert api.asked[-1].json["model"] == "default"


def test_texts_are_shown_with_their_nearness_to_the_first(paracle: Callable[..., Any], api: Any) -> None:
    api.on("POST /v1/embeddings", found([2, 0], [1, 1], [0, 3], [0, 0]))
    assert lines(paracle("embed", "a cat", "b " * 60, "c", "d").out) == [
        "NEARNESS TEXT",
        "1.000 a cat",
        "0.707 " + ("b " * 30)[:-1] + "…",
        "0.000 c",
        "0.000 d",
        "2 dimensions of p/m; 1,200 tokens, $0.00",
    ]
    api.on("POST /v1/embeddings", found([1, 0], cost=None))
    assert paracle("embed", "a cat").out.endswith("1,200 tokens, at an unknown price\n")


def test_a_file_has_a_text_in_each_line_and_is_asked_for_in_parts(
    paracle: Callable[..., Any], api: Any, tmp_path: Path
) -> None:
    path = tmp_path / "texts"
    path.write_text("\n".join(f"line {number}" for number in range(300)) + "\n\n")
    api.on("POST /v1/embeddings", found(*[[1.0, 0.0]] * 256), found(*[[0.5, 0.0]] * 45))
    told = paracle("embed", "first", "--file", str(path), "--model", "p/m", "--json").out.splitlines()
    assert [len(asked.json["input"]) for asked in api.asked] == [256, 45]
    assert json.loads(told[0]) == {"text": "first", "model": "m-1", "embedding": [1, 0]}
    assert json.loads(told[300]) == {"text": "line 299", "model": "m-1", "embedding": [0.5, 0]}


def test_without_a_text_nothing_is_asked(paracle: Callable[..., Any], api: Any) -> None:
    assert "there is no text; give some, or a file with --file" in paracle("embed").err
    assert api.asked == []


@pytest.mark.parametrize("embedding", ["builtin/wordllama-256", None])
def test_models_are_shown(paracle: Callable[..., Any], api: Any, embedding: str | None) -> None:
    one = ModelInfo(
        name="builtin/wordllama-256",
        provider="builtin",
        capabilities=("embeddings",),
        input_usd_per_mtok=Decimal(0),
        output_usd_per_mtok=Decimal(0),
    )
    other = ModelInfo(name="steady", provider="p", context_tokens=128_000, routes=("p/a", "q/a"))
    api.on("GET /v1/models", ModelList(models=(one, other), default="p/a", default_embedding=embedding))
    assert lines(paracle("models").out) == [
        "MODEL CAN READS USD/MTOK IN OUT LEADS TO",
        "builtin/wordllama-256 embeddings 0 0",
        "steady 128,000 ? ? p/a, q/a",
        f"default is p/a; for embeddings {embedding or 'there is none'}",
    ]
    assert json.loads(paracle("models", "--json").out)["default"] == "p/a"
