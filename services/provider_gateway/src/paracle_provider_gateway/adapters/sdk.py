"""The official SDKs as transport: the reference for what is sent, at several times the price in CPU."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from functools import cache
from http.cookiejar import CookieJar, DefaultCookiePolicy
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, override

from paracle_provider_gateway.adapters.config import Api, ProviderConfig
from paracle_provider_gateway.adapters.transport import MAX_ERROR_BYTES, Body, Credentials, Purpose
from paracle_provider_gateway.faults import Origin

if TYPE_CHECKING:
    import ssl

    import httpx2

_NAMED: Final = frozenset({"model", "messages", "input", "max_tokens", "stream"})
_OF_ENVIRONMENT: Final = ("Authorization", "OpenAI-Organization", "OpenAI-Project")
"""Headers that SDKs fill with variables which were meant for nobody's provider in particular."""
_MODULES: Final[Mapping[Api, str]] = {"openai-chat": "openai", "openai-responses": "openai", "anthropic": "anthropic"}


class LazySdk[C]:
    """An SDK's client, made on first use, in a thread: to import one takes over a second, to make a client a tenth."""

    def __init__(self, module: str, make: Callable[[ModuleType], C]) -> None:
        self._module_name = module
        self._make = make
        self._lock = asyncio.Lock()
        self._made: tuple[ModuleType, C] | None = None

    async def get(self) -> tuple[ModuleType, C]:
        """The SDK's module and the client."""
        async with self._lock:
            if self._made is None:
                self._made = await asyncio.to_thread(self._import_and_make)
            return self._made

    def _import_and_make(self) -> tuple[ModuleType, C]:
        module = importlib.import_module(self._module_name)
        return module, self._make(module)

    async def close(self, close: Callable[[C], Awaitable[None]]) -> None:
        """Close the client, if there is one."""
        if self._made is not None:
            await close(self._made[1])
            self._made = None


class SdkTransport:
    """`Transport` over an SDK's client; bodies are read by us from their bytes, since SDKs read them leniently."""

    def __init__(self, config: ProviderConfig, credentials: Credentials, origin: Origin) -> None:
        self._config = config
        self._credentials = credentials
        self._origin = origin
        self._sdk = LazySdk(_MODULES[config.api], self._make)

    @asynccontextmanager
    async def post(
        self, body: Mapping[str, Any], *, timeout_s: float, purpose: Purpose = "reply"
    ) -> AsyncIterator[Body]:
        sdk, client = await self._sdk.get()
        named, extra = split_body(body)
        with _translated(sdk, self._origin, self._config.connect_s):
            async with self._method(client, purpose)(
                **named,
                extra_body=extra,
                extra_headers=self._headers(sdk),
                timeout=sdk.Timeout(timeout_s, connect=self._config.connect_s),
            ) as response:
                yield response

    async def first_model(self) -> str | None:
        sdk, client = await self._sdk.get()
        with _translated(sdk, self._origin, self._config.connect_s):
            async for found in client.models.list(timeout=self._config.connect_s, extra_headers=self._headers(sdk)):
                return str(found.id)
        return None

    async def close(self) -> None:
        await self._sdk.close(lambda client: client.close())

    def _make(self, sdk: ModuleType) -> Any:
        made = sdk.AsyncAnthropic if self._config.api == "anthropic" else sdk.AsyncOpenAI
        client = made(
            api_key="sent-with-each-request",
            base_url=self._config.base_url,
            default_query=dict(self._config.query),
            max_retries=0,
            http_client=sdk.DefaultAsyncHttpxClient(
                follow_redirects=False,
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
                event_hooks={"response": [_cap_refusal]},
                verify=_certificates(),
            ),
        )
        client._custom_headers = {}  # noqa: SLF001  # ANTHROPIC_CUSTOM_HEADERS and OPENAI_CUSTOM_HEADERS, for any host
        self._method(client, "reply")  # which imports more, when it is asked for
        return client

    def _method(self, client: Any, purpose: Purpose) -> Any:
        if purpose == "moderation":
            return client.moderations.with_streaming_response.create
        if purpose == "embeddings":
            return client.embeddings.with_streaming_response.create
        match self._config.api:
            case "openai-chat":
                return client.chat.completions.with_streaming_response.create
            case "openai-responses":
                return client.responses.with_streaming_response.create
            case "anthropic":
                return client.messages.with_streaming_response.create

    def _headers(self, sdk: ModuleType) -> dict[str, Any]:
        """Those of the key as it is now, instead of the SDK's own and of what it finds in the environment."""
        headers = self._credentials.headers()
        said = {name.lower() for name in headers}
        return {name: sdk.omit for name in _OF_ENVIRONMENT if name.lower() not in said} | headers


@cache
def _certificates() -> ssl.SSLContext:
    """Whom to trust, which takes long to read, and is the same for all."""
    import httpx2  # noqa: PLC0415  # arrives with the SDK, whose import is put off

    return httpx2.create_ssl_context()


async def _cap_refusal(response: httpx2.Response) -> None:
    """Let the SDK read only the beginning of what a refusal says: it would read any length."""
    if response.status_code >= 300:
        response.stream = _capped(response.stream)


def _capped(stream: Any) -> httpx2.AsyncByteStream:
    import httpx2  # noqa: PLC0415  # arrives with the SDK, whose import is put off

    class Capped(httpx2.AsyncByteStream):
        @override
        async def __aiter__(self) -> AsyncIterator[bytes]:
            left = MAX_ERROR_BYTES
            async with aclosing(aiter(stream)) as chunks:
                async for chunk in chunks:
                    yield chunk[:left]
                    left -= len(chunk)
                    if left <= 0:
                        return

        @override
        async def aclose(self) -> None:
            await stream.aclose()

    return Capped()


@contextmanager
def _translated(sdk: ModuleType, origin: Origin, connect_s: float) -> Iterator[None]:
    """Turn what the SDK and its HTTP client raise into errors of the contract."""
    import httpx2  # noqa: PLC0415  # arrives with the SDK, whose import is put off

    try:
        yield
    except (sdk.APITimeoutError, httpx2.TimeoutException) as error:
        if isinstance(error.__cause__, httpx2.ConnectTimeout):
            raise origin.unavailable(f"no connection within {connect_s:g} s") from error
        raise origin.lost("no answer in time") from error
    except sdk.APIStatusError as error:
        raise origin.from_status(error.status_code, error.body, error.response.headers) from error
    except (sdk.APIConnectionError, httpx2.TransportError) as error:
        cause = error.__cause__ or error
        what = f"connection failed: {type(cause).__name__}: {cause}"
        raise (origin.unavailable(what) if isinstance(cause, httpx2.ConnectError) else origin.lost(what)) from error
    except sdk.APIError as error:
        raise origin.failed(str(error)) from error


def split_body(body: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """`body` as arguments of an SDK's method: those that it must know, and the rest as it is.

    SDKs drop parameters from their signatures that servers and older models still take.
    """
    named = {name: value for name, value in body.items() if name in _NAMED}
    return named, {name: value for name, value in body.items() if name not in _NAMED}
