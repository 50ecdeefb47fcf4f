"""What docs/python.md shows: run as it stands, and every method that it names is there."""

from __future__ import annotations

import asyncio
import re
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest
from tests.e2e.world import COMMAND_S, ROOT, System

from paracle_client import AsyncClient, Client

PAGE = ROOT / "docs" / "python.md"
URL = "http://127.0.0.1:8080"
SHOWN = dict(
    re.findall(r"<!-- run by tests/e2e: (\S+) -->\n```\w+\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
)
SAYS = {
    "brief.py": [
        "1 run.started",
        "2 step.started",
        "3 step.completed",
        "4 run.completed",
        "completed [sandbox] NATS carries messages.",
    ],
    "listen.py": ["[sandbox] JetStream keeps them."],
    "many.py": ["10 {'completed'}", "not_found there is no workflow 'brieff'; did you mean 'brief'?"],
}


def manifests() -> str:
    """The agent and the workflow of the start page."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (found,) = re.findall(r"<!-- run by tests/e2e: brief.yaml -->\n```\w+\n(.*?)```", text, re.DOTALL)
    return str(found)


@pytest.mark.parametrize("name", SAYS)
async def test_what_the_page_shows_runs(system: System, tmp_path: Path, name: str) -> None:
    (tmp_path / "brief.yaml").write_text(manifests(), encoding="utf-8")
    await asyncio.to_thread(system.apply, manifests())
    assert URL in SHOWN[name]
    (tmp_path / name).write_text(SHOWN[name].replace(URL, system.url), encoding="utf-8")
    process = await asyncio.create_subprocess_exec(sys.executable, name, cwd=tmp_path, stdout=PIPE, stderr=PIPE)
    async with asyncio.timeout(COMMAND_S):
        told, complaints = await process.communicate()
    assert (process.returncode, told.decode().splitlines()) == (0, SAYS[name]), complaints.decode()


def test_the_page_runs_all_that_it_shows() -> None:
    assert set(SHOWN) == set(SAYS)


@pytest.mark.parametrize("client", [Client, AsyncClient])
def test_every_method_is_in_the_table(client: type) -> None:
    rows = re.findall(r"^\| (`.*`) \| ", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    told = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    known = {name for name in dir(client) if not name.startswith("_")}
    assert known - {"close", "aclose", "url"} == told
