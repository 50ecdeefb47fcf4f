"""Models: which there are, and what embeddings they make."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import JsonValue

from paracle_client.calls.call import Call, keyed
from paracle_domain.inference.embedding import EmbeddingList
from paracle_domain.inference.response import ModelList

_GRACE_S = 10.0


def models() -> Call[ModelList]:
    """Models that can be asked by name, and what `default` stands for."""
    return Call("GET", "/v1/models", ModelList)


def embed(
    texts: Sequence[str],
    *,
    model: str = "default",
    dimensions: int | None = None,
    params: dict[str, JsonValue] | None = None,
    timeout_s: float = 60.0,
    idempotency_key: str | None = None,
) -> Call[EmbeddingList]:
    """A vector of each of up to 256 texts (`numbers` of the answer, in their order).

    Whoever keeps vectors names the model: those of different models cannot be compared, and `default` may change.
    """
    body = {
        "input": list(texts),
        "model": model,
        "dimensions": dimensions,
        "encoding_format": "base64",
        "params": params or {},
        "timeout_s": timeout_s,
    }
    headers, patience_s = keyed(idempotency_key), timeout_s + _GRACE_S
    return Call("POST", "/v1/embeddings", EmbeddingList, headers=headers, json=body, patience_s=patience_s)
