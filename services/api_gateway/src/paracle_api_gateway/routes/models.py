"""Models: which there are, and embeddings as OpenAI's API has them, so that its clients can ask for them here."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue

from paracle_api_gateway.auth import Caller
from paracle_api_gateway.bodies import read_json
from paracle_api_gateway.problems import documented
from paracle_api_gateway.routes.common import JSON, IdempotencyKey, TheBus, answer, body_of
from paracle_domain.ids import id_from_key, new_id
from paracle_domain.inference.embedding import (
    MOST_DIMENSIONS,
    MOST_TEXTS,
    Embed,
    EmbeddingList,
    Embeddings,
    Text,
    Texts,
)
from paracle_domain.inference.request import ListModels
from paracle_domain.inference.response import ModelList
from paracle_domain.messages import Plain

_GRACE_S: Final = 5.0
_IDLE_S: Final = 5.0


def _many(given: Any) -> Any:
    return [given] if isinstance(given, str) else given


OneOrMany = Annotated[Texts, BeforeValidator(_many, json_schema_input_type=Text | Texts)]


class EmbeddingRequest(BaseModel):
    """Texts, and who is to make vectors of them. `params` go to the provider as they are, under its own names."""

    model_config = ConfigDict(extra="forbid")

    input: OneOrMany = Field(description=f"One text, or up to {MOST_TEXTS}.", examples=[["one", "two"]])
    model: Plain = Field(default="default", min_length=1, max_length=200, examples=["openai/text-embedding-3-small"])
    dimensions: int | None = Field(default=None, ge=1, le=MOST_DIMENSIONS, description="Where the model can shorten.")
    encoding_format: Literal["float", "base64"] = "float"
    params: dict[str, JsonValue] = {}
    timeout_s: float = Field(default=60.0, gt=0, le=600)


def router() -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["models"])
    routes.get(
        "/v1/models",
        operation_id="list_models",
        summary="List models that can be asked by name",
        response_model=ModelList,
        responses=documented(),
    )(list_models)
    routes.post(
        "/v1/embeddings",
        operation_id="embed",
        summary="Make vectors of texts",
        response_model=EmbeddingList,
        responses=documented(400, 402, 404, 409, 413, 415, 422, 429, 502),
        openapi_extra=body_of(EmbeddingRequest),
    )(embed)
    return routes


async def list_models(call: Caller, bus: TheBus) -> Response:
    """What each can do and costs, as far as that is known. A provider may have more models than it shows."""
    return answer(await bus.call(ListModels(), call))


async def embed(request: Request, call: Caller, bus: TheBus, idempotency_key: IdempotencyKey = None) -> Response:
    """As OpenAI's API has it. Vectors of different models cannot be compared: name the model if you keep them."""
    asked = await read_json(request, EmbeddingRequest)
    key = idempotency_key
    question = Embed(
        call_id=new_id("call") if key is None else id_from_key("call", f"{call.tenant}/{key}"),
        model=asked.model,
        texts=asked.input,
        dimensions=asked.dimensions,
        params=asked.params,
        timeout_s=asked.timeout_s,
    )
    found = await bus.call(question, call, timeout_s=asked.timeout_s + _GRACE_S, idle_s=_IDLE_S)
    if asked.encoding_format == "base64":
        return answer(EmbeddingList.of(found, as_text=True))
    return Response(await _in_numbers(found), media_type=JSON)


async def _in_numbers(found: Embeddings) -> bytes:
    """Many megabytes, which take a third of a second: others have their turn after each vector."""
    body = bytearray()
    for piece in EmbeddingList.encoded(found):
        body += piece
        await asyncio.sleep(0)
    return bytes(body)
