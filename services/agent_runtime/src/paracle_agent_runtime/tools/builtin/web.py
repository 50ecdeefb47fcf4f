"""Builtin functions that speak HTTP: a request of any kind, and a page as text."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Final, Literal

import html_to_markdown
from pydantic import Field, JsonValue
from yarl import URL

from paracle_agent_runtime.tools.builtin.acting import Acting, Call
from paracle_agent_runtime.tools.builtin.arguments import Arguments
from paracle_agent_runtime.tools.http import HttpTools, value_of
from paracle_agent_runtime.tools.http_requests import Request, fixed_headers, free_headers
from paracle_domain.errors import Forbidden, InputInvalid, ToolFailed, quote
from paracle_domain.strict_json import whole_text

_SAFE: Final = frozenset({"GET", "HEAD"})
_KEY: Final = "Idempotency-Key"
_PAGES: Final = frozenset({"text/html", "application/xhtml+xml"})


class _Request(Arguments):
    url: str = Field(min_length=1, max_length=8_192)
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    headers: dict[str, str] = Field(default={}, max_length=50)
    body: JsonValue = Field(default=None, description="text as it is; anything else as JSON")


class _Fixed(Arguments):
    headers: dict[str, str] = {}


class _Page(Arguments):
    url: str = Field(min_length=1, max_length=8_192)
    max_chars: int = Field(default=20_000, ge=1, le=500_000)


class Web:
    """The functions, over one HTTP client."""

    def __init__(self, http: HttpTools) -> None:
        self._http = http

    @property
    def functions(self) -> Mapping[str, Acting]:
        """By name."""
        return {"http_request": self.request, "web_page": self.page}

    async def request(self, call: Call) -> JsonValue:
        """Send one request. Secrets can be in the headers that the manifest's options fix, and nowhere else."""
        options = {name: value for name, value in call.options.items() if name != "headers"}
        asked = _Request.take({**call.given, **options})
        fixed = _Fixed.take({name: call.options[name] for name in ("headers",) if name in call.options})
        if call.key is None and asked.method not in _SAFE:
            message = f"tool {call.grants.tool!r} says effect: none, so it may send GET and HEAD, not {asked.method}"
            raise Forbidden(message, path="method")
        headers = _merged(free_headers(asked.headers), fixed_headers(fixed.headers, call.grants))
        content = _content(asked, headers)
        if call.key is not None:
            headers = _merged(headers, {_KEY: call.key})
        request = Request(asked.method, _url(asked.url), headers, content, _KEY)
        answer = await self._http.send(request, call.grants, fresh=call.key is not None, timeout_s=call.timeout_s)
        return {"status": answer.status, "content_type": answer.content_type, "body": value_of(answer)}

    async def page(self, call: Call) -> JsonValue:
        """The text of a web page as Markdown, its links kept and made absolute; what is no HTML as it is."""
        asked = _Page.take(call.arguments)
        request = Request("GET", _url(asked.url), {"Accept": "text/html, text/*;q=0.8, */*;q=0.1"}, None, _KEY)
        answer = await self._http.send(request, call.grants, fresh=False, timeout_s=call.timeout_s)
        text = answer.text
        if answer.content_type in _PAGES:
            text = await asyncio.to_thread(_as_text, text, str(answer.url))
        return {
            "url": str(answer.url.with_user(None)),
            "content_type": answer.content_type,
            "text": whole_text(text[: asked.max_chars]),
            "truncated": len(text) > asked.max_chars,
        }


def _as_text(html: str, base: str) -> str:
    options = html_to_markdown.ConversionOptions(extract_metadata=False, skip_images=True, base_url=base)
    try:
        found = html_to_markdown.convert(html, options)
    except html_to_markdown.ConversionError as error:
        raise ToolFailed(f"{quote(base)} is no HTML that can be read: {error}") from error
    except BaseException as error:  # a panic of the library's is no Exception, and would take the task with it
        raise ToolFailed(f"{quote(base)} broke its reader: {type(error).__name__}") from error
    return found.content or ""


def _content(asked: _Request, headers: dict[str, str]) -> bytes | None:
    if asked.body is None:
        return None
    if asked.method in _SAFE:
        raise InputInvalid(f"a {asked.method} has no body", path="body")
    if isinstance(asked.body, str):
        return asked.body.encode("utf-8", "replace")
    if not any(name.lower() == "content-type" for name in headers):
        headers["Content-Type"] = "application/json"
    return json.dumps(asked.body, ensure_ascii=False).encode("utf-8", "replace")


def _merged(weak: Mapping[str, str], strong: Mapping[str, str]) -> dict[str, str]:
    """`weak` overruled by `strong`, whichever way their names are written."""
    taken = {name.lower() for name in strong}
    return {name: value for name, value in weak.items() if name.lower() not in taken} | dict(strong)


def _url(text: str) -> URL:
    try:
        url = URL(text)
        known = url.raw_host
    except ValueError as error:
        raise InputInvalid(f"{quote(text)} is no URL: {error}", path="url") from error
    if url.scheme not in {"http", "https"} or not known:
        raise InputInvalid(f"{quote(text)} is no http or https URL with a host", path="url")
    if url.raw_user is not None or url.raw_password is not None:
        raise InputInvalid("a URL with a user or password in it is not followed; name secrets in headers", path="url")
    return url
