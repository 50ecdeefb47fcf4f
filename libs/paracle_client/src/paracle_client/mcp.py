"""Tools of MCP servers as manifests, for `paracle import mcp`."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from paracle_domain.errors import Unavailable
from paracle_domain.tool.pinning import schema_digest

if TYPE_CHECKING:
    from mcp.types import Tool

_PATIENCE_S: Final = 60.0
_PAGES: Final = 100
_UNNAMEABLE: Final = re.compile(r"[^a-z0-9_-]+")


async def discover(command: Sequence[str], url: str | None) -> list[Tool]:
    """What the server that `command` starts, or that listens at `url`, offers.

    Raises
    ------
    Unavailable
        If it cannot be started, reached or spoken with.
    """
    from mcp import Client, StdioServerParameters  # noqa: PLC0415  # half a second, for those who need it
    from mcp.client.stdio import stdio_client  # noqa: PLC0415

    try:
        transport = url or stdio_client(StdioServerParameters(command=command[0], args=list(command[1:])))
        async with asyncio.timeout(_PATIENCE_S), Client(transport, cache=None) as client:
            found: list[Tool] = []
            cursor = None
            for _ in range(_PAGES):
                page = await client.list_tools(cursor=cursor)
                found += page.tools
                cursor = page.next_cursor
                if cursor is None:
                    break
            return found
    except Exception as error:  # whatever the server, its process or the SDK comes up with, it cannot be spoken with
        reason = _first(error)
        raise Unavailable(f"the MCP server cannot be spoken with: {type(reason).__name__}: {reason}") from error


def manifests(server: str, tools: Sequence[Tool]) -> list[dict[str, Any]]:
    """A Tool for each of `tools`, named after the server and itself; names that would be the same get a number."""
    taken: dict[str, int] = {}
    return [_manifest(server, tool, _name(server, tool.name, taken)) for tool in tools]


def _manifest(server: str, tool: Tool, name: str) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "description": tool.description or tool.title or tool.name,
        "input": tool.input_schema,
        "backend": {
            "type": "mcp",
            "server": server,
            "tool": tool.name,
            "digest": schema_digest(tool.input_schema, tool.output_schema),
        },
        "permissions": {"mcp_servers": [server]},
        "effect": _effect(tool),
    }
    if tool.output_schema is not None:
        spec["output"] = tool.output_schema
    return {"apiVersion": "paracle/v1", "kind": "Tool", "metadata": {"name": name}, "spec": spec}


def _effect(tool: Tool) -> str:
    """What it says of itself; of one that says nothing it is assumed that it must not be called twice."""
    hints = tool.annotations
    if hints is not None and hints.read_only_hint:
        return "none"
    return "idempotent" if hints is not None and hints.idempotent_hint else "at_most_once"


def _name(server: str, tool: str, taken: dict[str, int]) -> str:
    base = _UNNAMEABLE.sub("-", f"{server}-{tool}".lower()).strip("-_")[:60]
    taken[base] = taken.get(base, 0) + 1
    return base if taken[base] == 1 else f"{base}-{taken[base]}"


def _first(error: BaseException) -> BaseException:
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error
