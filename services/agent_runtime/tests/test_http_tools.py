"""HTTP tools: what they send, whom they reach, and how they fail."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.test_utils import TestServer
from tool_bench import Bench
from yarl import URL

from paracle_agent_runtime.tools.permissions import Grants
from paracle_agent_runtime.tools.toolbox import ToolEnd
from paracle_domain.task.inputs import Outcome
from paracle_domain.tool.spec import Permissions


@pytest.fixture
async def server() -> AsyncIterator[TestServer]:
    async def echo(request: web.Request) -> web.Response:
        body = await request.text()
        return web.json_response({"url": str(request.rel_url), "body": body, "headers": dict(request.headers)})

    async def status(request: web.Request) -> web.Response:
        headers = {"Retry-After": "7"} if request.query.get("after") else {}
        return web.Response(status=int(request.match_info["code"]), text="because hunter2secret", headers=headers)

    async def big(_: web.Request) -> web.Response:
        return web.Response(text="x" * 5_000)

    async def redirect(request: web.Request) -> web.Response:
        return web.Response(status=int(request.query["code"]), headers={"Location": request.query["to"]})

    async def text(request: web.Request) -> web.Response:
        kind = request.query.get("as", "text/plain") + f"; charset={request.query.get('charset', 'utf-8')}"
        return web.Response(body=request.query["say"].encode(), headers={"Content-Type": kind})

    async def pad(request: web.Request) -> web.Response:
        return web.Response(status=400, text=request.query["say"] + "hunter2secret")

    async def drop(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    app = web.Application()
    for path, handler in (("/echo/{x}", echo), ("/status/{code}", status), ("/big", big), ("/redirect", redirect)):
        app.router.add_route("*", path, handler)
    app.router.add_get("/text", text)
    app.router.add_post("/pad", pad)
    app.router.add_post("/drop", drop)
    running = TestServer(app)
    async with running:
        yield running


async def http(
    bench: Bench, server: TestServer, path: str, arguments: dict[str, Any] | None = None, **more: Any
) -> ToolEnd:
    method, key = more.pop("method", "POST"), more.pop("key", None)
    permissions = {"hosts": [f"127.0.0.1:{server.port}"], "private_networks": True, "secrets": ["KEY"]}
    url = f"http://127.0.0.1:{server.port}{path}"
    places = {name: more.pop(name) for name in ("query", "header_arguments", "body", "body_type") if name in more}
    backend = {"type": "http", "method": method, "url": url, "headers": more.pop("headers", {})} | places
    return await bench.call(
        arguments or {}, backend=backend, permissions=permissions | more.pop("permissions", {}), key=key, **more
    )


async def test_a_post_carries_arguments_secret_and_key(bench: Bench, server: TestServer):
    headers = {"Authorization": "Bearer ${KEY}"}
    end = await http(bench, server, "/echo/{id}", {"id": "a/b?", "n": 1}, headers=headers, key="eff_1")
    assert isinstance(end.output, dict)
    sent: Any = end.output["headers"]
    assert end.output["url"] == "/echo/a%2Fb%3F"
    assert end.output["body"] == '{"n": 1}'
    assert sent["Idempotency-Key"] == "eff_1"
    assert sent["Authorization"] == "Bearer [secret KEY]"


async def test_a_get_carries_the_rest_as_query(bench: Bench, server: TestServer):
    end = await http(bench, server, "/echo/x?fixed=1", {"q": "a b", "n": 2}, method="GET")
    assert isinstance(end.output, dict)
    assert URL(str(end.output["url"])).query == {"fixed": "1", "q": "a b", "n": "2"}


async def test_arguments_go_where_the_backend_says(bench: Bench, server: TestServer):
    places = {"query": {"tag": "tags", "q": "q"}, "header_arguments": {"X-Trace": "trace", "X-None": "none"}}
    given = {"id": 7, "tags": ["a", "b"], "trace": "t", "n": 1, "q": None}
    end: Any = await http(bench, server, "/echo/{id}", given, **places)
    assert end.output["url"] == "/echo/7?tag=a&tag=b"
    assert end.output["body"] == '{"n": 1}'
    assert (end.output["headers"]["X-Trace"], "X-None" in end.output["headers"]) == ("t", False)


@pytest.mark.parametrize(
    ("method", "arguments", "more", "body"),
    [
        ("POST", {"item": [1, 2]}, {"body": "item"}, "[1, 2]"),
        ("PUT", {}, {"body": "item"}, ""),
        ("POST", {"a": "x y", "b": [1, 2], "c": None}, {"body_type": "form"}, "a=x+y&b=1&b=2"),
        ("DELETE", {}, {}, ""),
        ("DELETE", {"why": "old"}, {}, '{"why": "old"}'),
        ("POST", {}, {}, "{}"),
    ],
)
async def test_bodies_are_what_the_backend_says(
    bench: Bench, server: TestServer, method: str, arguments: dict[str, Any], more: dict[str, Any], body: str
):
    end: Any = await http(bench, server, "/echo/x", arguments, method=method, **more)
    assert end.output["body"] == body


@pytest.mark.parametrize(
    ("arguments", "more"),
    [({"item": 1, "other": 2}, {"body": "item"}), ({"a": [1]}, {"body": "a", "body_type": "form"})],
)
async def test_arguments_without_a_place_are_refused(
    bench: Bench, server: TestServer, arguments: dict[str, Any], more: dict[str, Any]
):
    end = await http(bench, server, "/echo/x", arguments, **more)
    assert end.error is not None
    assert (end.error.code, end.outcome) == ("input_schema_mismatch", Outcome.NOT_DONE)


async def test_http_request_sends_what_it_is_told(bench: Bench, server: TestServer):
    permissions = {"hosts": ["127.0.0.1"], "private_networks": True}
    url = f"http://127.0.0.1:{server.port}/echo/x"
    arguments = {"url": url, "method": "POST", "headers": {"X-A": "b"}, "body": {"n": 1}}
    end: Any = await bench.granted("http_request", arguments, permissions, key="eff_1")
    assert (end.output["status"], end.output["content_type"]) == (200, "application/json")
    seen = end.output["body"]
    assert (seen["body"], seen["headers"]["X-A"], seen["headers"]["Idempotency-Key"]) == ('{"n": 1}', "b", "eff_1")
    text: Any = await bench.granted("http_request", {**arguments, "body": "plain"}, permissions, key="eff_2")
    assert text.output["body"]["body"] == "plain"
    assert (await bench.granted("http_request", {"url": url, "method": "HEAD"}, permissions)).error is None
    refused = await bench.granted("http_request", {"url": url, "body": 1}, permissions)
    assert refused.error is not None
    assert refused.error.path == "body"
    ghost = await bench.granted("http_request", {"url": "http://[", "method": "GET"}, permissions)
    assert ghost.error is not None
    assert ghost.error.path == "url"


async def test_web_page_gives_text_with_its_links(bench: Bench, server: TestServer):
    permissions = {"hosts": ["127.0.0.1"], "private_networks": True}
    html = "<title>T</title><h1>Hi</h1><script>no()</script><p>See <a href='/docs?a=b'>the docs</a>.</p>"
    url = URL(f"http://127.0.0.1:{server.port}/text").with_query({"say": html, "as": "text/html"})
    end: Any = await bench.granted("web_page", {"url": str(url)}, permissions)
    assert end.output["text"].split() == ["#", "Hi", "See", "[the", f"docs](http://127.0.0.1:{server.port}/docs?a=b)."]
    assert end.output["truncated"] is False
    short: Any = await bench.granted("web_page", {"url": str(url), "max_chars": 4}, permissions)
    assert (short.output["text"], short.output["truncated"]) == ("# Hi", True)
    plain: Any = await bench.granted("web_page", {"url": str(url.update_query({"as": "text/plain"}))}, permissions)
    assert plain.output["text"] == html


@pytest.mark.parametrize(
    ("path", "code", "outcome", "after"),
    [
        ("/status/404", "tool_failed", Outcome.NOT_DONE, None),
        ("/status/429?after=1", "tool_unavailable", Outcome.NOT_DONE, 7.0),
        ("/status/503?after=1", "tool_unavailable", Outcome.UNKNOWN, 7.0),
        ("/status/500", "tool_failed", Outcome.UNKNOWN, None),
        ("/big", "payload_too_large", Outcome.UNKNOWN, None),
        ("/drop", "tool_unavailable", Outcome.UNKNOWN, None),
        ("/redirect?code=302&to=/echo/x", "tool_failed", Outcome.UNKNOWN, None),
        ("/redirect?code=303&to=/echo/x", "tool_failed", Outcome.UNKNOWN, None),
        ("/redirect?code=307&to=mailto:ada@example.org", "tool_failed", Outcome.NOT_DONE, None),
        ("/redirect?code=307&to=http://[", "tool_failed", Outcome.NOT_DONE, None),
    ],
)
async def test_failures_of_endpoints_are_told_apart(
    bench: Bench, server: TestServer, path: str, code: str, outcome: Outcome, after: float | None
):
    end = await http(bench, server, path)
    assert end.error is not None
    assert (end.error.code, end.outcome, end.error.retry_after_s) == (code, outcome, after)
    assert "hunter2" not in end.error.message


async def test_nobody_listening_means_nothing_was_done(bench: Bench, server: TestServer):
    url = f"http://127.0.0.1:{server.port}/echo/x"
    await server.close()
    permissions = {"hosts": ["127.0.0.1"], "private_networks": True}
    end = await bench.call({}, backend={"type": "http", "url": url}, permissions=permissions)
    assert end.error is not None
    assert (end.error.code, end.outcome) == ("tool_unavailable", Outcome.NOT_DONE)


async def test_text_stays_text_and_false_json_is_a_failure(bench: Bench, server: TestServer):
    assert (await http(bench, server, "/text?say=hi", method="GET")).output == "hi"
    assert (await http(bench, server, "/text?say=", method="GET")).output is None
    lie = await http(bench, server, "/text?say=hi&as=application/json", method="GET")
    assert lie.error is not None
    assert lie.error.code == "tool_failed"


async def test_redirects_are_followed_to_granted_hosts_only(bench: Bench, server: TestServer):
    assert (await http(bench, server, "/redirect?code=302&to=/text?say=there", method="GET")).output == "there"
    away = await http(bench, server, "/redirect?code=307&to=http://127.0.0.1:1/")
    assert away.error is not None
    assert away.error.code == "forbidden"
    loop = await http(bench, server, "/redirect?code=302&to=/redirect?code=302%26to=/redirect", method="GET")
    assert loop.error is not None


async def test_private_addresses_need_a_permission(bench: Bench, server: TestServer):
    end = await http(bench, server, "/echo/x", permissions={"private_networks": False})
    assert end.error is not None
    assert end.error.code == "forbidden"


class Inward(AbstractResolver):
    """Every name is this machine; counts how often it is asked."""

    def __init__(self) -> None:
        self.lookups = 0

    async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_INET) -> list[ResolveResult]:
        self.lookups += 1
        address = "127.0.0.1"
        return [ResolveResult(hostname=host, host=address, port=port, family=socket.AF_INET, proto=0, flags=0)]

    async def close(self) -> None:
        pass


async def test_names_that_resolve_to_private_addresses_are_refused_when_connecting(tmp_path: Path, server: TestServer):
    resolver = Inward()
    bench = Bench(tmp_path, resolver)
    backend = {"type": "http", "url": f"http://innocent.example:{server.port}/echo/x"}
    refused = await bench.call({}, backend=backend, permissions={"hosts": ["innocent.example"]})
    assert refused.error is not None
    assert "127.0.0.1 is not a public address" in refused.error.message
    allowed = {"hosts": ["innocent.example"], "private_networks": True}
    assert (await bench.call({}, backend=backend, permissions=allowed)).error is None
    again = await bench.call({}, backend=backend, permissions={"hosts": ["innocent.example"]})
    assert again.error is not None
    assert resolver.lookups == 3
    await bench.http.aclose()


@pytest.mark.parametrize("value", ["", ".", ".."])
async def test_an_argument_cannot_change_which_thing_a_url_names(bench: Bench, server: TestServer, value: str):
    end = await http(bench, server, "/echo/{id}?always=1", {"id": value}, method="DELETE")
    assert end.error is not None
    assert (end.error.code, end.error.path, end.outcome) == ("input_schema_mismatch", "id", Outcome.NOT_DONE)


async def test_the_key_follows_a_redirect_and_secrets_do_not(bench: Bench, server: TestServer):
    headers = {"Authorization": "Bearer ${KEY}"}
    path = f"/redirect?code=307&to=http://localhost:{server.port}/echo/x"
    allowed = {"hosts": ["127.0.0.1", "localhost"]}
    end = await http(bench, server, path, key="eff_1", headers=headers, permissions=allowed)
    assert isinstance(end.output, dict)
    seen: Any = end.output["headers"]
    assert (seen["Idempotency-Key"], "Authorization" in seen) == ("eff_1", False)


async def test_secrets_are_cut_out_however_they_are_spelled(tmp_path: Path):
    held = Grants("t", Permissions(secrets=("KEY",)), tmp_path, {"PARACLE_SECRET_KEY": 'a"b/ü'})
    assert held.redact(r'"a\"b/\u00fc" a%22b%2F%C3%BC a"b/ü a"b/Ã¼') == '"[secret KEY]"' + " [secret KEY]" * 3


async def test_a_secret_at_the_end_of_an_excerpt_leaves_no_half(bench: Bench, server: TestServer):
    end = await http(bench, server, "/pad?say=" + "x" * 290)
    assert end.error is not None
    assert "hunter" not in end.error.message


@pytest.mark.parametrize("charset", ["punycode", "unicode_escape", "utf-7", "idna", "rot13"])
async def test_strange_charsets_are_not_followed(bench: Bench, server: TestServer, charset: str):
    end = await http(bench, server, f"/text?charset={charset}&say=%5Cud83d%2B2D0-", method="GET")
    assert end.output == "\\ud83d+2D0-"


async def test_a_placeholder_without_argument_is_a_clear_error(bench: Bench, server: TestServer):
    end = await http(bench, server, "/echo/{id}")
    assert end.error is not None
    assert "backend.url names {id}" in end.error.message
