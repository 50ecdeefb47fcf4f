"""Requests as they go out: a backend's manifest filled with the arguments of a call."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote as url_quote
from urllib.parse import urlencode

from pydantic import JsonValue
from yarl import URL

from paracle_agent_runtime.tools.permissions import Grants
from paracle_domain.errors import Forbidden, InputInvalid, ToolFailed, quote
from paracle_domain.messages import JsonObject
from paracle_domain.tool.spec import HttpBackend

_PLACE: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,200}")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_FRAMING: Final = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "keep-alive", "te", "trailer", "upgrade", "expect"}
    | {"proxy-authorization", "proxy-connection", "accept-encoding"}
)
"""Headers that say where a message ends and for whom it is; those who set them can smuggle a second one in."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request. `key_header` is the name of the header that carries the idempotency key."""

    method: str
    url: URL
    headers: Mapping[str, str]
    body: bytes | None
    key_header: str


def build(backend: HttpBackend, arguments: JsonObject, grants: Grants, key: str | None) -> Request:
    """The request that `backend` makes of `arguments`.

    Raises
    ------
    ToolFailed, InputInvalid
        If the arguments do not fill the backend's places, or hold what no request can.
    Forbidden, NotFound
        If a secret may not be used, or is not there.
    """
    url = _url(backend, arguments)
    headers = fixed_headers(backend.headers, grants)
    for name, argument in backend.header_arguments.items():
        if arguments.get(argument) is not None:
            headers[name] = header_value(name, _plain(arguments[argument]), path=argument)
    if key is not None:
        headers[backend.idempotency_header] = key
    rest = {name: value for name, value in arguments.items() if name not in _placed(backend)}
    if backend.method == "GET":
        url = _queried(url, rest.items())
        return Request("GET", url, headers, None, backend.idempotency_header)
    content = _content(backend, arguments, rest)
    if content is not None:
        kind = "application/json" if backend.body_type == "json" else "application/x-www-form-urlencoded"
        headers.setdefault("Content-Type", kind)
    return Request(backend.method, url, headers, content, backend.idempotency_header)


def fixed_headers(headers: Mapping[str, str], grants: Grants) -> dict[str, str]:
    """Headers that a manifest sets, with their secrets."""
    return {name: header_value(name, grants.fill_secrets(value)) for name, value in headers.items()}


def free_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers that whoever calls a tool has chosen; no secrets are filled in.

    Raises
    ------
    Forbidden
        If one of them would change what the message is, or to whom it goes.
    """
    for name in headers:
        if name.lower() in _FRAMING or not _TOKEN.fullmatch(name):
            raise Forbidden(f"header {quote(name)} cannot be set by an argument", path="headers")
    return {name: header_value(name, value, path="headers") for name, value in headers.items()}


def header_value(name: str, value: str, *, path: str | None = None) -> str:
    """`value`, which may be a secret and is not shown, if a header can hold it."""
    if _CONTROL.search(value):
        raise InputInvalid(f"header {name} would hold a line break or another control character", path=path)
    return value


def _placed(backend: HttpBackend) -> set[str]:
    """The arguments that go to a place of their own."""
    named = {*_PLACE.findall(backend.url), *backend.query.values(), *backend.header_arguments.values()}
    return named | ({backend.body} if backend.body is not None else set())


def _url(backend: HttpBackend, arguments: JsonObject) -> URL:
    for name in _PLACE.findall(backend.url):
        if name not in arguments:
            raise ToolFailed(f"backend.url names {{{name}}}, which is not among the arguments", path=name)
    filled = "/".join(_filled(part, arguments) for part in backend.url.split("/"))
    try:
        url = URL(filled, encoded=True)
    except ValueError as error:
        raise ToolFailed(f"{quote(filled)} is no URL: {error}", path="backend.url") from error
    return _queried(url, ((name, arguments.get(argument)) for name, argument in backend.query.items()))


def _queried(url: URL, pairs: Iterable[tuple[str, JsonValue]]) -> URL:
    """`url` with `pairs` in its query: lists are repeated, what is null is left out."""
    return url.extend_query(_spread(pairs))


def _spread(pairs: Iterable[tuple[str, JsonValue]]) -> list[tuple[str, str]]:
    return [
        (name, _plain(item))
        for name, value in pairs
        for item in (value if isinstance(value, list) else [value])
        if item is not None
    ]


def _content(backend: HttpBackend, arguments: JsonObject, rest: JsonObject) -> bytes | None:
    if backend.body is not None:
        if rest:
            names = ", ".join(sorted(rest))
            raise InputInvalid(f"backend.body takes {quote(backend.body)} alone; there is no place for {names}")
        if backend.body not in arguments:
            return None
        return _encoded(arguments[backend.body], backend.body_type, path=backend.body)
    if backend.method == "DELETE" and not rest:
        return None
    return _encoded(rest, backend.body_type)


def _encoded(value: JsonValue, body_type: str, *, path: str | None = None) -> bytes:
    if body_type == "json":
        return json.dumps(value, ensure_ascii=False).encode()
    if not isinstance(value, dict):
        raise InputInvalid("a form is made of an object", path=path)
    return urlencode(_spread(value.items())).encode()


def _filled(part: str, arguments: JsonObject) -> str:
    """`part` of a URL's path with its places filled: with one name, neither with none nor with the way up."""
    names = _PLACE.findall(part)
    filled = _PLACE.sub(lambda match: url_quote(_plain(arguments[match[1]]), safe=""), part)
    if names and filled.partition("?")[0] in {"", ".", ".."}:
        raise InputInvalid(f"{quote(arguments[names[0]])} cannot be a part of {quote(part)} in a URL", path=names[0])
    return filled


def _plain(value: JsonValue) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
