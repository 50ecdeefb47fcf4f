"""Anthropic's Messages API over the official SDK."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, aclosing
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from paracle_domain.inference.request import Complete
from paracle_domain.messages import JsonObject
from paracle_provider_gateway.adapters import anthropic_wire as wire
from paracle_provider_gateway.adapters.wire import (
    CONNECT_TIMEOUT_S,
    Body,
    LazySdk,
    parse,
    read_json,
    server_sent,
    split_body,
    translated,
)
from paracle_provider_gateway.faults import Origin
from paracle_provider_gateway.ports import Reply, StreamItem

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic


class AnthropicProvider:
    """Claude models.

    `max_output_tokens` is sent where a request does not say, since the API insists on one.
    """

    name = wire.PROVIDER
    sandbox = False

    def __init__(self, key: SecretStr, *, model: str, max_output_tokens: int, base_url: str | None = None) -> None:
        self._key = key
        self._model = model
        self._max_output_tokens = max_output_tokens
        self._base_url = base_url
        self._origin = Origin(self.name, "ANTHROPIC_API_KEY", (key,))
        self._sdk = LazySdk("anthropic", self._make)

    @property
    def listed_models(self) -> tuple[str, ...]:
        return (self._model,)

    async def default_model(self) -> str:
        return self._model

    async def ask(self, model: str, request: Complete) -> Reply:
        sdk, client = await self._sdk.get()
        with translated(sdk, self._origin):
            async with self._send(sdk, client, model, request, stream=False) as response:
                found = await read_json(response, wire.WireReply, self._origin)
        if found.stop_reason is None:
            raise self._origin.unavailable("the reply has no stop reason")
        return wire.read_reply(found)

    async def stream(self, model: str, request: Complete) -> AsyncGenerator[StreamItem]:
        sdk, client = await self._sdk.get()
        reader = wire.EventReader()
        with translated(sdk, self._origin):
            async with (
                self._send(sdk, client, model, request, stream=True) as response,
                aclosing(server_sent(response, self._origin)) as events,
            ):
                async for data in events:
                    for item in reader.read(self._event(data)):
                        yield item
        for item in reader.close():
            yield item

    async def close(self) -> None:
        await self._sdk.close(lambda client: client.close())

    def _make(self, sdk: ModuleType) -> AsyncAnthropic:
        client: AsyncAnthropic = sdk.AsyncAnthropic(
            api_key=self._key.get_secret_value(), base_url=self._base_url, max_retries=0
        )
        return client

    def _send(
        self, sdk: ModuleType, client: AsyncAnthropic, model: str, request: Complete, *, stream: bool
    ) -> AbstractAsyncContextManager[Body]:
        body = wire.request_body(
            model,
            request,
            max_output_tokens=self._max_output_tokens,
            schema_format=_enforced_schema(sdk, request),
            stream=stream,
        )
        timeout = sdk.Timeout(request.timeout_s, connect=CONNECT_TIMEOUT_S)
        named, extra = split_body(body, request.sampling.params)
        sent: Any = client.messages.with_streaming_response.create(**named, timeout=timeout, extra_body=extra)
        return sent  # type: ignore[no-any-return]  # the SDK's response has what `Body` names

    def _event(self, data: str) -> wire.WireEvent:
        event = parse(data, wire.WireEvent, self._origin)
        if event.type == "error":
            raise self._origin.from_event({"error": event.error})
        return event


def _enforced_schema(sdk: ModuleType, request: Complete) -> JsonObject | None:
    """A strict output schema in the subset that the API can enforce."""
    if request.output is None or not request.output.strict:
        return None
    schema: JsonObject = sdk.transform_schema(dict(request.output.json_schema))
    return schema
