"""What happens to every request before a route sees it: an id, a trace, who may ask at all, safe answers.

An API without authentication on loopback can still be reached by any web page that its user's browser has open: by a
form or a script of another origin, or under a name that resolves to 127.0.0.1. So a request must name this server by a
loopback name, unless others may reach it, and must never come from a page of another origin.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from paracle_api_gateway.problems import MisdirectedRequest, problem_response
from paracle_api_gateway.settings import is_loopback
from paracle_chassis.logging import story
from paracle_domain.errors import Forbidden, quote

REQUEST_ID: Final = "X-Request-Id"
_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_TRACEPARENT: Final = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_SAFE: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True, slots=True)
class Edge:
    """The outermost ASGI layer.

    Attributes
    ----------
    only_local
        Whether a request must name a loopback host.
    """

    app: ASGIApp
    only_local: bool

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        request_id = _request_id(headers)
        scope["paracle.request_id"] = request_id
        scope["paracle.traceparent"] = _traceparent(headers)
        answer = _Answer(send, request_id)
        with story(request_id=request_id):
            try:
                _check_origin(headers, only_local=self.only_local)
                await self.app(scope, receive, answer.send)
            except Forbidden as error:
                if answer.started:
                    raise
                await problem_response(error, request_id)(scope, receive, answer.send)
            except Exception:  # the app has answered and logged it; one in the middle of an answer breaks that off
                if not answer.finished:
                    raise


@dataclass(slots=True)
class _Answer:
    """The answer on its way out: gets its headers, and is known to have begun."""

    _send: Send
    request_id: str
    started: bool = False
    finished: bool = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            headers = MutableHeaders(scope=message)
            headers[REQUEST_ID] = self.request_id
            for name, value in _SAFE.items():
                headers.setdefault(name, value)
        await self._send(message)
        self.finished = message["type"] == "http.response.body" and not message.get("more_body", False)


def _request_id(headers: Headers) -> str:
    given = headers.get(REQUEST_ID, "")
    return given if _ID.fullmatch(given) else uuid4().hex


def _traceparent(headers: Headers) -> str | None:
    given = headers.get("traceparent", "")
    return given if _TRACEPARENT.fullmatch(given) else None


def _check_origin(headers: Headers, *, only_local: bool) -> None:
    """Refuse what a page of another origin makes a browser send.

    Raises
    ------
    MisdirectedRequest, Forbidden
    """
    host = headers.get("host", "")
    if only_local and not is_loopback(_name(f"//{host}")):
        raise MisdirectedRequest(
            f"host {quote(host)} is not this machine: the API does not authenticate, so reach it as 127.0.0.1 or "
            "localhost, or set PARACLE_API_ALLOW_UNAUTHENTICATED=true if something in front of it does"
        )
    origin = headers.get("origin")
    foreign = origin is not None and urlsplit(origin).netloc.lower() != host.lower()
    if foreign or headers.get("sec-fetch-site") in {"cross-site", "same-site"}:
        raise Forbidden(f"requests from pages of another origin ({quote(origin or 'unknown')}) are not taken")


def _name(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
