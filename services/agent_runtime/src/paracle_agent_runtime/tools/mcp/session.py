"""One session with an MCP server, in a task of its own: the SDK wants to leave where it has entered."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Final

from paracle_agent_runtime.tools.mcp.servers import McpServer
from paracle_agent_runtime.tools.permissions import SECRET_PREFIX
from paracle_domain.errors import NotFound, ToolUnavailable
from paracle_domain.messages import JsonObject

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mcp import Client
    from mcp.types import CallToolResult, Tool

# The server dies with this process, whatever kills it: the kernel sees to that (PR_SET_PDEATHSIG, SIGKILL).
_TETHER: Final = "import ctypes,os,sys;ctypes.CDLL(None).prctl(1,9);os.execvp(sys.argv[1],sys.argv[1:])"
_SECRET: Final = re.compile(r"\$\{([A-Z][A-Z0-9_]{0,127})\}")
_PAGES: Final = 100
_PATIENCE_S: Final = 30.0
_START_S: Final = 60.0  # some servers are fetched first


class Session:
    """A connection that is there or is not; a lost one does not come back, another one is made."""

    def __init__(self, name: str, server: McpServer, environment: Mapping[str, str]) -> None:
        self._name = name
        self._server = server
        self._environment = environment
        self._stopping = asyncio.Event()
        self._calls = 0
        self._begun = asyncio.get_running_loop().time()
        self._client: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run(), name=f"mcp {name}")

    @property
    def excuse(self) -> str | None:
        """Why a server may be silent that does not hang; nothing if it has no reason to be."""
        if self._calls:
            return "it is busy with other calls, or hangs"
        starts = not self._client.done() and asyncio.get_running_loop().time() < self._begun + _START_S
        return "it is being started" if starts else None

    async def client(self) -> Client:
        """The SDK's client, connected.

        Raises
        ------
        ToolUnavailable
            If the server cannot be started, reached or spoken with.
        """
        return await asyncio.shield(self._client)

    async def tools(self) -> dict[str, Tool]:
        """What the server offers now, by name."""
        client, found, cursor = await self.client(), dict[str, "Tool"](), None
        for _ in range(_PAGES):
            page = await client.list_tools(cursor=cursor)
            found |= {tool.name: tool for tool in page.tools}
            cursor = page.next_cursor
            if cursor is None:
                return found
        raise ToolUnavailable(f"MCP server {self._name!r} lists tools without end")

    async def call(self, tool: str, arguments: JsonObject, meta: Mapping[str, str]) -> CallToolResult:
        """What a tool answers, whatever becomes of the call; `meta` goes with it."""
        client = await self.client()
        self._calls += 1
        try:
            return await client.call_tool(tool, arguments, meta=meta or None)  # type: ignore[arg-type]  # it is open
        finally:
            self._calls -= 1

    async def close(self) -> None:
        """End it, and the server's process with it."""
        self._stopping.set()
        await asyncio.wait((self._task,), timeout=_PATIENCE_S)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        try:
            async with self._connected() as client:
                self._client.set_result(client)
                await self._stopping.wait()
        except NotFound as error:
            self._fail(error)
        except Exception as error:  # noqa: BLE001  # whatever the SDK and the server come to: it is not there
            self._fail(ToolUnavailable(f"MCP server {self._name!r} cannot be reached: {_cause(error)}"))
        finally:
            self._fail(ToolUnavailable(f"MCP server {self._name!r} is being left"))

    def _fail(self, error: Exception) -> None:
        if not self._client.done():
            self._client.set_exception(error)
            self._client.exception()  # that nobody may wait for it just now is no fault

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Client]:
        from mcp import Client, StdioServerParameters  # noqa: PLC0415  # half a second, for those who need it
        from mcp.client.stdio import stdio_client  # noqa: PLC0415
        from mcp.client.streamable_http import streamable_http_client  # noqa: PLC0415
        from mcp.shared._httpx_utils import create_mcp_http_client  # noqa: PLC0415

        async with AsyncExitStack() as stack:
            if self._server.url is not None:
                http = create_mcp_http_client(headers=self._filled(self._server.headers))
                transport = streamable_http_client(self._server.url, http_client=await stack.enter_async_context(http))
            else:
                arguments = ["-I", "-c", _TETHER, *self._server.command]
                transport = stdio_client(
                    StdioServerParameters(command=sys.executable, args=arguments, env=self._filled(self._server.env))
                )
            yield await stack.enter_async_context(Client(transport, cache=None))

    def _filled(self, values: Mapping[str, str]) -> dict[str, str]:
        return {name: _SECRET.sub(lambda found: self._secret(found[1]), text) for name, text in values.items()}

    def _secret(self, name: str) -> str:
        if SECRET_PREFIX + name not in self._environment:
            raise NotFound(f"secret {name} is not set: give the agent runtime {SECRET_PREFIX}{name}")
        return self._environment[SECRET_PREFIX + name]


def _cause(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {str(error)[:300]}" if str(error) else type(error).__name__
