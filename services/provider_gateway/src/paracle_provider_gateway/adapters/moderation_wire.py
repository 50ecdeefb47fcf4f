"""OpenAI's Moderations format: requests written, judgements read. Pure.

Source: the OpenAI API reference, "Moderations".
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from paracle_domain.inference.estimate import estimate_input
from paracle_domain.inference.moderation import Moderate
from paracle_domain.inference.usage import Usage
from paracle_provider_gateway.faults import Origin
from paracle_provider_gateway.ports import Judgement, Judgements


class WireResult(BaseModel):
    """Of one text. A category that does not apply to texts is absent, or null."""

    categories: dict[str, bool | None]
    category_scores: dict[str, float | None] = {}


class WireModeration(BaseModel):
    """The whole answer."""

    model: str = ""
    results: list[WireResult]


def request_body(model: str, request: Moderate) -> dict[str, Any]:
    """The body of `POST /moderations`."""
    return {"model": model, "input": list(request.texts)}


def read_judgements(wire: WireModeration, request: Moderate, origin: Origin) -> Judgements:
    """One for each of the texts that were asked about. The API counts no tokens: they are estimated.

    Raises
    ------
    ProviderFailed
        If there are more, or fewer.
    """
    if len(wire.results) != len(request.texts):
        raise origin.failed(f"answered {len(wire.results)} judgements to {len(request.texts)} texts")
    judgements = (
        Judgement(
            frozenset(name for name, flagged in found.categories.items() if flagged),
            {name: score for name, score in found.category_scores.items() if score is not None},
        )
        for found in wire.results
    )
    return Judgements(tuple(judgements), Usage(input_tokens=estimate_input(request), model_calls=1), wire.model)
