"""The demo, as it is typed, over a stack that only says so."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from paracle_client.cli import demo
from paracle_domain.registry import (
    Applied,
)
from paracle_domain.run.commands import RunStatus


def test_demo_outside_of_the_repository(paracle: Callable[..., Any]) -> None:
    result = paracle("demo")
    assert result.code == 1
    assert "error: examples/triage: there is no such folder" in result.err


class FakeStack:
    """Stands for a stack that is, or is not, up before the demo."""

    def __init__(self, url: str, *, was_up: bool) -> None:
        self.url, self.was_up, self.downs = url, was_up, 0

    def up(self) -> bool:
        return not self.was_up

    def drift(self) -> list[str]:
        return ["PARACLE_POOLS is not set here"] if self.was_up else []

    def down(self) -> None:
        self.downs += 1


@pytest.fixture
def example(tmp_path: Path, triage: Any) -> None:
    (tmp_path / "examples" / "triage").mkdir(parents=True)
    (tmp_path / "examples" / "triage" / "workflow.yaml").write_text("kind: Workflow", encoding="utf-8")
    triage.on("POST /v1/manifests", Applied(results=()))


@pytest.fixture
def kept_signals() -> Iterator[None]:
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("was_up", [True, False])
@pytest.mark.usefixtures("example", "kept_signals")
def test_demo(
    paracle: Callable[..., Any], triage: Any, make: Any, monkeypatch: pytest.MonkeyPatch, *, was_up: bool
) -> None:
    stack = FakeStack(triage.url, was_up=was_up)
    monkeypatch.setattr(demo, "Stack", lambda *_args, **_options: stack)
    result = paracle("demo")
    assert result.code == 0
    started = next(one for one in triage.asked if one.path.endswith("/triage/runs"))
    assert started.json["input"] == {"folder": "examples/triage/mails"}
    for part in ("All well", make.RUN, "1,234 tok", "SANDBOX", f"paracle events {make.RUN}"):
        assert part in result.out
    assert stack.downs == (0 if was_up else 1)
    assert ("PARACLE_POOLS is not set here" in result.err) is was_up


def test_the_command_is_told_as_it_can_be_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = tmp_path / ".venv" / "bin" / "paracle"
    command.parent.mkdir(parents=True)
    command.touch(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [str(command), "demo"])
    monkeypatch.setenv("PATH", str(tmp_path))
    assert demo._called() == ".venv/bin/paracle"
    monkeypatch.setenv("PATH", str(command.parent))
    assert demo._called() == "paracle"


@pytest.mark.parametrize("ending", ["failed run", "error", "signal", "reader gone"])
@pytest.mark.usefixtures("example", "kept_signals")
def test_demo_stops_what_it_started_however_it_ends(
    paracle: Callable[..., Any], triage: Any, make: Any, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    def end(*_: Any) -> None:
        if ending == "signal":
            signal.raise_signal(signal.SIGTERM)
        raise BrokenPipeError

    stack = FakeStack(triage.url, was_up=False)
    monkeypatch.setattr(demo, "Stack", lambda *_args, **_options: stack)
    match ending:
        case "failed run":
            failed = {"code": "tool_failed", "message": "no disk"}
            triage.on(f"GET /v1/runs/{make.RUN}", make.view(RunStatus.FAILED, error=failed))
        case "error":
            triage.on("POST /v1/manifests", make.problem("spec_invalid", 422, "bad"))
        case _:
            monkeypatch.setattr(demo, "follow", end)
            monkeypatch.setattr(os, "dup2", lambda *_: None)
    assert paracle("demo").code == (143 if ending == "signal" else 1)
    assert stack.downs == 1
