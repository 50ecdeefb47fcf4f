"""OpenAI's Responses API, and what speaks it besides."""

from __future__ import annotations

from typing import Any, override

from paracle_domain.inference.request import Complete
from paracle_provider_gateway.adapters import responses_wire as wire
from paracle_provider_gateway.adapters.provider import OpenAIHttpProvider
from paracle_provider_gateway.adapters.responses_events import ResponseReader
from paracle_provider_gateway.adapters.wire import EventReader
from paracle_provider_gateway.ports import Reply


class ResponsesProvider(OpenAIHttpProvider[wire.WireReply]):
    """Responses, of which the provider keeps nothing."""

    _form = wire.WireReply

    @override
    async def _body(self, model: str, request: Complete, *, stream: bool) -> dict[str, Any]:
        return wire.request_body(model, request, provider=self.name, stream=stream)

    @override
    def _read(self, found: wire.WireReply, request: Complete) -> Reply:
        return wire.read_reply(found, request, self._origin)

    @override
    def _reader(self, request: Complete) -> EventReader:
        return ResponseReader(request, self._origin)
