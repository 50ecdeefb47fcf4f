"""What of a tool could never work, whatever it is called with: it is refused before anybody calls it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final
from urllib.parse import urlsplit

from paracle_domain.errors import Finding, quote
from paracle_domain.names import suggest
from paracle_domain.tool.spec import BuiltinBackend, HttpBackend, McpBackend, NatsBackend, Permissions, ToolSpec

BUILTINS: Final[Mapping[str, str | None]] = {
    "noop": None,
    "sleep": None,
    "now": None,
    "calculate": None,
    "json_query": None,
    "csv_query": None,
    "list_files": "paths",
    "read_text": "paths",
    "read_folder": "paths",
    "search_files": "paths",
    "write_text": "write_paths",
    "append_text": "write_paths",
    "http_request": "hosts",
    "web_page": "hosts",
    "spend": None,
    "shell": "execute",
    "python": "execute",
}
"""Functions of the agent runtime, each with the permission without which it can do nothing."""

_SECRET: Final = re.compile(r"\$\{([A-Z][A-Z0-9_]{0,127})\}")
_PLAIN_HOST: Final = re.compile(r"[A-Za-z0-9.-]+")


def validate_tool(spec: ToolSpec) -> Iterator[Finding]:
    """What the backend of `spec` needs and does not get, each with its path."""
    match spec.backend:
        case BuiltinBackend(function=function):
            yield from _check_builtin(function, spec.permissions)
        case HttpBackend() as backend:
            yield from _check_http(backend, spec.permissions)
        case NatsBackend(tool=tool) if tool not in spec.permissions.workers:
            yield _missing("workers", f"has to name {quote(tool)}, which the backend asks")
        case McpBackend(server=server) if server not in spec.permissions.mcp_servers:
            yield _missing("mcp_servers", f"has to name {quote(server)}, which the backend asks")
        case _:
            pass


def _check_builtin(function: str, permissions: Permissions) -> Iterator[Finding]:
    if function not in BUILTINS:
        message = f"there is no builtin function {quote(function)}{suggest(function, BUILTINS)}"
        yield Finding(path="spec.backend.function", message=message)
        return
    match BUILTINS[function]:
        case "execute" if permissions.execute is None:
            yield _missing("execute", f"the function {function!r} runs commands; {{}} allows it, with the usual limits")
        case "hosts" if not permissions.hosts:
            yield _missing("hosts", f"the function {function!r} may connect to none; name those that it is for")
        case "paths" if not (permissions.paths or permissions.write_paths):
            yield _missing("paths", f"the function {function!r} may read none; name the folders that it is for")
        case "write_paths" if not permissions.write_paths:
            yield _missing("write_paths", f"the function {function!r} may write none; name the folders that it is for")
        case _:
            pass


def _check_http(backend: HttpBackend, permissions: Permissions) -> Iterator[Finding]:
    host, port = _host_of(backend.url)
    granted = {entry.lower().rstrip(".") for entry in permissions.hosts}
    if host is not None and not {host, f"{host}:{port}"} & granted:
        yield _missing("hosts", f"has to name {quote(host)}, which the URL leads to")
    named = {name for value in backend.headers.values() for name in _SECRET.findall(value)}
    for name in sorted(named.difference(permissions.secrets)):
        yield _missing("secrets", f"has to name {name}, which a header holds")


def _host_of(url: str) -> tuple[str | None, int | None]:
    """Where `url` leads; no host where that is filled in by the call, or may be spelled in more than one way."""
    try:
        found = urlsplit(url)
        port = found.port or (443 if found.scheme == "https" else 80)
    except ValueError:
        return None, None
    host = (found.hostname or "").rstrip(".")
    return (host, port) if _PLAIN_HOST.fullmatch(host) else (None, None)


def _missing(permission: str, message: str) -> Finding:
    return Finding(path=f"spec.permissions.{permission}", message=message)
