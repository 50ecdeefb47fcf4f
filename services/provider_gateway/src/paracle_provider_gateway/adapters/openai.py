"""OpenAI, and everything that speaks its Chat Completions API: Ollama, vLLM, and many others."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from paracle_domain.errors import NotFound
from paracle_domain.inference.request import Complete
from paracle_provider_gateway.adapters import openai_wire as wire
from paracle_provider_gateway.adapters.config import ProviderConfig
from paracle_provider_gateway.adapters.transport import Transport
from paracle_provider_gateway.adapters.wire import read_json, read_stream, with_params
from paracle_provider_gateway.faults import Origin
from paracle_provider_gateway.ports import Reply, StreamItem


class OpenAIProvider:
    """Chat Completions."""

    sandbox = False

    def __init__(self, config: ProviderConfig, transport: Transport, origin: Origin) -> None:
        self.name = config.name
        self._config = config
        self._transport = transport
        self._origin = origin
        self._model = config.model

    @property
    def listed_models(self) -> tuple[str, ...]:
        return (self._model,) if self._model else ()

    async def default_model(self) -> str:
        if self._model is None:
            self._model = await self._first_listed()
        return self._model

    async def ask(self, model: str, request: Complete) -> Reply:
        body = self._body(model, request, stream=False)
        async with self._transport.post(body, timeout_s=request.timeout_s) as response:
            found = await read_json(response, wire.WireReply, self._origin)
        return wire.read_reply(found, request, self._origin)

    async def stream(self, model: str, request: Complete) -> AsyncGenerator[StreamItem]:
        body = self._body(model, request, stream=True)
        reader = wire.ChunkReader(request, self._origin)
        async with (
            self._transport.post(body, timeout_s=request.timeout_s) as response,
            aclosing(read_stream(response, reader, self._origin)) as items,
        ):
            async for item in items:
                yield item

    async def close(self) -> None:
        await self._transport.close()

    def _body(self, model: str, request: Complete, *, stream: bool) -> dict[str, Any]:
        body = wire.request_body(model, request, provider=self.name, quirks=self._config.quirks, stream=stream)
        return with_params(body, request.sampling.params)

    async def _first_listed(self) -> str:
        if (found := await self._transport.first_model()) is not None:
            return found
        what = f"{self.name}: the server lists no models; name one in {self._config.model_source}"
        raise NotFound(what, path="model")
