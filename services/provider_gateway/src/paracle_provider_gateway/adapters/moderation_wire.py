"""OpenAI's Moderations format: requests written, judgements read. Pure.

Source: the OpenAI API reference, "Moderations".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from paracle_provider_gateway.faults import Origin
from paracle_provider_gateway.ports import Judgement


class WireResult(BaseModel):
    """Of one text. A category that does not apply to texts is absent, or null."""

    categories: dict[str, bool | None]
    category_scores: dict[str, float | None] = {}


class WireModeration(BaseModel):
    """The whole answer."""

    results: list[WireResult]


def request_body(model: str, texts: Sequence[str]) -> dict[str, Any]:
    """The body of `POST /moderations`."""
    return {"model": model, "input": list(texts)}


def read_judgements(wire: WireModeration, texts: Sequence[str], origin: Origin) -> list[Judgement]:
    """One for each of the texts that were asked about.

    Raises
    ------
    ProviderFailed
        If there are more, or fewer.
    """
    if len(wire.results) != len(texts):
        raise origin.failed(f"answered {len(wire.results)} judgements to {len(texts)} texts")
    return [
        Judgement(
            frozenset(name for name, flagged in found.categories.items() if flagged),
            {name: score for name, score in found.category_scores.items() if score is not None},
        )
        for found in wire.results
    ]
