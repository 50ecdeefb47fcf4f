"""What both transports do alike: which connections they make and keep, over what, and what they show to whom."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from aiohttp import ThreadedResolver
from provider_gateway_samples import ask, openai_like
from pydantic import SecretStr
from raw_peer import RawPeer, chunk, head, raw_peer, response, stream_head

from paracle_chassis.testing.eventually import eventually
from paracle_domain.errors import InvalidInput, ProviderFailed, ProviderUnavailable
from paracle_provider_gateway.adapters import http
from paracle_provider_gateway.adapters.config import Api, ProviderConfig, TransportName, fixed
from paracle_provider_gateway.adapters.create import create_provider
from paracle_provider_gateway.adapters.http import AiohttpTransport
from paracle_provider_gateway.adapters.openai import OpenAIProvider
from paracle_provider_gateway.adapters.resolver import CheckedResolver
from paracle_provider_gateway.adapters.sdk import LazySdk
from paracle_provider_gateway.adapters.transport import Credentials, origin_of
from paracle_provider_gateway.hosts import HostRules
from paracle_provider_gateway.ports import Speaker

SAID = json.dumps({"model": "m", "choices": [{"message": {"content": "Hello."}, "finish_reason": "stop"}]}).encode()
WORDS = b'data: {"model": "m", "choices": [{"delta": {"content": "Hello."}, "finish_reason": "stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"


@pytest.fixture
async def raw() -> AsyncIterator[RawPeer]:
    async with raw_peer() as peer:
        yield peer


@asynccontextmanager
async def asked(url: str, transport: TransportName, **more: Any) -> AsyncIterator[Speaker]:
    provider = openai_like(url, transport=transport, **more)
    try:
        yield provider
    finally:
        await provider.close()


async def streamed(provider: Speaker) -> list[object]:
    return [item async for item in provider.stream("m", ask())]


async def test_the_peer_hangs_up_on_a_client_that_reads_no_more():
    async with raw_peer() as peer:
        peer.script(stream_head(), *[chunk(b"x" * 2**20)] * 20)
        reader, writer = await asyncio.open_connection("127.0.0.1", peer.port, limit=1)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        await reader.read(1)
        assert [request.line for request in peer.requests] == ["GET / HTTP/1.1"]
    rest = b""
    with suppress(ConnectionError):
        rest = await reader.read()
    assert len(rest) < 20 * 2**20
    writer.close()


async def test_an_sdks_client_is_made_once_and_beside_the_event_loop():
    made: list[int] = []

    def make(module: object) -> object:
        made.append(threading.get_ident())
        return module

    sdk = LazySdk("json", make)
    first, second = await asyncio.gather(sdk.get(), sdk.get())
    assert first == second == (json, json)
    [thread] = made
    assert thread != threading.get_ident()


async def test_a_connection_is_used_again(raw: RawPeer, transport: TransportName):
    raw.script(response(SAID))
    async with asked(raw.url, transport) as provider:
        for _ in range(3):
            await provider.ask("m", ask())
    assert (len(raw.requests), raw.connections) == (3, 1)


async def test_a_stream_that_has_said_all_is_not_waited_for_and_its_connection_is_used_again(
    raw: RawPeer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(http, "_REST_S", 60.0)  # the rest comes soon, on a machine that goes on
    raw.script(stream_head(), chunk(WORDS + DONE), 0.05, chunk(b""))
    config = ProviderConfig("mine", "openai-chat", raw.url)
    credentials = Credentials(config)
    origin = origin_of(config, credentials)
    transport = AiohttpTransport(config, credentials, origin)
    provider = OpenAIProvider(config, transport, origin)
    await streamed(provider)
    await eventually(lambda: transport.ending == 0)
    await streamed(provider)
    await provider.close()
    assert raw.connections == 1


async def test_a_stream_that_never_ends_after_its_last_event_is_a_whole_reply(raw: RawPeer, transport: TransportName):
    raw.script(stream_head(), chunk(WORDS + DONE), "hang")
    async with asked(raw.url, transport) as provider:
        assert len(await asyncio.wait_for(streamed(provider), 30)) == 3
        await asyncio.wait_for(raw.requests[0].gone.wait(), 30)


async def test_what_is_being_ended_when_all_is_closed_is_closed(raw: RawPeer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(http, "_REST_S", 600.0)
    raw.script(stream_head(), chunk(WORDS + DONE), "hang")
    async with asked(raw.url, "aiohttp") as provider:
        assert len(await streamed(provider)) == 3
        assert not raw.requests[0].gone.is_set()
    await asyncio.wait_for(raw.requests[0].gone.wait(), 30)


async def test_who_takes_no_connections_is_given_up_on(transport: TransportName):
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        with socket.create_connection(address), socket.socket() as waiting:
            waiting.setblocking(False)
            waiting.connect_ex(address)
            async with asked(f"http://127.0.0.1:{address[1]}", transport, connect_s=0.2) as provider:
                with pytest.raises(ProviderUnavailable, match=r"no connection within 0\.2 s"):
                    await provider.ask("m", ask())


async def test_what_the_environment_says_of_an_account_is_not_shown(
    raw: RawPeer, transport: TransportName, monkeypatch: pytest.MonkeyPatch
):
    for name in ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_ADMIN_KEY", "ANTHROPIC_AUTH_TOKEN"):
        monkeypatch.setenv(name, "canary")
    raw.script(response(SAID))
    async with asked(raw.url, transport) as provider:
        await provider.ask("m", ask())
    assert "canary" not in str(raw.requests[0].headers)


@pytest.mark.parametrize("api", ["openai-chat", "openai-responses", "anthropic"])
async def test_headers_of_the_environment_are_sent_to_nobody(
    raw: RawPeer, transport: TransportName, api: Api, monkeypatch: pytest.MonkeyPatch
):
    for name in ("ANTHROPIC_CUSTOM_HEADERS", "OPENAI_CUSTOM_HEADERS"):
        monkeypatch.setenv(name, "Authorization: Bearer canary\nX-Account: canary")
    raw.script(response(b"{}", status=400))
    config = ProviderConfig("mine", api, raw.url, key=fixed(SecretStr("right")), transport=transport)
    provider = create_provider(config)
    with pytest.raises(ProviderFailed):
        await provider.ask("m", ask())
    await provider.close()
    [request] = raw.requests
    assert "canary" not in str(request.headers)
    assert "right" in str(request.headers)


async def test_cookies_are_forgotten(raw: RawPeer, transport: TransportName):
    raw.script(response(SAID, headers=("Set-Cookie: who=tenant-a; Path=/",)))
    async with asked(raw.url, transport) as provider:
        for _ in range(2):
            await provider.ask("m", ask())
    assert not any("cookie" in request.headers for request in raw.requests)


@pytest.mark.parametrize("key", ["canary-key\nx", "canary-k\u00e9y"])
async def test_a_key_that_no_header_takes_is_refused_and_not_shown(
    raw: RawPeer, transport: TransportName, key: str, caplog: pytest.LogCaptureFixture
):
    async with asked(raw.url, transport, key=key) as provider:
        for _ in range(2):
            with pytest.raises(ProviderFailed, match="holds characters") as caught:
                await provider.ask("m", ask())
            assert "canary" not in str(caught.value) + caplog.text
    assert raw.requests == []


async def test_the_proxy_of_the_environment_is_asked(
    raw: RawPeer, transport: TransportName, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("http_proxy", f"http://user:p%40ss@127.0.0.1:{raw.port}")
    monkeypatch.setenv("no_proxy", "direct.example")
    raw.script(response(SAID))
    async with asked("http://models.example/v1", transport) as provider:
        await provider.ask("m", ask())
    [request] = raw.requests
    assert request.line == "POST http://models.example/v1/chat/completions HTTP/1.1"
    assert request.headers["proxy-authorization"] == "Basic dXNlcjpwQHNz"


async def test_the_proxy_may_be_where_no_provider_of_a_tenant_may(raw: RawPeer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("http_proxy", f"http://localhost:{raw.port}")
    raw.script(response(SAID))
    config = ProviderConfig("mine", "openai-chat", "http://models.example/v1")
    provider = create_provider(config, CheckedResolver("mine", HostRules(), ThreadedResolver()))
    await provider.ask("m", ask())
    await provider.close()
    assert raw.requests[0].line == "POST http://models.example/v1/chat/completions HTTP/1.1"


async def test_some_hosts_are_asked_without_the_proxy(
    raw: RawPeer, transport: TransportName, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    raw.script(response(SAID))
    async with asked(raw.url, transport) as provider:
        await provider.ask("m", ask())
    assert raw.requests[0].line == "POST /chat/completions HTTP/1.1"


async def test_a_refusal_of_any_length_is_read_to_some_length(raw: RawPeer, transport: TransportName):
    raw.script(head("text/plain", 400, ("Transfer-Encoding: chunked",)), *[chunk(b"no " * 30_000)] * 20, "hang")
    async with asked(raw.url, transport) as provider:
        with pytest.raises(ProviderFailed, match="HTTP 400: no no"):
            await asyncio.wait_for(provider.ask("m", ask()), 30)


async def test_a_large_request_is_sent_whole(raw: RawPeer, transport: TransportName):
    raw.script(response(SAID))
    async with asked(raw.url, transport) as provider:
        await provider.ask("m", ask("long " * 400_000))
    assert len(raw.requests[0].body["messages"][0]["content"]) == 2_000_000


@pytest.mark.parametrize(
    "url", ["", "http://", "http://[::1", "http://a b/v1", "ftp://a/v1", "http://a:port/", "http://me:secret@a/v1"]
)
def test_a_url_that_cannot_be_asked_is_refused_at_once(url: str):
    with pytest.raises(InvalidInput, match="base URL") as caught:
        openai_like(url)
    assert "secret" not in str(caught.value)
