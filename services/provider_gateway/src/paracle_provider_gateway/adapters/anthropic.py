"""Anthropic's Messages API."""

from __future__ import annotations

import asyncio
import importlib
from typing import Any, override

from paracle_domain.errors import InvalidInput, NotFound
from paracle_domain.inference.request import Complete
from paracle_domain.messages import JsonObject
from paracle_provider_gateway.adapters import anthropic_wire as wire
from paracle_provider_gateway.adapters.provider import HttpProvider
from paracle_provider_gateway.adapters.wire import EventReader
from paracle_provider_gateway.ports import Reply


class AnthropicProvider(HttpProvider[wire.WireReply]):
    """Messages, in which a schema is enforced where the API can, and asked for in words where it cannot."""

    _form = wire.WireReply

    @override
    async def _body(self, model: str, request: Complete, *, stream: bool) -> dict[str, Any]:
        return wire.request_body(
            model,
            request,
            provider=self.name,
            max_output_tokens=self._config.max_output_tokens,
            schema_format=await _enforced_schema(request),
            stream=stream,
        )

    @override
    def _read(self, found: wire.WireReply, request: Complete) -> Reply:
        return wire.read_reply(found, self._origin)

    @override
    def _reader(self, request: Complete) -> EventReader:
        return wire.MessageReader(self._origin)

    @override
    async def _first_listed(self) -> str:
        what = f"{self.name}: which model `default` stands for is not said; name one in {self._config.model_source}"
        raise NotFound(what, path="model")


async def _enforced_schema(request: Complete) -> JsonObject | None:
    """A strict output schema in the subset that the API can enforce, as the SDK makes it.

    Raises
    ------
    InvalidInput
        If it can make none of it.
    """
    if request.output is None or not request.output.strict:
        return None
    sdk = await asyncio.to_thread(importlib.import_module, "anthropic")
    try:
        schema: JsonObject = sdk.transform_schema(dict(request.output.json_schema))
    except Exception as error:  # of a schema that is none, the SDK takes the parts for what they are not
        what = f"Anthropic's API cannot enforce this schema ({error}); mend it, or ask without strict"
        raise InvalidInput(what, path="output.json_schema") from error
    return schema
