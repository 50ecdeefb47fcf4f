"""What the wire-level fakes of model providers share: scripted replies, faults, and a journal of what was asked.

    async with FakeOpenAI() as provider:
        provider.script(fail(429, retry_after=1), say("Hello."))
        … point a client at provider.url …
        assert [seen.status for seen in provider.journal] == [429, 200]

A fake answers each request with the next `Turn` of its script, and with `provider.otherwise` once that is used up.
"""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, Self

from aiohttp import web

_FRAGMENT: Final = 7
_BODY_LIMIT: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ToolUse:
    """A tool call of the model; `arguments` is JSON text, or the nonsense that a model may send instead."""

    name: str
    arguments: str
    id: str = ""


@dataclass(frozen=True, slots=True)
class Turn:
    """One reply of the provider, with what goes wrong about it.

    Attributes
    ----------
    text, reasoning, tools
        What the model says.
    finish
        The provider's own word for why it stopped; chosen to fit if empty.
    status, code, message, headers
        Status other than 200: an error body with this code and message.
    delay_s
        Silence before anything is sent.
    drip_s
        Silence before each event of a stream.
    break_after
        Number of stream events, or of tenths of a whole body, after which the connection is reset; 0: before any byte.
    cut_after
        Likewise, but the response ends there as if it were complete.
    hang_after
        Likewise, but from there on nothing comes, until the client goes away; 0: nothing after the status line.
    raw, content_type
        Bytes to send instead of a reply, and what to call them.
    no_choices
        A reply that is well-formed and holds nothing.
    input_tokens, output_tokens, cached_tokens
        What the reply says that it used.
    """

    text: str = ""
    reasoning: str = ""
    tools: tuple[ToolUse, ...] = ()
    finish: str = ""
    status: int = 200
    code: str = ""
    message: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    delay_s: float = 0.0
    drip_s: float = 0.0
    break_after: int | None = None
    cut_after: int | None = None
    hang_after: int | None = None
    raw: bytes | None = None
    content_type: str = "application/json"
    no_choices: bool = False
    input_tokens: int = 11
    output_tokens: int = 7
    cached_tokens: int = 0


def say(text: str, **more: Any) -> Turn:
    """A reply in words."""
    return Turn(text=text, **more)


def call(name: str, arguments: object, *, id: str = "", **more: Any) -> Turn:
    """A reply that calls one tool; `arguments` as text is sent as it is."""
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return Turn(tools=(ToolUse(name, text, id),), **more)


def fail(status: int, *, code: str = "", message: str = "scripted failure", retry_after: float | None = None) -> Turn:
    """An HTTP error, with a `Retry-After` in seconds if given."""
    headers = () if retry_after is None else (("Retry-After", f"{retry_after:g}"),)
    return Turn(status=status, code=code, message=message, headers=headers)


def reset(after: int = 0, text: str = "This reply will not arrive whole, however often it is read.") -> Turn:
    """The connection is reset: at once, or after so many events or tenths of the body."""
    return Turn(text=text, break_after=after)


def cut(after: int = 5, text: str = "This reply ends too early, in the middle of its words.") -> Turn:
    """The response ends too early, without an error of the transport."""
    return Turn(text=text, cut_after=after)


def page() -> Turn:
    """A web page where JSON was expected."""
    return Turn(raw=b"<html><body>Welcome</body></html>", content_type="text/html")


@dataclass(slots=True)
class Seen:
    """One request that came in, and what became of it."""

    path: str
    headers: dict[str, str]
    body: Any
    status: int = 0
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the client closed the connection before it had its answer."""


class WireServer(ABC):
    """A provider on a free port of the loopback interface; an async context manager.

    Attributes
    ----------
    journal
        Every request, in order.
    otherwise
        The turn of whoever asks after the script is used up; or what makes one from the request's body.
    """

    def __init__(self, otherwise: Turn | Callable[[Any], Turn] | None = None) -> None:
        self.journal: list[Seen] = []
        self.otherwise: Turn | Callable[[Any], Turn] = otherwise or say("Nothing else was scripted.")
        self.port = 0
        self._script: deque[Turn] = deque()
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=_BODY_LIMIT)
        app.add_routes(self.routes())
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        return f"http://127.0.0.1:{self.port}"

    def script(self, *turns: Turn) -> None:
        """Append to what will be answered."""
        self._script.extend(turns)

    @abstractmethod
    def routes(self) -> Iterable[web.RouteDef]:
        """The endpoints."""

    @abstractmethod
    def whole(self, turn: Turn, request: Any) -> Any:
        """The JSON body of a reply that is not streamed."""

    def whole_at(self, path: str, turn: Turn, request: Any) -> Any:  # noqa: ARG002  # for those with several
        """The same of an endpoint; all are alike, if nothing else is said."""
        return self.whole(turn, request)

    @abstractmethod
    def events(self, turn: Turn, request: Any) -> list[str]:
        """The server-sent events of a streamed reply, as they go on the wire, without the blank line after each."""

    @abstractmethod
    def error(self, turn: Turn) -> Any:
        """The JSON body of an HTTP error."""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Play the next turn."""
        body = await request.json()
        seen = Seen(request.path_qs, dict(request.headers), body)
        self.journal.append(seen)
        turn = self._next(body)
        seen.status = turn.status
        try:
            await asyncio.sleep(turn.delay_s)
            return await self._play(turn, body, request)
        except (asyncio.CancelledError, ConnectionError):
            seen.gone.set()
            raise

    def _next(self, body: Any) -> Turn:
        if self._script:
            return self._script.popleft()
        return self.otherwise(body) if callable(self.otherwise) else self.otherwise

    async def _play(self, turn: Turn, body: Any, request: web.Request) -> web.StreamResponse:
        if turn.break_after == 0:
            _reset(request)
            return web.Response()
        if turn.raw is not None:
            return web.Response(body=turn.raw, content_type=turn.content_type)
        if turn.status != 200:
            return web.json_response(self.error(turn), status=turn.status, headers=dict(turn.headers))
        if body.get("stream"):
            frames = [f"{event}\n\n".encode() for event in self.events(turn, body)]
            return await self._send(turn, frames, "text/event-stream", request)
        text = json.dumps(self.whole_at(request.path, turn, body)).encode()
        size = max(1, len(text) // 10)
        return await self._send(turn, _split(text, size), "application/json", request)

    async def _send(self, turn: Turn, chunks: list[bytes], kind: str, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": kind})
        await response.prepare(request)
        for number, chunk in enumerate(chunks):
            if number == turn.break_after:
                _reset(request)
                return response
            if number == turn.cut_after:
                break
            if number == turn.hang_after:
                await asyncio.Event().wait()
            await asyncio.sleep(turn.drip_s)
            await response.write(chunk)
        await response.write_eof()
        return response


def fragments(text: str) -> list[str]:
    """`text` in the pieces in which a stream sends it."""
    return [text[start : start + _FRAGMENT] for start in range(0, len(text), _FRAGMENT)]


def _split(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def _reset(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()
