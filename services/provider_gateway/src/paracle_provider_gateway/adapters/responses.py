"""OpenAI's Responses API, and what speaks it besides."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, override

from paracle_domain.inference.request import Complete
from paracle_provider_gateway.adapters import responses_wire as wire
from paracle_provider_gateway.adapters.openai import OpenAIProvider
from paracle_provider_gateway.adapters.responses_events import ResponseReader
from paracle_provider_gateway.adapters.wire import read_json, read_stream, with_params
from paracle_provider_gateway.ports import Reply, StreamItem


class ResponsesProvider(OpenAIProvider):
    """Responses, of which the provider keeps nothing."""

    @override
    async def ask(self, model: str, request: Complete) -> Reply:
        body = self._body(model, request, stream=False)
        async with self._transport.post(body, timeout_s=request.timeout_s) as response:
            found = await read_json(response, wire.WireReply, self._origin)
        return wire.read_reply(found, request, self._origin)

    @override
    async def stream(self, model: str, request: Complete) -> AsyncGenerator[StreamItem]:
        body = self._body(model, request, stream=True)
        reader = ResponseReader(request, self._origin)
        async with (
            self._transport.post(body, timeout_s=request.timeout_s) as response,
            aclosing(read_stream(response, reader, self._origin)) as items,
        ):
            async for item in items:
                yield item

    @override
    def _body(self, model: str, request: Complete, *, stream: bool) -> dict[str, Any]:
        body = wire.request_body(model, request, provider=self.name, stream=stream)
        return with_params(body, request.sampling.params)
