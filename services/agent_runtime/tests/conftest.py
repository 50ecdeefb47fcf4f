"""Fixtures of the agent runtime's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from runtime_peers import Gateway
from runtime_stage import Stage
from tool_bench import Bench


@pytest.fixture
async def stage(request: pytest.FixtureRequest) -> AsyncIterator[Stage]:
    made = Stage(Gateway(*getattr(request, "param", ())))
    async with made.runtime:
        await made.start()
        yield made
        await made.bus.drain()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """Tools over a folder of mails, and one that is nobody's business."""
    (tmp_path / "mails" / "deep").mkdir(parents=True)
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "key.txt").write_text("secret")
    (tmp_path / "mails" / "b.eml").write_text(
        "From: Zoë <z@example.org>\nSubject: Grüße\nDate: Mon, 4 May 2026 12:00:00 +0000\n\nHallo,\nes brennt.\n"
    )
    (tmp_path / "mails" / "a.txt").write_bytes("Caf\xe9 \x80".encode("latin-1"))
    (tmp_path / "mails" / "c.txt").write_text(" \n")
    (tmp_path / "mails" / "d.txt").write_text("ü" * 50_000)
    (tmp_path / "mails" / "leak.txt").symlink_to(tmp_path / "private" / "key.txt")
    made = Bench(tmp_path)
    yield made
    await made.http.aclose()
