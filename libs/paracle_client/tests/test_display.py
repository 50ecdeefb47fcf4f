"""What is drawn, on wide and on narrow terminals and none."""

from __future__ import annotations

import io
import json
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from rich.console import Console

from paracle_client.cli.app import say_error
from paracle_client.display import describe, duration, money, render, totals, watch
from paracle_client.live import StepLine, View, begin, fold
from paracle_client.plain import safe, safe_json
from paracle_domain.errors import ErrorInfo
from paracle_domain.inference.usage import Usage
from paracle_domain.machine import fold as fold_all
from paracle_domain.run.commands import StepStatus


def drawn(view: View, make: Any, **console: Any) -> str:
    out = io.StringIO()
    screen = Console(file=out, **{"width": 120, "height": 40, "color_system": None, **console})
    screen.print(render(view, make.START + timedelta(seconds=10), screen))
    return out.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, ""), (0, "0.0s"), (1.24, "1.2s"), (59.96, "1m00s"), (125, "2m05s"), (3599.9, "1h00m"), (11_220, "3h07m")],
)
def test_duration(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("cost", "text"),
    [(None, "$?"), ("0", "$0"), ("0.0012", "$0.0012"), ("0.00001", "<$0.0001"), ("1234.5", "$1,234.50")],
)
def test_money(cost: str | None, text: str) -> None:
    assert money(None if cost is None else Decimal(cost)) == text


def test_totals() -> None:
    used = Usage(input_tokens=1_000, output_tokens=234, cost_usd=Decimal("0.0012"))
    assert totals(used) == "1,234 tok (1,000 in, 234 out) $0.0012"


def test_control_characters_cannot_reach_the_terminal() -> None:
    assert safe("a\x1b[2Jb\x07\u202ec\u009b") == "a\ufffd[2Jb\ufffd\ufffdc\ufffd"
    assert safe("one\r\ntwo") == "one two"
    assert safe("one\ntwo\t日本👩\u200d🚀", lines=True) == "one\ntwo\t日本👩\u200d🚀"


def test_lines_for_whoever_has_no_terminal(make: Any) -> None:
    out = io.StringIO()
    screen = Console(file=out, width=40)
    last = list(watch(begin(make.view()), make.whole_run(), screen))[-1]
    assert last.status.terminal
    lines = [line.split(" ", 1)[1] for line in out.getvalue().splitlines()]
    assert lines == [
        "run              queued → running",
        "sort             pending → running sorter",
        "sort             running → completed 1.0s",
        "report           pending → running writer",
        "report           running → completed 1.0s 1,234 tok $0.0012",
        "run              running → completed 5.0s 1,234 tok (1,000 in, 234 out) $0.0012",
    ]


def test_a_line_about_a_failure_names_it_and_an_unknown_event_has_none(make: Any) -> None:
    before = fold_all(fold, begin(make.view()), make.whole_run()[:2])
    failed = make.record(
        3, "step.failed", step="sort", attempt=1, error={"code": "tool_failed", "message": "no\x1bdisk"}
    )
    line = describe(before, fold(before, failed), failed)
    assert line is not None
    assert line.endswith("running → failed 1.0s tool_failed: no\ufffddisk")
    unknown = make.record(3, "run.teleported")
    assert describe(before, fold(before, unknown), unknown) is None


def test_what_a_step_says_the_run_does_not_say_again(make: Any) -> None:
    own = {"code": "tool_failed", "message": "no disk"}
    of_run = {"code": "tool_failed", "message": "step 'sort': no disk", "path": "steps.sort"}
    before = fold(View(make.RUN), make.record(1, "step.failed", step="sort", attempt=1, error=own))
    ended = make.record(2, "run.failed", error=of_run)
    assert (describe(before, fold(before, ended), ended) or "").endswith("queued → failed 0.0s")
    assert drawn(fold(before, ended), make).count("no disk") == 1
    other = make.record(2, "run.failed", error={"code": "expression_failed", "message": "no total", "path": "output"})
    assert (describe(before, fold(before, other), other) or "").endswith("expression_failed: no total")
    assert "no total" in drawn(fold(before, other), make)


def test_a_person_who_is_waited_for_sees_what_is_asked(make: Any) -> None:
    asked = make.record(1, "approval.asked", step="ok", approval_id="apr_1", ask="Pay\x1b?", digest="d")
    before = View(make.RUN)
    after = fold(before, asked)
    assert (describe(before, after, asked) or "").endswith(
        "pending → waiting 0.0s Pay\ufffd? (paracle approvals show apr_1)"
    )
    decided = make.record(2, "approval.decided", step="ok", approval_id="apr_1", principal="bob", decision="approve")
    assert (describe(after, fold(after, decided), decided) or "").endswith(
        "ok               waiting 1.0s approve by bob"
    )
    screen = Console(file=io.StringIO(), width=100, record=True)
    screen.print(render(after, make.START, screen))
    assert "waiting Pay\ufffd? (paracle approvals show apr_1)" in screen.export_text()


def test_a_child_run_is_named_so_that_it_can_be_looked_at(make: Any) -> None:
    begun = make.record(
        1, "step.started", step="c", attempt=1, target_kind="workflow", target="onboard", child_run_id="run_2"
    )
    view = fold(View(make.RUN), begun)
    assert (describe(View(make.RUN), view, begun) or "").endswith("pending → running onboard as run run_2")
    ended = make.record(2, "step.completed", step="c", attempt=1)
    assert (describe(view, fold(view, ended), ended) or "").endswith("running → completed 1.0s")


def test_a_map_shows_how_far_it_has_come(make: Any) -> None:
    opened = make.record(1, "step.opened", step="each", kind="map", count=1_000)
    view = fold(View(make.RUN), opened)
    view = fold(view, make.record(2, "step.completed", step="each[7]", attempt=1))
    screen = Console(file=io.StringIO(), width=100, record=True)
    screen.print(render(view, make.START, screen))
    assert "running 1 of 1,000" in screen.export_text()


def test_a_wide_terminal_shows_everything(make: Any) -> None:
    text = drawn(fold_all(fold, begin(make.view()), make.whole_run()[:5]), make)
    assert "✓" in text
    for part in ("triage", make.RUN, "  report", "writer", "completed", "1,234", "$0.0012", "running  9.0s"):
        assert part in text


@pytest.mark.parametrize("width", [12, 24, 40, 60, 90, 200])
def test_no_line_is_wider_than_the_terminal(make: Any, width: int) -> None:
    view = fold_all(fold, begin(make.view()), make.whole_run()[:3])
    lines = drawn(view, make, width=width).splitlines()
    assert all(len(line) <= width for line in lines)
    assert sum("so" in line for line in lines) >= 1
    assert len(lines) <= 8


def test_a_long_error_gives_way_to_the_names_of_steps(make: Any) -> None:
    error = ErrorInfo(code="x", message="no disk, " * 30)
    step = StepLine("classify-mails", "mail-classifier", status=StepStatus.FAILED, attempt=1, error=error)
    text = drawn(View(make.RUN, steps={step.id: step}), make, width=100)
    for part in (step.id, step.target, "failed: no disk, no disk"):
        assert part in text


def test_an_old_terminal_gets_plain_symbols(make: Any) -> None:
    view = fold_all(fold, begin(make.view()), make.whole_run()[:4])
    raw = io.BytesIO()
    screen = Console(file=io.TextIOWrapper(raw, encoding="ascii"), width=100, height=30, color_system=None)
    screen.print(render(view, make.START, screen))
    screen.file.flush()
    assert b"+ sort" in raw.getvalue()


def test_many_steps_leave_room_for_those_that_matter(make: Any) -> None:
    steps = {f"s{at}": StepLine(f"s{at}", status=StepStatus.COMPLETED) for at in range(500)}
    steps["s250"] = StepLine("s250", status=StepStatus.RUNNING, attempt=1)
    steps["s400"] = StepLine("s400", status=StepStatus.FAILED, attempt=2, error=ErrorInfo(code="x", message="broke"))
    text = drawn(View(make.RUN, steps=steps), make, height=15)
    assert len(text.splitlines()) <= 15
    assert "s250" in text
    assert "failed (attempt 2): broke" in text
    assert "and 491 more steps: 498 completed, 1 failed, 1 running" in text


def test_a_terminal_is_redrawn_with_each_event(make: Any) -> None:
    out = io.StringIO()
    screen = Console(file=out, width=100, height=30, force_terminal=True, color_system=None)
    for _ in watch(begin(make.view()), make.whole_run(), screen):
        pass
    assert "completed" in out.getvalue()
    assert "1,234" in out.getvalue()


def test_json_loses_nothing_when_it_is_made_fit_for_a_terminal() -> None:
    value = {"a": "\x1b]0;x\x07 \x9b31m \u202e grün 😀\n"}
    shown = safe_json(json.dumps(value, ensure_ascii=False, indent=2))
    assert json.loads(shown) == value
    assert not {"\x1b", "\x9b", "\u202e"} & set(shown)
    assert "grün 😀" in shown


def test_an_error_cannot_take_over_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    say_error("spec.\x1b[2Jfoo: no such field\nlog: …\x9b31m")
    assert capsys.readouterr().err == "error: spec.\ufffd[2Jfoo: no such field\nlog: …\ufffd31m\n"
