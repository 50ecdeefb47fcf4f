"""Anthropic's Messages API."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from paracle_domain.errors import NotFound
from paracle_domain.inference.request import Complete
from paracle_domain.messages import JsonObject
from paracle_provider_gateway.adapters import anthropic_wire as wire
from paracle_provider_gateway.adapters.config import ProviderConfig
from paracle_provider_gateway.adapters.transport import Transport
from paracle_provider_gateway.adapters.wire import read_json, read_stream, with_params
from paracle_provider_gateway.faults import Origin
from paracle_provider_gateway.ports import Reply, StreamItem


class AnthropicProvider:
    """Messages, in which a schema is enforced where the API can, and asked for in words where it cannot."""

    sandbox = False

    def __init__(self, config: ProviderConfig, transport: Transport, origin: Origin) -> None:
        self.name = config.name
        self._config = config
        self._transport = transport
        self._origin = origin

    @property
    def listed_models(self) -> tuple[str, ...]:
        return (self._config.model,) if self._config.model else ()

    async def default_model(self) -> str:
        if self._config.model is None:
            what = f"{self.name}: which model `default` stands for is not said; name one in {self._config.model_source}"
            raise NotFound(what, path="model")
        return self._config.model

    async def ask(self, model: str, request: Complete) -> Reply:
        body = await self._body(model, request, stream=False)
        async with self._transport.post(body, timeout_s=request.timeout_s) as response:
            found = await read_json(response, wire.WireReply, self._origin)
        return wire.read_reply(found, self._origin)

    async def stream(self, model: str, request: Complete) -> AsyncGenerator[StreamItem]:
        body = await self._body(model, request, stream=True)
        reader = wire.MessageReader(self._origin)
        async with (
            self._transport.post(body, timeout_s=request.timeout_s) as response,
            aclosing(read_stream(response, reader, self._origin)) as items,
        ):
            async for item in items:
                yield item

    async def close(self) -> None:
        await self._transport.close()

    async def _body(self, model: str, request: Complete, *, stream: bool) -> dict[str, Any]:
        body = wire.request_body(
            model,
            request,
            provider=self.name,
            max_output_tokens=self._config.max_output_tokens,
            schema_format=await _enforced_schema(request),
            stream=stream,
        )
        return with_params(body, request.sampling.params)


async def _enforced_schema(request: Complete) -> JsonObject | None:
    """A strict output schema in the subset that the API can enforce, as the SDK makes it."""
    if request.output is None or not request.output.strict:
        return None
    sdk = await asyncio.to_thread(importlib.import_module, "anthropic")
    schema: JsonObject = sdk.transform_schema(dict(request.output.json_schema))
    return schema
