"""Tools that are HTTP endpoints.

The host is on the tool's list, its addresses are checked when the name is resolved and the connection goes to the
checked address (so a name that resolves differently a moment later gains nothing), redirects stay on the list, and
bodies are bounded.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final, override

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from pydantic import JsonValue
from yarl import URL

from paracle_agent_runtime.tools.http_requests import Request, build
from paracle_agent_runtime.tools.outcome import OutcomeUnknownError
from paracle_agent_runtime.tools.permissions import Grants
from paracle_chassis import outages
from paracle_domain.errors import (
    Forbidden,
    ParacleError,
    PayloadTooLarge,
    ToolFailed,
    ToolUnavailable,
    quote,
)
from paracle_domain.messages import JsonObject
from paracle_domain.strict_json import parse_json
from paracle_domain.tool.spec import HttpBackend

# Codecs that a server may choose. Others of Python's (punycode, unicode_escape, …) are slow, or give no text.
_CHARSETS: Final = re.compile(
    r"utf-?(8|16|32)(-?[lb]e)?|(us-)?ascii|latin-?1|iso-8859-\d+|(windows-|cp)\d+|koi8-[ru]|gb\w+|big5|shift_jis|euc-\w+",
    re.IGNORECASE,
)
_REDIRECTS: Final = 5
_EXCERPT: Final = 300
_GRANTS: Final[ContextVar[Grants]] = ContextVar("grants of the tool that is connecting")


@contextmanager
def acting_for(grants: Grants) -> Iterator[None]:
    """Connect for the tool with these grants."""
    token = _GRANTS.set(grants)
    try:
        yield
    finally:
        _GRANTS.reset(token)


class CheckedResolver(AbstractResolver):
    """Resolves a name once, for the tool that asks, and gives back only addresses that it may connect to."""

    def __init__(self, inner: AbstractResolver) -> None:
        self._inner = inner

    @override
    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        grants = _GRANTS.get()
        for each in found:
            grants.address(host, each["host"])
        return found

    @override
    async def close(self) -> None:
        await self._inner.close()


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, as text, without the secrets of whoever asked."""

    status: int
    url: URL
    content_type: str
    text: str


class HttpTools:
    """Calls HTTP backends. One pool of connections for tools that may use private networks, one for all others.

    Parameters
    ----------
    body_limit
        Largest response body, in bytes, after decompression.
    resolver
        Resolves names; the system's resolver if absent.
    """

    def __init__(self, *, body_limit: int = 1 << 20, resolver: AbstractResolver | None = None) -> None:
        self._body_limit = body_limit
        self._resolver = resolver
        self._sessions: dict[tuple[bool, bool], aiohttp.ClientSession] = {}

    async def aclose(self) -> None:
        """Close all connections."""
        for session in self._sessions.values():
            await session.close()
        self._sessions.clear()

    async def call(
        self, backend: HttpBackend, arguments: JsonObject, grants: Grants, *, key: str | None, timeout_s: float
    ) -> JsonValue:
        """The response body: JSON as it is, anything else as text; `None` if it is empty.

        Raises
        ------
        Forbidden
            If the tool may not connect there, or not use a secret.
        ToolUnavailable
            If nothing was done: no connection, or an answer of 429.
        ToolFailed
            If the answer is an error of the client (4xx).
        OutcomeUnknownError
            If the request went out and nothing trustworthy came back (5xx, broken connection, too much body), or, for
            anything but GET and HEAD, where to look next (301, 302, 303).
        """
        request = build(backend, arguments, grants, key)
        return value_of(await self.send(request, grants, fresh=key is not None, timeout_s=timeout_s))

    async def send(self, request: Request, grants: Grants, *, fresh: bool, timeout_s: float) -> Answer:
        """The answer to `request`, redirects followed; `fresh` if it has an effect. Raises what `call` does."""
        with acting_for(grants):
            session = self._session(private=grants.permissions.private_networks, fresh=fresh)
            return await self._follow(session, request, grants, aiohttp.ClientTimeout(total=timeout_s))

    def _session(self, *, private: bool, fresh: bool) -> aiohttp.ClientSession:
        """The pool for a call. One that was opened for private networks serves no other tool.

        Calls with an effect get a `fresh` connection each: on one that was used before, aiohttp would by itself send
        a PUT or DELETE a second time if the server closes it.
        """
        if (private, fresh) not in self._sessions:
            resolver = CheckedResolver(self._resolver or aiohttp.ThreadedResolver())
            connector = aiohttp.TCPConnector(
                resolver=resolver, use_dns_cache=False, limit=1_000, limit_per_host=100, force_close=fresh
            )
            self._sessions[private, fresh] = aiohttp.ClientSession(
                connector=connector, trust_env=False, cookie_jar=aiohttp.DummyCookieJar()
            )
        return self._sessions[private, fresh]

    async def _follow(
        self, session: aiohttp.ClientSession, call: Request, grants: Grants, patience: aiohttp.ClientTimeout
    ) -> Answer:
        for _ in range(_REDIRECTS + 1):
            grants.url(call.url)
            try:
                async with session.request(
                    call.method, call.url, headers=call.headers, data=call.body, timeout=patience, allow_redirects=False
                ) as response:
                    onward = _redirected(call, response, grants)
                    if onward is None:
                        return await self._read(response, grants)
                    call = onward
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise _failure(call.url, error) from error
        raise ToolFailed(f"{_where(call.url)} redirects more than {_REDIRECTS} times")

    async def _read(self, response: aiohttp.ClientResponse, grants: Grants) -> Answer:
        where = _where(response.url)
        if response.status >= 400:
            raise _refusal(response, await _excerpt(response, grants))
        if 300 <= response.status < 400:
            raise _not_followed(response)
        body = await response.content.read(self._body_limit + 1)
        while len(body) <= self._body_limit and not response.content.at_eof():
            body += await response.content.read(self._body_limit + 1 - len(body))
        if len(body) > self._body_limit:
            raise OutcomeUnknownError(PayloadTooLarge(f"{where} answered more than {self._body_limit:,} bytes"))
        text = grants.redact(_decode(body, response))
        return Answer(response.status, response.url, response.content_type, text)


def _redirected(call: Request, response: aiohttp.ClientResponse, grants: Grants) -> Request | None:
    """The call that a redirect asks for; `None` if it is none, or may not be followed without sending a body twice."""
    location = response.headers.get("Location")
    repeatable = call.method in {"GET", "HEAD"} or response.status in {307, 308}
    if response.status not in {301, 302, 303, 307, 308} or location is None or not repeatable:
        return None
    try:
        url = response.url.join(URL(location))
        same = url.origin() == response.url.origin()
    except ValueError as error:
        shown = quote(grants.redact(location))
        raise ToolFailed(f"{_where(response.url)} redirects to {shown}, which is no address") from error
    if same:
        return Request(call.method, url, call.headers, call.body, call.key_header)
    if response.url.scheme == "https" and url.scheme != "https":
        raise Forbidden(f"{_where(response.url)} redirects from https to http", path="url")
    harmless = {"content-type", "accept", call.key_header.lower()}
    # what may hold secrets stays with the host it is for
    kept = {name: value for name, value in call.headers.items() if name.lower() in harmless}
    return Request(call.method, url, kept, call.body, call.key_header)


def _not_followed(response: aiohttp.ClientResponse) -> Exception:
    """A form that was taken is commonly answered with where to look next: that is no sign that nothing was done."""
    error = ToolFailed(f"{_where(response.url)} answered {response.status}, a redirection that is not followed")
    took = response.method not in {"GET", "HEAD"} and response.status in {301, 302, 303}
    return OutcomeUnknownError(error) if took else error


def _refusal(response: aiohttp.ClientResponse, excerpt: str) -> Exception:
    said = f"{_where(response.url)} answered {response.status}: {excerpt}"
    passing = response.status in {429, 503}
    after = _retry_after(response.headers) if passing else None
    error = ToolUnavailable(said, retry_after_s=after) if passing else ToolFailed(said)
    return OutcomeUnknownError(error) if response.status >= 500 else error


def _failure(url: URL, error: Exception) -> Exception:
    """A connection that never came about did nothing; one that broke later may have."""
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return ToolUnavailable(f"{_where(url)} cannot be reached: no connection in time")
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.InvalidURL):
        cause = error.__cause__ or error
        why = outages.reason(cause) if isinstance(cause, OSError) else type(cause).__name__
        return ToolUnavailable(f"{_where(url)} cannot be reached: {why}")
    if isinstance(error, TimeoutError):
        return OutcomeUnknownError(ToolUnavailable(f"{_where(url)} did not answer in time"))
    return OutcomeUnknownError(ToolUnavailable(f"the connection to {_where(url)} broke: {type(error).__name__}"))


def _where(url: URL) -> str:
    return str(url.with_query(None).with_user(None).with_fragment(None))


def _retry_after(headers: Mapping[str, str]) -> float | None:
    text = headers.get("Retry-After", "")
    try:
        return float(text)
    except ValueError:
        pass  # then it is a date
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


async def _excerpt(response: aiohttp.ClientResponse, grants: Grants) -> str:
    """The beginning of an error's body. Secrets are taken out first: a cut, or quoting, would leave half of one."""
    text = grants.redact(_decode(await response.content.read(_EXCERPT * 16), response))
    return quote(text[:_EXCERPT])


def _decode(body: bytes, response: aiohttp.ClientResponse) -> str:
    charset = response.charset or "utf-8"
    try:
        return body.decode(charset if _CHARSETS.fullmatch(charset) else "utf-8")
    except (UnicodeDecodeError, LookupError):
        return body.decode("utf-8", "replace")


def value_of(answer: Answer) -> JsonValue:
    """JSON as it is, anything else as text; `None` if it is empty."""
    if not answer.text:
        return None
    if "json" not in answer.content_type:
        return answer.text
    try:
        return parse_json(answer.text)
    except ValueError as error:
        raise OutcomeUnknownError(_nonsense(_where(answer.url), answer.text)) from error


def _nonsense(where: str, text: str) -> ParacleError:
    return ToolFailed(f"{where} answered something else than the JSON that it announced: {quote(text)}")
