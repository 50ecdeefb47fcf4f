"""A peer on real sockets that sends just the bytes it is told to, and breaks off as it is told to.

What an HTTP library would not let a server do (half a header, a length that is not kept, a reset in the middle of a
line) is what the gateway has to expect.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

type Act = bytes | Literal["reset", "end", "hang"] | float
"""Bytes to send; the connection reset, or ended; silence until the client goes; seconds of silence."""


@dataclass
class Request:
    """What came in, and whether its client went away before it had its answer."""

    line: str
    headers: dict[str, str]
    body: Any
    connection: int
    gone: asyncio.Event = field(default_factory=asyncio.Event)


class RawPeer:
    """Answers each request with the next script, and with the last one for ever."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.connections = 0
        self.port = 0
        self._scripts: deque[tuple[Act, ...]] = deque()
        self._open = dict[asyncio.Task[None], asyncio.StreamWriter]()
        self._gone = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def script(self, *acts: Act) -> None:
        """Append what one request gets."""
        self._scripts.append(acts)

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection, unless it was made while all are hung up on."""
        if self._gone:
            writer.transport.abort()
            return
        self.connections += 1
        task = asyncio.create_task(self._serve(reader, writer, self.connections))
        self._open[task] = writer
        task.add_done_callback(self._open.pop)

    async def hang_up(self) -> None:
        """End all connections, whatever is still to be sent: a client that reads no more would never take it."""
        self._gone = True
        tasks = list(self._open)
        for task in tasks:
            self._open[task].transport.abort()
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        """One connection, of any number of requests."""
        request: Request | None = None
        try:
            while (request := await _read(reader, number)) is not None:
                self.requests.append(request)
                acts = self._scripts.popleft() if len(self._scripts) > 1 else self._scripts[0]
                if not await _play(acts, request, reader, writer):
                    return
        except ConnectionError:
            if request is not None:
                request.gone.set()
        finally:
            writer.close()


@asynccontextmanager
async def raw_peer() -> AsyncIterator[RawPeer]:
    """A peer on a free port of the loopback interface."""
    peer = RawPeer()
    server = await asyncio.start_server(peer.accept, "127.0.0.1", 0, limit=64 * 1024 * 1024)
    peer.port = server.sockets[0].getsockname()[1]
    try:
        yield peer
    finally:
        server.close()
        await peer.hang_up()
        await server.wait_closed()


def response(body: bytes, kind: str = "application/json", status: int = 200, headers: Iterable[str] = ()) -> bytes:
    """A whole response."""
    return head(kind, status, (f"Content-Length: {len(body)}", *headers)) + body


def head(kind: str, status: int = 200, headers: Iterable[str] = ()) -> bytes:
    """A response up to its body."""
    lines = (f"HTTP/1.1 {status} As scripted", f"Content-Type: {kind}", *headers)
    return "\r\n".join((*lines, "", "")).encode()


def stream_head() -> bytes:
    """The head of a streamed response."""
    return head("text/event-stream", headers=("Transfer-Encoding: chunked",))


def chunk(data: bytes) -> bytes:
    """A chunk of a streamed response; of no bytes: its end."""
    return b"%x\r\n%s\r\n" % (len(data), data)


async def _read(reader: asyncio.StreamReader, connection: int) -> Request | None:
    try:
        text = (await reader.readuntil(b"\r\n\r\n")).decode()
    except asyncio.IncompleteReadError:
        return None
    line, *rest = text.strip().split("\r\n")
    headers = {name.lower(): value for name, value in (each.split(": ", 1) for each in rest)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(line, headers, json.loads(body) if body else None, connection)


async def _play(
    acts: tuple[Act, ...], request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> bool:
    """Whether the connection may be used again."""
    for act in acts:
        match act:
            case bytes():
                writer.write(act)
                await writer.drain()
            case "reset":
                _reset(writer)
                return False
            case "end":
                return False
            case "hang":
                await _until_gone(request, reader)
                return False
            case float():
                await asyncio.sleep(act)
    return True


async def _until_gone(request: Request, reader: asyncio.StreamReader) -> None:
    try:
        assert await reader.read(1) == b""
    finally:
        request.gone.set()


def _reset(writer: asyncio.StreamWriter) -> None:
    """End the connection with a reset instead of an end of the stream."""
    sock: socket.socket = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
