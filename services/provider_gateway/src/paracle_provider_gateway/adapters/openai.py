"""OpenAI, and everything that speaks its Chat Completions API: Ollama, vLLM, and many others."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, aclosing
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from paracle_domain.errors import NotFound
from paracle_domain.inference.request import Complete
from paracle_provider_gateway.adapters import openai_wire as wire
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
    from openai import AsyncOpenAI


class OpenAIProvider:
    """Chat Completions over the official SDK.

    Parameters
    ----------
    name
        The provider's name in `provider/model`.
    key
        API key; a server without authentication takes none.
    key_variable
        Where the key is set, for messages.
    base_url
        Of the API, with its `/v1`; the SDK's default if absent.
    official
        Whether it is OpenAI's own API, which has renamed some fields.
    model
        What `default` stands for; if absent, the first model that the server lists.
    """

    sandbox = False

    def __init__(
        self,
        name: str,
        key: SecretStr | None,
        *,
        key_variable: str,
        base_url: str | None = None,
        model: str | None = None,
        official: bool = False,
    ) -> None:
        self.name = name
        self._key = key
        self._base_url = base_url
        self._model = model
        self._official = official
        self._origin = Origin(name, key_variable, (key,) if key else ())
        self._sdk = LazySdk("openai", self._make)

    @property
    def listed_models(self) -> tuple[str, ...]:
        return (self._model,) if self._model else ()

    async def default_model(self) -> str:
        if self._model is None:
            self._model = await self._first_listed()
        return self._model

    async def ask(self, model: str, request: Complete) -> Reply:
        sdk, client = await self._sdk.get()
        with translated(sdk, self._origin):
            async with self._send(sdk, client, model, request, stream=False) as response:
                found = await read_json(response, wire.WireReply, self._origin)
        reply = wire.read_reply(found, request)
        if reply is None:
            raise self._origin.unavailable("the reply has no choices")
        return reply

    async def stream(self, model: str, request: Complete) -> AsyncGenerator[StreamItem]:
        sdk, client = await self._sdk.get()
        reader = wire.ChunkReader(request)
        with translated(sdk, self._origin):
            async with (
                self._send(sdk, client, model, request, stream=True) as response,
                aclosing(server_sent(response, self._origin)) as events,
            ):
                async for data in events:
                    if data == wire.DONE:
                        break
                    for item in reader.read(self._chunk(data)):
                        yield item
        for item in reader.close():
            yield item

    async def close(self) -> None:
        await self._sdk.close(lambda client: client.close())

    def _make(self, sdk: ModuleType) -> AsyncOpenAI:
        key = self._key.get_secret_value() if self._key else "none"
        client: AsyncOpenAI = sdk.AsyncOpenAI(api_key=key, base_url=self._base_url, max_retries=0)
        return client

    def _send(
        self, sdk: ModuleType, client: AsyncOpenAI, model: str, request: Complete, *, stream: bool
    ) -> AbstractAsyncContextManager[Body]:
        body = wire.request_body(model, request, official=self._official, stream=stream)
        timeout = sdk.Timeout(request.timeout_s, connect=CONNECT_TIMEOUT_S)
        named, extra = split_body(body, request.sampling.params)
        sent: Any = client.chat.completions.with_streaming_response.create(**named, timeout=timeout, extra_body=extra)
        return sent  # type: ignore[no-any-return]  # the SDK's response has what `Body` names

    def _chunk(self, data: str) -> wire.WireReply:
        failure = parse(data, wire.WireError, self._origin).error
        if failure is not None:
            raise self._origin.from_event({"error": failure})
        return parse(data, wire.WireReply, self._origin)

    async def _first_listed(self) -> str:
        sdk, client = await self._sdk.get()
        with translated(sdk, self._origin):
            async for found in client.models.list(timeout=CONNECT_TIMEOUT_S):
                return found.id
        raise NotFound(f"{self.name}: the server lists no models; name one in PARACLE_OPENAI_MODEL", path="model")
