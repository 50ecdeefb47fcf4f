"""The default transport: HTTP over aiohttp, whose parser is in C.

A request costs a tenth of the CPU that the SDKs' clients take for it (docs/adr/0027-models-are-asked-over-aiohttp.md).
"""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Any, Final
from urllib.request import getproxies, proxy_bypass

import aiohttp
from aiohttp.abc import AbstractResolver
from multidict import CIMultiDict
from pydantic_core import to_json
from yarl import URL

from paracle_chassis import outages
from paracle_provider_gateway.adapters.config import Api, ProviderConfig
from paracle_provider_gateway.adapters.transport import (
    ELSEWHERE,
    ENDPOINTS,
    MAX_ERROR_BYTES,
    Credentials,
    Purpose,
    error_body,
    first_listed,
)
from paracle_provider_gateway.faults import Origin

_log = logging.getLogger(__name__)

_IDLE_S: Final = 30.0
_AT_ONCE_BYTES: Final = 1024 * 1024
_REST_S: Final = 1.0
_REST_BYTES: Final = 64 * 1024
_HEADERS: Final = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
_OF_API: Final[Mapping[Api, Mapping[str, str]]] = {"anthropic": {"anthropic-version": "2026-10-21"}}
"""What an API insists on: Anthropic's wants to be told which version of it is spoken."""


class HttpBody:
    """A response as `Body`."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._content = response.content
        self.headers: Mapping[str, str] = response.headers

    async def iter_bytes(self) -> AsyncGenerator[bytes]:
        read = self._content.readany
        while chunk := await read():
            yield chunk


class AiohttpTransport:
    """`Transport` with one pool of connections; how many there are at once is bounded by who asks."""

    def __init__(
        self,
        config: ProviderConfig,
        credentials: Credentials,
        origin: Origin,
        resolver: AbstractResolver | None = None,
    ) -> None:
        self._config = config
        self._resolver = resolver
        self._credentials = credentials
        self._origin = origin
        self._asked = self._url(ENDPOINTS[config.api])
        self._session: aiohttp.ClientSession | None = None
        self._proxy: dict[str, Any] = {}
        self._shown: tuple[object, CIMultiDict[str]] | None = None
        self._ending = set[asyncio.Task[None]]()

    @asynccontextmanager
    async def post(
        self,
        body: Mapping[str, Any],
        *,
        timeout_s: float,  # noqa: ARG002  # the caller's timer ends it
        purpose: Purpose = "reply",
    ) -> AsyncIterator[HttpBody]:
        data = to_json(body)
        with _translated(self._origin, self._config.connect_s), ExitStack() as broken:
            response = await self._open().post(
                self._asked if purpose == "reply" else self._url(ELSEWHERE[purpose]),
                data=data if len(data) < _AT_ONCE_BYTES else io.BytesIO(data),
                headers=self._headers(),
                allow_redirects=False,
                **self._proxy,
            )
            broken.callback(response.close)
            await self._check(response)
            yield HttpBody(response)
            broken.pop_all()
            if response.content.at_eof():
                response.release()
            else:  # its reader has all that it needs: a stream says that it is over before it ends
                self._end_apart(response)

    async def first_model(self) -> str | None:
        with _translated(self._origin, self._config.connect_s):
            session, limit = self._open(), aiohttp.ClientTimeout(total=self._config.connect_s)
            sent = session.get(
                self._url("/models"), headers=self._headers(), allow_redirects=False, timeout=limit, **self._proxy
            )
            async with sent as response:
                await self._check(response)
                return first_listed(await response.content.read(MAX_ERROR_BYTES * 16), self._origin)

    @property
    def ending(self) -> int:
        """How many responses have said all and are still being read to their end."""
        return len(self._ending)

    async def close(self) -> None:
        for task in self._ending:
            task.cancel()
        await asyncio.gather(*self._ending, return_exceptions=True)
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._proxy = proxy_of(self._config.base_url)
            resolver = None if self._proxy else self._resolver  # whose rules are for the provider, not for the proxy
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=0, keepalive_timeout=_IDLE_S, resolver=resolver, use_dns_cache=resolver is None
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, connect=self._config.connect_s),
            )
        return self._session

    def _url(self, endpoint: str) -> URL:
        return URL(self._config.base_url.rstrip("/") + endpoint, encoded=True).update_query(dict(self._config.query))

    def _headers(self) -> CIMultiDict[str]:
        now = self._credentials.headers()
        if self._shown is None or self._shown[0] is not now:
            self._shown = (now, CIMultiDict({**_HEADERS, **_OF_API.get(self._config.api, {}), **now}))
        return self._shown[1]

    async def _check(self, response: aiohttp.ClientResponse) -> None:
        """Raise what a status stands for."""
        if response.status >= 300:
            text = await response.content.read(MAX_ERROR_BYTES)
            raise self._origin.from_status(response.status, error_body(text), response.headers)

    def _end_apart(self, response: aiohttp.ClientResponse) -> None:
        """Let the connection be used again once the last bytes are there, which nobody has to wait for."""
        task = asyncio.create_task(_read_the_rest(response))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
        task.add_done_callback(lambda _: response.close())  # which does nothing to one that has ended


async def _read_the_rest(response: aiohttp.ClientResponse) -> None:
    """At its end aiohttp itself gives the connection back."""
    left = _REST_BYTES
    try:
        async with asyncio.timeout(_REST_S):
            while left > 0 and (chunk := await response.content.readany()):
                left -= len(chunk)
    except (TimeoutError, aiohttp.ClientError, OSError):
        _log.debug("a response did not end after its last event; its connection is closed")


@contextmanager
def _translated(origin: Origin, connect_s: float) -> Iterator[None]:
    """Turn what aiohttp raises into errors of the contract."""
    try:
        yield
    except aiohttp.ServerTimeoutError as error:
        raise origin.unavailable(f"no connection within {connect_s:g} s") from error
    except aiohttp.ClientConnectorError as error:
        raise origin.unavailable(_unconnected(error)) from error
    except (aiohttp.ClientError, OSError) as error:
        raise origin.lost(f"connection failed: {type(error).__name__}: {error}") from error


def proxy_of(url: str) -> dict[str, Any]:
    """How the environment (`HTTPS_PROXY`, `NO_PROXY`) wants `url` to be asked, as arguments of aiohttp.

    Found out once for a provider: aiohttp's own `trust_env` looks it up in a thread, for each request.
    """
    target = URL(url)
    proxies = getproxies()
    proxy = proxies.get(target.scheme) or proxies.get("all")
    if proxy is None or target.host is None or proxy_bypass(f"{target.host}:{target.port}"):
        return {}
    return {"proxy": URL(proxy)}


def _unconnected(error: aiohttp.ClientConnectorError) -> str:
    """Where there is no connection to, and why, in the system's words."""
    cause = error.certificate_error if isinstance(error, aiohttp.ClientConnectorCertificateError) else error.os_error
    why = outages.reason(cause) if isinstance(cause, OSError) else str(cause)
    return f"no connection to {error.host}:{error.port}: {why}"
