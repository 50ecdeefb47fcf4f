"""Tools of MCP servers: a real one over its standard input, killed, changed and gone."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from tool_bench import SECRET, Bench

from paracle_agent_runtime.tools.mcp.backend import McpTools
from paracle_agent_runtime.tools.mcp.servers import McpServer
from paracle_agent_runtime.tools.permissions import Grants
from paracle_agent_runtime.tools.toolbox import ToolEnd
from paracle_chassis.testing.eventually import eventually
from paracle_client.mcp import discover, manifests
from paracle_domain.errors import ToolUnavailable
from paracle_domain.task.inputs import Outcome
from paracle_domain.tool.spec import McpBackend, ToolSpec
from paracle_embedded import ProcessRef, free_port

PROGRAM = '''
import asyncio, os, pathlib, sys
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.shared.exceptions import MCPError
from mcp.types import ToolAnnotations

here = pathlib.Path(sys.argv[1])
server = MCPServer("shop", log_level="ERROR")

@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def add(a: int, b: ADD = 0) -> int:
    """The sum."""
    return a + b

@server.tool()
def secret() -> str:
    """What it sees of the environment."""
    return ",".join([os.environ.get("TOKEN", "none"), os.environ.get("PARACLE_SECRET_KEY", "none")])

@server.tool()
async def order(what: str, ctx: Context) -> str:
    """Take an order."""
    meta = ctx.request_context.meta or {}
    with (here / "orders").open("a") as notes:
        notes.write(f"{what} {meta.get('paracle/idempotency-key')}\\n")
    while not (here / "gate").exists():
        await asyncio.sleep(0.02)
    return what

@server.tool()
def fail() -> str:
    """Fail."""
    raise ToolError("out of stock")

@server.tool()
def refuse() -> str:
    """Answer with an error of the protocol."""
    raise MCPError(code=-32602, message="no such order")

if len(sys.argv) > 2:
    server.run("streamable-http", port=int(sys.argv[2]))
else:
    server.run()
'''


class Shop:
    """A server, the backend that asks it, and the manifests that pin it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.program = root / "server.py"
        self.write("int")
        self.command = (sys.executable, str(self.program), str(root))
        environment = {"PARACLE_SECRET_KEY": SECRET}
        self.mcp = McpTools({"shop": McpServer(command=self.command, env={"TOKEN": "${KEY}"})}, environment)
        self.bench = Bench(root, mcp=self.mcp)
        self.specs: dict[str, Any] = {}

    def write(self, kind: str) -> None:
        self.program.write_text(PROGRAM.replace("ADD", kind), encoding="utf-8")

    async def discover(self) -> None:
        made = manifests("shop", await discover(self.command, None))
        self.specs = {one["metadata"]["name"]: one["spec"] for one in made}

    async def call(self, tool: str, arguments: dict[str, Any], key: str | None = None, **changes: Any) -> ToolEnd:
        return await self.bench.call(arguments, key=key, **{**self.specs[f"shop-{tool}"], **changes})

    async def hurried(self, tool: str, arguments: dict[str, Any], mcp: McpTools | None = None) -> ToolUnavailable:
        """What a call is refused with that has hardly any time; whoever it is asked of has not got it."""
        spec = ToolSpec.model_validate(self.specs[f"shop-{tool}"])
        assert isinstance(spec.backend, McpBackend)
        grants = Grants("t", spec.permissions, self.root, {})
        with pytest.raises(ToolUnavailable) as refused:
            await (mcp or self.mcp).call(spec.backend, arguments, grants, "k1", timeout_s=0.3)
        return refused.value

    def process(self) -> ProcessRef:
        """The server, as the kernel knows it."""
        (found,) = self.processes()
        return found

    def processes(self) -> list[ProcessRef]:
        return ProcessRef.of(os.getpid()).descendants(lambda one: str(self.program) in one.cmdline())

    async def kill(self) -> ProcessRef:
        """Kill the server; it has ended."""
        found = self.process()
        found.send(signal.SIGKILL)
        await eventually(lambda: not found.alive)
        return found

    def orders(self) -> list[str]:
        notes = self.root / "orders"
        return notes.read_text(encoding="utf-8").splitlines() if notes.exists() else []


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    made = Shop(tmp_path)
    await made.discover()
    yield made
    await made.mcp.aclose()
    assert made.processes() == []


async def test_what_a_server_offers_becomes_tools_that_can_be_called(shop: Shop) -> None:
    assert set(shop.specs) == {"shop-add", "shop-secret", "shop-order", "shop-fail", "shop-refuse"}
    assert [shop.specs[f"shop-{name}"]["effect"] for name in ("add", "order")] == ["none", "at_most_once"]
    first = await shop.call("add", {"a": 1, "b": 2})
    assert (first.output, first.error) == ({"result": 3}, None)
    server = shop.process().pid
    assert (await shop.call("add", {"a": 3})).output == {"result": 3}
    assert shop.process().pid == server, "one session serves many calls"


async def test_a_server_gets_its_own_secrets_and_no_others(shop: Shop) -> None:
    seen = await shop.call("secret", {})
    assert seen.output == {"result": "[secret KEY],none"}, "it got its own, which the model is not shown"


async def test_a_killed_server_is_started_again_for_the_next_call(shop: Shop) -> None:
    await shop.call("add", {"a": 1})
    before = await shop.kill()
    assert (await shop.call("add", {"a": 1})).output == {"result": 1}
    assert shop.process().pid != before.pid


async def test_a_server_that_dies_in_a_call_may_have_done_it(shop: Shop) -> None:
    call = asyncio.create_task(shop.call("order", {"what": "tea"}, key="k1"))
    await eventually(shop.orders)
    await shop.kill()
    end = await call
    assert end.error is not None
    assert (end.error.code, end.outcome) == ("tool_unavailable", Outcome.UNKNOWN)
    (shop.root / "gate").touch()
    assert (await shop.call("order", {"what": "tea"}, key="k1")).output == {"result": "tea"}
    assert shop.orders() == ["tea k1", "tea k1"]


async def test_a_server_that_hangs_is_begun_anew_and_nothing_is_in_doubt(shop: Shop) -> None:
    await shop.call("add", {"a": 1})
    hung = shop.process()
    hung.send(signal.SIGSTOP)
    (shop.root / "gate").touch()
    await shop.hurried("order", {"what": "coffee"})
    assert (await shop.call("order", {"what": "tea"}, key="k1", timeout_s=90)).output == {"result": "tea"}
    assert shop.orders() == ["tea k1"]
    await eventually(lambda: not hung.alive)


async def test_a_server_that_is_busy_loses_no_call(shop: Shop) -> None:
    call = asyncio.create_task(shop.call("order", {"what": "tea"}, key="k1", timeout_s=90))
    await eventually(shop.orders)
    busy = shop.process()
    busy.send(signal.SIGSTOP)
    assert "busy with other calls" in (await shop.hurried("add", {"a": 1})).message
    busy.send(signal.SIGCONT)
    (shop.root / "gate").touch()
    assert (await call).output == {"result": "tea"}


async def test_a_server_that_takes_long_to_start_is_waited_for(shop: Shop) -> None:
    gate = shop.root / "gate"
    late = f'until [ -e {gate} ]; do sleep 0.05; done; exec "$0" "$@"'
    mcp = McpTools({"shop": McpServer(command=("sh", "-c", late, *shop.command))}, {})
    shop.bench = Bench(shop.root, mcp=mcp)
    assert "being started" in (await shop.hurried("order", {"what": "coffee"}, mcp)).message
    gate.touch()
    assert (await shop.call("order", {"what": "tea"}, key="k1", timeout_s=90)).output == {"result": "tea"}
    assert shop.orders() == ["tea k1"]
    await mcp.aclose()


async def test_other_schemas_than_the_pinned_ones_are_refused(shop: Shop) -> None:
    await shop.call("add", {"a": 1})
    shop.write("str | int")
    await shop.kill()
    end = await shop.call("add", {"a": 1})
    assert end.error is not None
    assert (end.error.code, end.outcome) == ("conflict", Outcome.NOT_DONE)
    assert "other schemas" in end.error.message
    gone = shop.specs["shop-add"]["backend"] | {"tool": "subtract"}
    end = await shop.call("add", {"a": 1}, backend=gone)
    assert end.error is not None
    assert end.error.code == "not_found"
    assert "offers no tool 'subtract'" in end.error.message


async def test_an_error_of_the_tool_leaves_open_what_it_did(shop: Shop) -> None:
    end = await shop.call("fail", {}, key="k")
    assert end.error is not None
    assert (end.error.code, end.outcome) == ("tool_failed", Outcome.UNKNOWN)
    assert "out of stock" in end.error.message


async def test_an_error_of_one_call_ends_no_other_call_of_its_server(shop: Shop) -> None:
    other = asyncio.create_task(shop.call("order", {"what": "tea"}, key="k1"))
    await eventually(shop.orders)
    end = await shop.call("refuse", {}, key="k2")
    assert end.error is not None
    assert (end.error.code, end.outcome) == ("tool_unavailable", Outcome.UNKNOWN)
    (shop.root / "gate").touch()
    assert (await other).output == {"result": "tea"}


async def test_only_what_the_operator_named_and_the_manifest_grants_is_asked(shop: Shop) -> None:
    end = await shop.call("add", {"a": 1}, permissions={})
    assert end.error is not None
    assert end.error.code == "forbidden"
    assert "permissions.mcp_servers: none" in end.error.message
    backend = shop.specs["shop-add"]["backend"] | {"server": "shed"}
    end = await shop.call("add", {"a": 1}, backend=backend, permissions={"mcp_servers": ["shed"]})
    assert end.error is not None
    assert end.error.code == "forbidden"
    assert "PARACLE_MCP_SERVERS" in end.error.message
    assert shop.processes() == [], "nothing was started"


async def test_a_server_over_http_may_go_and_come_back(tmp_path: Path) -> None:
    shop, port = Shop(tmp_path), free_port()
    url = f"http://127.0.0.1:{port}/mcp"
    mcp = McpTools({"shop": McpServer(url=url, headers={"X-Token": "${KEY}"})}, {"PARACLE_SECRET_KEY": SECRET})
    shop.bench = Bench(tmp_path, mcp=mcp)
    await shop.discover()
    (tmp_path / "gate").touch()
    for _ in range(2):
        server = await asyncio.create_subprocess_exec(*shop.command, str(port), stderr=subprocess.DEVNULL)
        assert await eventually(lambda: _answered(shop), within_s=20)
        assert (await shop.call("order", {"what": "tea"}, key="k1")).output == {"result": "tea"}
        server.kill()
        await server.wait()
        end = await shop.call("add", {"a": 5})
        assert end.error is not None
        assert (end.error.code, end.outcome) == ("tool_unavailable", Outcome.NOT_DONE)
    assert shop.orders() == ["tea k1", "tea k1"]
    await mcp.aclose()


async def _answered(shop: Shop) -> bool:
    return (await shop.call("add", {"a": 5})).output == {"result": 5}


@pytest.mark.parametrize(
    ("server", "code", "why"),
    [
        (McpServer(command=("/nowhere/at/all",)), "tool_unavailable", "cannot be reached"),
        (McpServer(command=("true",), env={"A": "${GONE}"}), "not_found", "PARACLE_SECRET_GONE"),
        (McpServer(url="http://127.0.0.1:1/mcp"), "tool_unavailable", "MCP server 'shop'"),
    ],
)
async def test_a_server_that_is_not_there_is_an_error_and_nothing_was_done(
    tmp_path: Path, server: McpServer, code: str, why: str
) -> None:
    mcp = McpTools({"shop": server}, {})
    backend = {"type": "mcp", "server": "shop", "tool": "add", "digest": "0" * 64}
    end = await Bench(tmp_path, mcp=mcp).call({}, backend=backend, permissions={"mcp_servers": ["shop"]})
    assert end.error is not None
    assert (end.error.code, end.outcome) == (code, Outcome.NOT_DONE)
    assert why in end.error.message
    await mcp.aclose()


@pytest.mark.parametrize("server", [{}, {"command": ["a"], "url": "http://b/"}, {"url": "file:///etc"}, {"shell": "a"}])
def test_a_server_is_a_command_or_an_address(server: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        McpServer.model_validate(server)


async def test_a_server_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    from paracle_agent_runtime.tools.mcp.session import _TETHER

    child = [sys.executable, "-I", "-c", _TETHER, "sleep", "600"]
    program = f"import subprocess,time;p=subprocess.Popen({child!r});print(p.pid,flush=True);time.sleep(600)"
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=subprocess.PIPE)
    assert parent.stdout is not None
    server = ProcessRef.of(int(await parent.stdout.readline()))
    # not before it has bound itself
    await eventually(lambda: ProcessRef.of(parent.pid).descendants(lambda one: one.name() == "sleep"))
    parent.kill()
    await parent.wait()
    await eventually(lambda: not server.alive)
