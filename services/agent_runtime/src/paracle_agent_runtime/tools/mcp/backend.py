"""Calls of MCP tools: of servers that the operator named, with schemas that the manifest pinned."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from pydantic import JsonValue

from paracle_agent_runtime.tools.mcp.servers import McpServer
from paracle_agent_runtime.tools.mcp.session import Session
from paracle_agent_runtime.tools.outcome import OutcomeUnknownError
from paracle_agent_runtime.tools.permissions import Grants, redact
from paracle_domain.errors import Conflict, Forbidden, NotFound, ParacleError, ToolFailed, ToolUnavailable, quote
from paracle_domain.messages import JsonObject
from paracle_domain.names import suggest
from paracle_domain.tool.pinning import IDEMPOTENCY_META, schema_digest
from paracle_domain.tool.spec import McpBackend

if TYPE_CHECKING:
    from mcp.types import CallToolResult, Tool

_FINDING_OUT: Final = 1 / 3
"""How much of a call's time may go by till its server says what it offers. A lost one is looked for once more."""


class McpTools:
    """Asks MCP servers, over one session each. One that was lost, or hangs, is made anew with the next call."""

    def __init__(self, servers: Mapping[str, McpServer], environment: Mapping[str, str]) -> None:
        self._servers = servers
        self._environment = environment
        self._sessions: dict[str, Session] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def aclose(self) -> None:
        """End all sessions, and the servers that were started for them."""
        for name, session in list(self._sessions.items()):
            self._drop(name, session)
        await asyncio.gather(*self._closing)

    async def call(
        self, backend: McpBackend, arguments: JsonObject, grants: Grants, key: str | None, *, timeout_s: float
    ) -> JsonValue:
        """What the tool gives: its structured content, or else its text.

        Raises
        ------
        Forbidden
            If the tool may not ask that server, or the operator named none of that name.
        Conflict
            If the server offers the tool with other schemas than those pinned.
        NotFound
            If it does not offer it.
        ToolUnavailable
            If it is not there, or does not say what it offers.
        OutcomeUnknownError
            If it got the call, and broke or said that it failed: it may have done something.
        """
        grants.mcp_server(backend.server)
        if backend.server not in self._servers:
            message = (
                f"the agent runtime knows no MCP server {backend.server!r}{suggest(backend.server, self._servers)}"
            )
            raise Forbidden(f"{message} (PARACLE_MCP_SERVERS)", path="backend.server")
        session, tools = await self._offered(backend.server, timeout_s * _FINDING_OUT)
        _check(backend, tools)
        try:
            result = await session.call(backend.tool, arguments, {} if key is None else {IDEMPOTENCY_META: key})
        except Exception as error:  # however it broke off, the server may have done what it was asked
            # The session stays, for others have calls on it; the next call finds out whether it still lives.
            broke = ToolUnavailable(f"MCP server {backend.server!r} broke off: {type(error).__name__}")
            raise OutcomeUnknownError(broke) from error
        return self._redacted(_value(backend, result))

    def _redacted(self, value: JsonValue) -> JsonValue:
        """`value` without any secret: its server was given some that are not the tool's."""
        found: JsonValue = json.loads(redact(json.dumps(value, ensure_ascii=False), self._environment))
        return found

    async def _offered(self, name: str, patience_s: float) -> tuple[Session, dict[str, Tool]]:
        """A session that answers, and what its server offers. Asking for that shows whether it still lives."""
        kept = self._sessions.get(name)
        if kept is not None:
            try:
                return kept, await self._listed(name, kept, patience_s)
            except ParacleError:
                if self._sessions.get(name) is kept:
                    raise
        # It was lost since it was used last, and nothing was asked of it: another one, which others may have made.
        fresh = self._sessions.get(name)
        if fresh is None:
            fresh = self._sessions[name] = Session(name, self._servers[name], self._environment)
        return fresh, await self._listed(name, fresh, patience_s)

    async def _listed(self, name: str, session: Session, patience_s: float) -> dict[str, Tool]:
        """What a server offers. A session in which it does not say so is given up, unless it has an excuse."""
        try:
            async with asyncio.timeout(patience_s):
                return await session.tools()
        except TimeoutError as error:
            if (excuse := session.excuse) is None:
                self._drop(name, session)
            why = excuse or "it hangs, and is begun anew"
            raise ToolUnavailable(
                f"MCP server {name!r} did not list its tools within {patience_s:.3g} s: {why}"
            ) from error
        except ParacleError:
            self._drop(name, session)
            raise
        except Exception as error:  # however it broke off, nothing was asked of the server yet
            self._drop(name, session)
            raise ToolUnavailable(f"MCP server {name!r} does not list its tools: {type(error).__name__}") from error

    def _drop(self, name: str, session: Session) -> None:
        """Nobody begins anything with `session` any more. A server that hangs takes its time to end."""
        if self._sessions.get(name) is not session:
            return
        del self._sessions[name]
        closing = asyncio.create_task(session.close(), name=f"end of mcp {name}")
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)


def _check(backend: McpBackend, tools: Mapping[str, Tool]) -> None:
    tool = tools.get(backend.tool)
    if tool is None:
        message = f"MCP server {backend.server!r} offers no tool {quote(backend.tool)}{suggest(backend.tool, tools)}"
        raise NotFound(message, path="backend.tool")
    if schema_digest(tool.input_schema, tool.output_schema) != backend.digest:
        raise Conflict(
            f"MCP server {backend.server!r} offers {quote(backend.tool)} with other schemas than those that its "
            "manifest pins; look at them, then `paracle import mcp` and apply again",
            path="backend.digest",
        )


def _value(backend: McpBackend, result: CallToolResult) -> JsonValue:
    parts: list[dict[str, JsonValue]] = [
        part.model_dump(mode="json", by_alias=True, exclude_none=True) for part in result.content
    ]
    text = "\n".join(str(part["text"]) for part in parts if part["type"] == "text")
    if result.is_error:
        raise OutcomeUnknownError(ToolFailed(f"{backend.tool!r} of MCP server {backend.server!r} failed: {text}"))
    if result.structured_content is not None:
        found: JsonValue = result.structured_content
        return found
    return text if all(part["type"] == "text" for part in parts) else {"content": [*parts]}
