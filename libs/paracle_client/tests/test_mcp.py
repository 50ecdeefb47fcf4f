"""Tools of MCP servers as manifests."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from mcp.types import Tool, ToolAnnotations

from paracle_client.cli import main
from paracle_client.mcp import discover, manifests
from paracle_domain.errors import Unavailable
from paracle_domain.manifest import ToolDocument, parse_document
from paracle_domain.tool.spec import McpBackend

PROGRAM = """
import sys
from mcp.server.mcpserver import MCPServer

server = MCPServer("shop", log_level="ERROR")
if sys.argv[1] == "stocked":

    @server.tool()
    def add(a: int) -> int:
        "Add."
        return a

server.run()
"""


def tool(name: str, **more: Any) -> Tool:
    return Tool(name=name, input_schema={"type": "object"}, **more)


def test_names_are_those_of_manifests_and_each_is_there_once() -> None:
    found = manifests("shop", [tool("Add Item"), tool("add.item"), tool("x" * 90), tool("ü")])
    names = [parse_document(one, 1, "x").metadata.name for one in found]
    assert names == ["shop-add-item", "shop-add-item-2", f"shop-{'x' * 55}", "shop"]
    assert [one["spec"]["backend"]["tool"] for one in found][:2] == ["Add Item", "add.item"]


@pytest.mark.parametrize(
    ("hints", "effect"),
    [
        (None, "at_most_once"),
        (ToolAnnotations(read_only_hint=True), "none"),
        (ToolAnnotations(idempotent_hint=True), "idempotent"),
        (ToolAnnotations(read_only_hint=False), "at_most_once"),
    ],
)
def test_who_says_nothing_of_effects_is_called_once(hints: ToolAnnotations | None, effect: str) -> None:
    (made,) = manifests("shop", [tool("a", annotations=hints)])
    assert made["spec"]["effect"] == effect


async def test_a_server_that_cannot_be_spoken_with_is_unavailable() -> None:
    for command in (["/nowhere/at/all"], [sys.executable, "-c", ""]):
        with pytest.raises(Unavailable, match="cannot be spoken with"):
            await discover(command, None)


def test_the_command_writes_what_can_be_applied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program, out = tmp_path / "server.py", tmp_path / "tools.yaml"
    program.write_text(PROGRAM, encoding="utf-8")

    def run(*arguments: str) -> int | str | None:
        monkeypatch.setattr(sys, "argv", ["paracle", "import", "mcp", "shop", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code

    start = ("--", sys.executable, str(program))
    assert run(*start, "stocked") in {0, None}
    text = capsys.readouterr().out
    made = parse_document(yaml.safe_load(text), 1, "x")
    assert isinstance(made, ToolDocument)
    assert isinstance(made.spec.backend, McpBackend)
    assert made.spec.permissions.mcp_servers == ("shop",)
    assert run("--out", str(out), *start, "stocked") in {0, None}
    assert out.read_text(encoding="utf-8") == text
    assert run(*start, "empty") == 1
    assert "it offers no tools" in capsys.readouterr().err
    assert run() not in {0, None}
    assert "either a command after -- or --url" in capsys.readouterr().err
