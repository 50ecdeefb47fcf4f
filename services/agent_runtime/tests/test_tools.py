"""Tools: what they may touch, what they give, and how they fail."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.test_utils import TestServer
from hypothesis import given
from hypothesis import strategies as st
from tool_bench import Bench
from yarl import URL

from paracle_agent_runtime.app import log_bug
from paracle_agent_runtime.schemas import Schemas, parse_answer
from paracle_agent_runtime.tools.permissions import Grants, is_public
from paracle_agent_runtime.tools.toolbox import ToolEnd
from paracle_domain.errors import Forbidden, NotFound, SpecInvalid
from paracle_domain.task.events import TaskCompleted, dump_event, load_event
from paracle_domain.task.inputs import Outcome
from paracle_domain.tool.spec import Permissions

FOLDER = {"path": "mails"}


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    (tmp_path / "mails" / "deep").mkdir(parents=True)
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "key.txt").write_text("secret")
    (tmp_path / "mails" / "b.eml").write_text(
        "From: Zoë <z@example.org>\nSubject: Grüße\nDate: Mon, 4 May 2026 12:00:00 +0000\n\nHallo,\nes brennt.\n"
    )
    (tmp_path / "mails" / "a.txt").write_bytes("Caf\xe9 \x80".encode("latin-1"))
    (tmp_path / "mails" / "c.txt").write_text(" \n")
    (tmp_path / "mails" / "d.txt").write_text("ü" * 50_000)
    (tmp_path / "mails" / "leak.txt").symlink_to(tmp_path / "private" / "key.txt")
    made = Bench(tmp_path)
    yield made
    await made.http.aclose()


# ── permissions ──────────────────────────────────────────────────────────────────────────────────────────────────────


def grants(root: Path, **permissions: Any) -> Grants:
    return Grants("t", Permissions.model_validate(permissions), root, {"PARACLE_SECRET_KEY": "v", "HOME": "/root"})


@pytest.mark.parametrize(
    "path", ["private/key.txt", "mails/../private/key.txt", "/etc/passwd", "mails/leak.txt", "..", "../../etc", "a\0b"]
)
def test_paths_outside_the_granted_folders_are_refused(bench: Bench, tmp_path: Path, path: str):
    with pytest.raises(Forbidden):
        grants(tmp_path, paths=["mails"]).path(path)


def test_nothing_granted_nothing_readable(bench: Bench, tmp_path: Path):
    with pytest.raises(Forbidden, match=r"permissions\.paths: none"):
        grants(tmp_path).path("mails")


def test_a_manifest_cannot_grant_more_than_the_files_root(bench: Bench, tmp_path: Path):
    with pytest.raises(Forbidden):
        grants(tmp_path / "mails", paths=["/", "..", str(tmp_path)]).path(str(tmp_path / "private" / "key.txt"))


def test_paths_may_be_relative_to_the_root_or_to_a_granted_folder(bench: Bench, tmp_path: Path):
    granted = grants(tmp_path, paths=["mails"])
    assert granted.path("mails/a.txt") == granted.path("a.txt") == granted.path(str(tmp_path / "mails" / "a.txt"))
    with pytest.raises(NotFound):
        granted.path("mails/ghost.txt")


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("2606:4700::1111", True),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fc00::1", False),
        ("::ffff:127.0.0.1", False),
        ("64:ff9b::7f00:1", False),
        ("2002:7f00:1::", False),
        ("::127.0.0.1", False),
        ("64:ff9b:1::7f00:1", False),
        ("fec0::1", False),
        ("8000::1", False),
    ],
)
def test_only_public_addresses_are_public(address: str, public: bool):
    assert is_public(address) is public


def test_a_metadata_service_can_be_granted_by_its_address_alone(tmp_path: Path):
    url = URL("http://169.254.169.254/latest")
    grants(tmp_path, hosts=["169.254.169.254:80"], private_networks=True).url(url)
    named = grants(tmp_path, hosts=["metadata.example", "10.0.0.1"], private_networks=True)
    with pytest.raises(Forbidden, match="metadata service"):
        named.address("metadata.example", "169.254.169.254")
    named.address("intranet.example", "10.0.0.1")


def test_a_host_that_is_none_matches_nothing(tmp_path: Path):
    for entry in ("[", "a:b:c", "", "*"):
        with pytest.raises(Forbidden):
            grants(tmp_path, hosts=[entry]).url(URL("http://api.example/"))


def test_what_a_broken_tool_said_is_logged_without_secrets(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setenv("PARACLE_SECRET_KEY", "hunter2secret")
    log_bug("t", ValueError("no hunter2secret here"))
    assert "ValueError: no [secret KEY] here" in caplog.text
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize(
    "url", ["http://evil.example/", "http://api.example:81/", "ftp://api.example/", "http://127.0.0.1/"]
)
def test_hosts_that_are_not_granted_are_refused(tmp_path: Path, url: str):
    with pytest.raises(Forbidden):
        grants(tmp_path, hosts=["api.example:80", "127.0.0.1"]).url(URL(url))


def test_secrets_are_given_by_name_and_permission(tmp_path: Path):
    allowed = grants(tmp_path, secrets=["KEY", "GONE"])
    assert allowed.fill_secrets("Bearer ${KEY}") == "Bearer v"
    with pytest.raises(NotFound, match="PARACLE_SECRET_GONE"):
        allowed.secret("GONE")
    with pytest.raises(Forbidden, match="may not use secret HOME"):
        allowed.secret("HOME")


# ── builtins ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_folder_is_read_in_order_with_everything_said_about_each_file(bench: Bench):
    end = await bench.builtin("read_folder", FOLDER, "mails", max_chars=100)
    assert end.error is None
    assert isinstance(end.output, dict)
    files: Any = end.output["files"]
    assert [f["name"] for f in files] == ["a.txt", "b.eml", "c.txt", "d.txt"]
    cafe, mail, blank, huge = files
    assert (cafe["text"], cafe["charset"]) == ("Café €", "cp1252")
    assert (mail["subject"], mail["text"]) == ("Grüße", "Hallo,\nes brennt.\n")
    assert mail["headers"]["from"] == "Zoë <z@example.org>"
    assert (blank["empty"], blank["truncated"], cafe["empty"]) == (True, False, False)
    assert (huge["truncated"], len(huge["text"]), huge["size_bytes"]) == (True, 100, 100_000)


async def test_files_are_listed_and_read(bench: Bench):
    listed = await bench.builtin("list_files", {**FOLDER, "pattern": "*.txt", "max_files": 1}, "mails")
    assert listed.output == {"files": [{"name": "a.txt", "size_bytes": 6}], "total": 3, "truncated": True}
    read = await bench.builtin("read_text", {"path": "mails/d.txt", "max_chars": 5}, "mails")
    assert isinstance(read.output, dict)
    assert (read.output["text"], read.output["truncated"], read.output["charset"]) == ("üüüüü", True, "utf-8")


@pytest.mark.parametrize(
    ("function", "arguments", "code"),
    [
        ("read_text", {"path": "private/key.txt"}, "forbidden"),
        ("read_text", {"path": "mails"}, "input_schema_mismatch"),
        ("read_text", {"file": "x"}, "input_schema_mismatch"),
        ("read_folder", {"path": "mails/a.txt"}, "input_schema_mismatch"),
        ("list_files", {"path": "mails/none"}, "not_found"),
        ("format_disk", {}, "forbidden"),
    ],
)
async def test_builtins_fail_closed(bench: Bench, function: str, arguments: dict[str, Any], code: str):
    end = await bench.builtin(function, arguments, "mails")
    assert end.error is not None
    assert (end.error.code, end.outcome) == (code, Outcome.NOT_DONE)
    assert bench.bugs == []


async def test_files_made_to_break_their_reader_are_read_all_the_same(bench: Bench, tmp_path: Path):
    folder = tmp_path / "mails"
    (folder / os.fsdecode(b"caf\xe9.eml")).write_bytes(b"From: a\nSubject: =?utf-16?b?2AA=?=\n\nx")
    (folder / "deep.eml").write_bytes(b"From: " + b"(" * 15_000 + b"\nSubject: s\n\nabc\n")
    (folder / "half.eml").write_bytes(b"From: a\nSubject: s\nContent-Type: text/plain; charset=utf-7\n\n+2AA-\n")
    (folder / "circle").symlink_to("circle")
    end = await bench.builtin("read_folder", {**FOLDER, "pattern": "*.eml"}, "mails")
    assert end.error is None
    read = load_event(dump_event(TaskCompleted(output=end.output)))
    assert isinstance(read, TaskCompleted)
    files: Any = read.output
    unsayable = "caf\N{REPLACEMENT CHARACTER}.eml"
    assert [file["name"] for file in files["files"]] == ["b.eml", unsayable, "deep.eml", "half.eml"]
    for path in ("mails/circle", "mails/" + "x" * 4_000):
        lost = await bench.builtin("read_text", {"path": path}, "mails")
        assert lost.error is not None
        assert lost.error.code == "not_found"
    assert bench.bugs == []


async def test_a_folder_is_read_as_far_as_memory_bears(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("paracle_agent_runtime.tools.builtin.files._FOLDER_CHARS", 50)
    end = await bench.builtin("read_folder", FOLDER, "mails")
    assert isinstance(end.output, dict)
    assert (len(end.output["files"]), end.output["total"], end.output["truncated"]) == (3, 4, True)  # type: ignore[arg-type]


async def test_options_of_the_manifest_overrule_the_arguments(bench: Bench):
    end = await bench.builtin("noop", {"a": 1, "b": 2}, b=3)
    assert end.output == {"a": 1, "b": 3}


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("1 + 2 * 3", 7),
        ("-2 ** 2", -4),
        ("sqrt(16) / 2", 2.0),
        ("max(1, 2.5)", 2.5),
        ("7 // 2 % 2", 1),
        ("round(pi, 2)", 3.14),
        ("round(5, -10**9)", 0),
        ("round(1.5, 10**30)", 1.5),
        ("round(3.7)", 4),
    ],
)
async def test_arithmetic(bench: Bench, expression: str, value: float):
    assert (await bench.builtin("calculate", {"expression": expression})).output == {"value": value}


@pytest.mark.parametrize(
    "expression",
    [
        "1/0",
        "9**9**9**9",
        "(-8)**0.5",
        "__import__('os')",
        "().__class__",
        "'a'*9",
        "True",
        "1 if 1 else 2",
        "1+",
        "10**400*1.0",
        "x",
    ],
)
async def test_what_is_no_arithmetic_is_refused(bench: Bench, expression: str):
    end = await bench.builtin("calculate", {"expression": expression})
    assert end.error is not None
    assert end.error.code == "input_schema_mismatch"
    assert bench.bugs == []


@given(st.text(max_size=60))
async def test_calculating_any_text_gives_a_number_or_a_clear_error(text: str):
    bench = Bench(Path())
    end = await bench.builtin("calculate", {"expression": text})
    assert bench.bugs == []
    assert (end.error is None) == (isinstance(end.output, dict) and "value" in end.output)


async def test_json_query(bench: Bench):
    value = {"items": [{"name": "a", "n": 1}, {"name": "b", "n": 2}]}
    assert (await bench.builtin("json_query", {"value": value, "query": "items[1].name"})).output == {"value": "b"}
    assert (await bench.builtin("json_query", {"value": value, "query": "sum(items[].n)"})).output == {"value": 3}
    assert (await bench.builtin("json_query", {"value": value, "query": "items[7].name"})).output == {"value": None}
    assert (await bench.builtin("json_query", {"value": value})).output == {"value": value}


@pytest.mark.parametrize("query", ["items[x", "nope(@)", "sum(@)", "@.", "to_number('nan')", "(" * 900, "items[::0]"])
async def test_what_is_no_query_is_refused(bench: Bench, query: str):
    end = await bench.builtin("json_query", {"value": {"items": []}, "query": query})
    assert end.error is not None
    assert (end.error.code, end.error.path) == ("input_schema_mismatch", "query")
    assert bench.bugs == []


@pytest.mark.filterwarnings("ignore:deprecated string literal")
@given(st.text(alphabet="abc@[]{}*?.,:|&!'\"`() 0123456789<>=-", max_size=40))
async def test_any_query_gives_a_value_or_a_clear_error(query: str):
    bench = Bench(Path())
    await bench.builtin("json_query", {"value": {"a": [1, {"b": "c"}]}, "query": query})
    assert bench.bugs == []


@pytest.mark.parametrize(
    "query",
    [
        "[@,@]|" * 60 + "@",
        "[@,@][]|" * 60 + "@",
        "{a:@,b:@}|" * 60 + "@",
        "join('', [@,@])|" * 60 + "@",
        "to_string([@,@])|" * 40 + "@",
        "map(&map(&map(&@, [@,@,@]), [@,@,@]), [@,@,@])|[]|[]|" * 18 + "@",
        "[[@,@]|[@,@]|" + "[@,@]|" * 50 + "@,[@,@]|" + "[@,@]|" * 50 + "@]|[0]==[1]",
    ],
)
async def test_queries_that_grow_without_end_are_stopped(bench: Bench, query: str):
    end = await bench.builtin("json_query", {"value": "xxxxxxxxxxxxxxxx", "query": query})
    assert end.error is not None
    assert end.error.code == "limit_exceeded", end.error
    assert bench.bugs == []


async def test_csv_query(bench: Bench, tmp_path: Path):
    text = 'name,price\n"Ada, L.",3\nBob,12\nCid\n'
    dear = "[?to_number(price) > `10`].name"
    assert (await bench.builtin("csv_query", {"text": text, "query": dear})).output == {"value": ["Bob"]}
    rows = (await bench.builtin("csv_query", {"text": "1;2\n\n3;4", "delimiter": ";", "header": False})).output
    assert rows == {"value": [["1", "2"], ["3", "4"]]}
    (tmp_path / "mails" / "list.csv").write_text(text)
    end = await bench.builtin("csv_query", {"path": "list.csv", "query": "[-1]"}, "mails")
    assert end.output == {"value": {"name": "Cid", "price": ""}}
    for wrong in ({}, {"text": "a", "path": "b"}, {"text": '"a'}, {"text": "a", "delimiter": "\n"}):
        refused = await bench.builtin("csv_query", wrong)
        assert refused.error is not None
        assert refused.error.code == "input_schema_mismatch"
    assert bench.bugs == []


async def test_now_and_sleep(bench: Bench):
    now = await bench.builtin("now", {})
    assert isinstance(now.output, dict)
    assert str(now.output["utc"]).endswith("Z")
    assert (await bench.builtin("sleep", {"seconds": 0})).output == {"slept_s": 0.0}
    assert (await bench.builtin("sleep", {"seconds": 1e9})).error is not None


async def test_a_tool_that_takes_too_long_is_stopped(bench: Bench):
    backend = {"type": "builtin", "function": "sleep"}
    end = await bench.call({"seconds": 60}, backend=backend, timeout_s=0.01)
    assert end.error is not None
    assert (end.error.code, end.outcome) == ("tool_unavailable", Outcome.UNKNOWN)


async def test_arguments_and_results_are_held_against_the_schemas(bench: Bench):
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    before = await bench.call({"n": "x"}, input=schema)
    assert before.error is not None
    assert (before.error.code, before.error.path) == ("input_schema_mismatch", "arguments.n")
    after = await bench.call({"n": "x"}, output=schema)
    assert after.error is not None
    assert (after.error.code, after.outcome) == ("output_invalid", Outcome.DONE)


def test_schemas_that_are_none_say_so_and_few_are_kept():
    schemas = Schemas(capacity=1)
    with pytest.raises(SpecInvalid, match="the input schema of 't'"):
        schemas.problems(("p", "t", "input"), {"type": "nonsense"}, {}, root="input")
    with pytest.raises(SpecInvalid):
        schemas.problems(("p", "t", "input"), {"$ref": "https://example.org/other"}, {}, root="input")
    for n in range(3):
        assert schemas.problems((str(n), "t", "input"), {"maximum": n}, n + 1, root="input")[0].path == "input"


def test_findings_stay_short_however_long_the_value():
    [found] = Schemas().problems(("p", "t", "input"), {"type": "integer"}, "x" * 1_000_000, root="input")
    assert len(found.message) < 400
    assert found.message.endswith('is not of type "integer"')


@pytest.mark.parametrize("text", ['{"a": 1}', '```json\n{"a": 1}\n```', ' {"a":1} \n'])
def test_answers_are_read_with_or_without_a_fence(text: str):
    assert parse_answer(text) == ({"a": 1}, ())


@pytest.mark.parametrize("text", ["", "sure: {}", '{"a": NaN}', "[" * 100_000, '{"a": "\\ud83d"}', '{"a": 1e999}'])
def test_answers_that_are_no_json_say_so(text: str):
    assert parse_answer(text)[1]


# ── HTTP ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


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
        ("/redirect?code=302&to=/echo/x", "tool_failed", Outcome.NOT_DONE, None),
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
