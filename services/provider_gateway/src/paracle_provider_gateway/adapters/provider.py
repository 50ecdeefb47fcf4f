"""What is alike about all providers over HTTP, whatever they speak: how they are asked, and their replies taken in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from pydantic import BaseModel

from paracle_domain.errors import NotFound
from paracle_domain.inference.embedding import Embed
from paracle_domain.inference.moderation import Moderate
from paracle_domain.inference.request import Complete
from paracle_provider_gateway.adapters import embedding_wire, moderation_wire
from paracle_provider_gateway.adapters.config import ProviderConfig
from paracle_provider_gateway.adapters.transport import Transport
from paracle_provider_gateway.adapters.wire import EventReader, read_json, read_stream, with_params
from paracle_provider_gateway.faults import Origin
from paracle_provider_gateway.ports import Judgements, Reply, StreamItem, Vectors


class HttpProvider[R: BaseModel](ABC):
    """Asks over a transport; `R` is the form of a whole reply."""

    sandbox = False

    def __init__(self, config: ProviderConfig, transport: Transport, origin: Origin) -> None:
        self._source = config.source
        self._config = config
        self._transport = transport
        self._origin = origin
        self._model = config.model

    # Whether it is a `Speaker` is asked for each call. Of what classes have, Python remembers that by class; attributes
    # of instances it would look for each time, which takes sixteen times as long.
    @property
    def name(self) -> str:
        return self._config.name

    @property
    def source(self) -> str:
        return self._source

    @property
    def listed_models(self) -> tuple[str, ...]:
        return (self._model,) if self._model else ()

    async def default_model(self) -> str:
        if self._model is None:
            self._model = await self._first_listed()
        return self._model

    async def ask(self, model: str, request: Complete) -> Reply:
        body = await self._sent(model, request, stream=False)
        async with self._transport.post(body, timeout_s=request.timeout_s) as response:
            found = await read_json(response, self._form, self._origin)
        return self._read(found, request)

    async def stream(self, model: str, request: Complete) -> AsyncGenerator[StreamItem]:
        body = await self._sent(model, request, stream=True)
        async with (
            self._transport.post(body, timeout_s=request.timeout_s) as response,
            aclosing(read_stream(response, self._reader(request), self._origin)) as items,
        ):
            async for item in items:
                yield item

    async def close(self) -> None:
        await self._transport.close()

    @property
    @abstractmethod
    def _form(self) -> type[R]:
        """Of a whole reply."""

    @abstractmethod
    async def _body(self, model: str, request: Complete, *, stream: bool) -> dict[str, Any]:
        """What is sent, without the parameters that a request passes on."""

    @abstractmethod
    def _read(self, found: R, request: Complete) -> Reply:
        """The reply that was found."""

    @abstractmethod
    def _reader(self, request: Complete) -> EventReader:
        """Reads a streamed reply."""

    async def _first_listed(self) -> str:
        """What `default` stands for if that is not said."""
        if (found := await self._transport.first_model()) is not None:
            return found
        what = f"{self.name}: the server lists no models; name one in {self._config.model_source}"
        raise NotFound(what, path="model")

    async def _sent(self, model: str, request: Complete, *, stream: bool) -> dict[str, Any]:
        return with_params(await self._body(model, request, stream=stream), request.sampling.params)


class OpenAIHttpProvider[R: BaseModel](HttpProvider[R]):
    """One that speaks an API of OpenAI's, which has models for other things besides: an `Embedder` and a `Judge`."""

    @property
    def embedding_model(self) -> str | None:
        return self._config.embedding_model

    @property
    def texts_at_once(self) -> int:
        return self._config.quirks.texts_at_once

    async def embed(self, model: str, request: Embed) -> Vectors:
        body = embedding_wire.request_body(model, request, self._config.quirks)
        async with self._transport.post(body, timeout_s=request.timeout_s, purpose="embeddings") as response:
            found = await read_json(response, embedding_wire.WireEmbeddings, self._origin)
        return embedding_wire.read_vectors(found, request, self._origin)

    async def judge(self, model: str, request: Moderate) -> Judgements:
        body = moderation_wire.request_body(model, request)
        async with self._transport.post(body, timeout_s=request.timeout_s, purpose="moderation") as response:
            found = await read_json(response, moderation_wire.WireModeration, self._origin)
        return moderation_wire.read_judgements(found, request, self._origin)
