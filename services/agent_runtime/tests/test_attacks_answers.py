"""Attacks on what HTTP tools take in: on real sockets, each bounded, and told why."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from pathlib import Path

import pytest
from network_traps import Say, bench_of, listening, refused
from tool_bench import SECRET, Bench

from paracle_domain.task.inputs import Outcome


def body(content: bytes, *headers: str) -> Say:
    async def say(_: bytes, writer: asyncio.StreamWriter) -> None:
        lines = "".join(f"{header}\r\n" for header in headers)
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(content)}\r\n{lines}\r\n".encode() + content)
        await writer.drain()

    return say


def endless(start: bytes, part: bytes, pause: float = 0) -> Say:
    async def say(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        while True:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause)

    return say


ZEROS = bytes(32 << 20)


OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("say", "code"),
    [
        pytest.param(body(gzip.compress(ZEROS), "Content-Encoding: gzip"), "payload_too_large", id="gzip bomb"),
        pytest.param(body(zlib.compress(ZEROS), "Content-Encoding: deflate"), "payload_too_large", id="deflate bomb"),
        pytest.param(body(bytes(3_000)), "payload_too_large", id="too long"),
        pytest.param(endless(OK + b"\r\n", bytes(9_000)), "payload_too_large", id="endless body"),
        pytest.param(
            endless(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"5\r\nhello\r\n"), "payload_too_large", id="chunks"
        ),
        pytest.param(endless(OK, b"X-A: b\r\n"), "tool_unavailable", id="endless headers"),
        pytest.param(endless(OK, b"X" * 9_000), "tool_unavailable", id="one endless header"),
        pytest.param(endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), "tool_unavailable", id="never more than continue"),
        pytest.param(endless(OK + b"\r\n", b"x", 0.01), "tool_unavailable", id="slow body"),
        pytest.param(endless(OK, b"X: y\r\n", 0.05), "tool_unavailable", id="slow headers"),
        pytest.param(endless(b"", b"", 0.05), "tool_unavailable", id="silence"),
        pytest.param(body(b"\x1f\x8bnonsense", "Content-Encoding: gzip"), "tool_unavailable", id="false gzip"),
        pytest.param(endless(b"SSH-2.0-OpenSSH\r\n", b"", 0.05), "tool_unavailable", id="no HTTP"),
        pytest.param(body(b"[" * 1_500, "Content-Type: application/json"), "tool_failed", id="deep JSON"),
    ],
)
async def test_answers_are_bounded(tmp_path: Path, say: Say, code: str):
    async with listening(say) as trap, bench_of(tmp_path) as bench:
        permissions = {"hosts": ["127.0.0.1"], "private_networks": True}
        url = f"http://127.0.0.1:{trap.port}/"
        timeout_s = 1.0 if code == "tool_unavailable" else 60.0  # what is too much is to be seen before the time is up
        end = await bench.granted("http_request", {"url": url}, permissions, timeout_s=timeout_s)
        message = refused(end, code)
        assert "127.0.0.1" in message or "within timeout_s" in message
        assert end.outcome is Outcome.UNKNOWN


@pytest.mark.parametrize(
    "html",
    [
        "<div>" * 50_000,
        "<table><tr><td>" * 20_000,
        "<a " + "x='y' " * 50_000 + ">",
        "<" * 100_000,
        "<!--" * 50_000,
        "&amp" * 50_000,
        "<svg><script>" * 9_000,
        "\x00" * 10_000,
        "<li>" * 30_000,
    ],
    ids=["deep", "tables", "attributes", "openings", "comments", "entities", "svg", "nul", "lists"],
)
async def test_pages_made_to_break_their_reader_break_nothing(tmp_path: Path, html: str):
    async with listening(body(html.encode(), "Content-Type: text/html")) as trap:
        bench = Bench(tmp_path, body_limit=1 << 20)
        permissions = {"hosts": ["127.0.0.1"], "private_networks": True}
        end = await bench.granted("web_page", {"url": f"http://127.0.0.1:{trap.port}/"}, permissions)
        assert end.error is None or "is no HTML that can be read" in end.error.message
        assert bench.bugs == []
        await bench.http.aclose()


@pytest.mark.parametrize(
    "answer",
    [
        f"HTTP/1.1 200 OK\r\nContent-Length: {len(SECRET)}\r\n\r\n{SECRET}",
        f"HTTP/1.1 500 No\r\nContent-Length: {len(SECRET)}\r\n\r\n{SECRET}",
        f"HTTP/1.1 307 Go\r\nLocation: http://{SECRET}.example/\r\nContent-Length: 0\r\n\r\n",
        f"HTTP/1.1 307 Go\r\nLocation: http://127.0.0.1:1/{SECRET}\r\nContent-Length: 0\r\n\r\n",
        f"HTTP/1.1 307 Go\r\nLocation: http://[{'x' * 90}{SECRET}\r\nContent-Length: 0\r\n\r\n",
        f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(SECRET)}\r\n\r\n{SECRET}",
    ],
)
async def test_what_echoes_a_secret_shows_none(tmp_path: Path, answer: str):
    async def echo(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(answer.encode())
        await writer.drain()

    async with listening(echo) as trap, bench_of(tmp_path) as bench:
        permissions = {"hosts": [f"127.0.0.1:{trap.port}"], "private_networks": True, "secrets": ["KEY"]}
        url = f"http://127.0.0.1:{trap.port}/"
        end = await bench.granted("http_request", {"url": url}, permissions, headers={"Authorization": "${KEY}"})
        assert SECRET.encode() in trap.heard[0]
        assert SECRET[:8] not in repr(end)


async def test_a_secret_that_no_header_can_hold_is_not_shown(tmp_path: Path):
    bench = Bench(tmp_path, environment={"PARACLE_SECRET_KEY": f"{SECRET}\n"})
    backend = {"type": "http", "url": "http://127.0.0.1:1/", "headers": {"Authorization": "${KEY}"}}
    permissions = {"hosts": ["127.0.0.1"], "private_networks": True, "secrets": ["KEY"]}
    end = await bench.call({}, backend=backend, permissions=permissions)
    refused(end, "input_schema_mismatch")
    assert SECRET not in repr(end)
    assert bench.bugs == []
