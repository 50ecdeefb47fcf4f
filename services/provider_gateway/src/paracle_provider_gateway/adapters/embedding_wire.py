"""OpenAI's Embeddings format: requests written, vectors read. Pure.

Source: the OpenAI API reference, "Embeddings". Whichever form vectors are asked for in, servers answer in the one that
they know: numbers, or base64 of them.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from paracle_domain.inference.embedding import Embed, pack, unpack
from paracle_domain.inference.usage import Usage
from paracle_domain.provider.presets import Quirks
from paracle_provider_gateway.adapters.wire import Place, with_params, without_none
from paracle_provider_gateway.faults import Origin
from paracle_provider_gateway.ports import Vectors


class WireEmbedding(BaseModel):
    index: Place | None = None
    embedding: list[float] | str


class WireEmbeddingUsage(BaseModel):
    prompt_tokens: int = 0
    total_tokens: int = 0


class WireEmbeddings(BaseModel):
    """The whole answer."""

    model: str = ""
    data: list[WireEmbedding]
    usage: WireEmbeddingUsage | None = None


def request_body(model: str, request: Embed, quirks: Quirks) -> dict[str, Any]:
    """The body of `POST /embeddings`.

    Raises
    ------
    InvalidInput
        If one of its parameters is the gateway's own.
    """
    body = {
        "model": model,
        "input": list(request.texts),
        quirks.dimensions: request.dimensions,
        "encoding_format": "base64" if quirks.vectors == "base64" else None,
    }
    return with_params(without_none(body), request.params, "params")


def read_vectors(wire: WireEmbeddings, request: Embed, origin: Origin) -> Vectors:
    """The vectors that `wire` holds: one for each text, in their order, all of one length.

    Raises
    ------
    ProviderFailed
        If it does not.
    """
    wanted = len(request.texts)
    if len(wire.data) != wanted:
        raise origin.failed(f"answered {len(wire.data)} vectors to {wanted} texts")
    vectors = [_vector(found, origin) for found in _in_order(wire.data, origin)]
    lengths = {length for length, _ in vectors}
    if lengths != {request.dimensions or max(lengths)} or 0 in lengths:
        told = " and ".join(map(str, sorted(lengths)))
        raise origin.failed(f"answered vectors of {told} dimensions instead of {request.dimensions or 'one length'}")
    return Vectors(tuple(packed for _, packed in vectors), lengths.pop(), _usage(wire.usage), wire.model)


def _in_order(data: list[WireEmbedding], origin: Origin) -> list[WireEmbedding]:
    """As their places say; as they come, if none of them has one."""
    places = [found.index for found in data]
    if all(place is None for place in places):
        return data
    by_place = dict(zip(places, data, strict=True))
    if by_place.keys() != set(range(len(data))):
        raise origin.failed("answered vectors whose places are not those of the texts")
    return [by_place[place] for place in range(len(data))]


def _vector(found: WireEmbedding, origin: Origin) -> tuple[int, str]:
    """How long it is, and it as it travels."""
    try:
        if isinstance(found.embedding, str):
            return len(unpack(found.embedding)), found.embedding
        return len(found.embedding), pack(found.embedding)
    except ValueError as error:
        raise origin.failed(f"answered what is no vector: {error}") from error


def _usage(wire: WireEmbeddingUsage | None) -> Usage:
    """Embeddings have no output."""
    if wire is None:
        return Usage(model_calls=1)
    return Usage(input_tokens=wire.prompt_tokens or wire.total_tokens, model_calls=1)
