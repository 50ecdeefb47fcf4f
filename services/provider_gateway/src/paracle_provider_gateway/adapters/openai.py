"""OpenAI, and everything that speaks its Chat Completions API: Ollama, vLLM, and many others."""

from __future__ import annotations

from typing import Any, override

from paracle_domain.inference.request import Complete
from paracle_provider_gateway.adapters import openai_wire as wire
from paracle_provider_gateway.adapters.provider import OpenAIHttpProvider
from paracle_provider_gateway.adapters.wire import EventReader
from paracle_provider_gateway.ports import Reply


class OpenAIProvider(OpenAIHttpProvider[wire.WireReply]):
    """Chat Completions."""

    _form = wire.WireReply

    @override
    async def _body(self, model: str, request: Complete, *, stream: bool) -> dict[str, Any]:
        return wire.request_body(model, request, provider=self.name, quirks=self._config.quirks, stream=stream)

    @override
    def _read(self, found: wire.WireReply, request: Complete) -> Reply:
        return wire.read_reply(found, request, self._origin)

    @override
    def _reader(self, request: Complete) -> EventReader:
        return wire.ChunkReader(request, self._origin)
