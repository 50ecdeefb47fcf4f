"""Servers and resolvers that lay traps for HTTP tools."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import chain, repeat
from pathlib import Path
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult
from tool_bench import Bench

from paracle_agent_runtime.tools.toolbox import ToolEnd

type Say = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


class Trap:
    """A server that keeps what it is sent, and says what it was told to."""

    def __init__(self, say: Say | None = None) -> None:
        self.heard: list[bytes] = []
        self.port = 0
        self._say = say or _greet

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.heard.append(head)
            await self._say(head, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # whoever asked has heard enough
        finally:
            writer.close()


async def _greet(_: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
    await writer.drain()


@asynccontextmanager
async def listening(say: Say | None = None, host: str = "127.0.0.1") -> AsyncIterator[Trap]:
    trap = Trap(say)
    server = await asyncio.start_server(trap.take, host, 0)
    trap.port = server.sockets[0].getsockname()[1]
    try:
        yield trap
    finally:
        server.close()


class Answers(AbstractResolver):
    """Says one list of addresses after the other, and the last one for ever."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self._answers = chain(answers, repeat(answers[-1]))

    async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_UNSPEC) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in next(self._answers)
        ]

    async def close(self) -> None:
        pass


@asynccontextmanager
async def bench_of(root: Path, resolver: AbstractResolver | None = None) -> AsyncIterator[Bench]:
    bench = Bench(root, resolver)
    yield bench
    await bench.http.aclose()
    assert bench.bugs == [], "each is foreseen"


def refused(end: ToolEnd, *codes: str) -> str:
    assert end.error is not None
    assert end.error.code in (codes or ("forbidden",)), end.error
    return end.error.message
