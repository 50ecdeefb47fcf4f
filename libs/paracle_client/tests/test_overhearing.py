"""What agents of a run say, shown while they say it: as lines, and on a terminal as a tail below the steps."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from rich.console import Console

from paracle_chassis.testing.eventually import eventually
from paracle_client import AsyncClient
from paracle_client.cli import overhearing
from paracle_client.display import render, shown
from paracle_client.live import begin
from paracle_client.speech import Speech
from paracle_domain.inference.deltas import Change, Delta, EndDelta, ReasoningDelta, TextDelta, ToolCallDelta
from paracle_domain.run.commands import RunAccepted, RunStatus
from paracle_domain.task.output import BudgetProgress, TaskOutput, ToolProgress

TASK = "task_01JDAAAAAAAAAAAAAAAAAAAAAA"
OUTPUT = f"GET /v1/tasks/{TASK}/output"


def said(seq: int, change: Change, *, call: str = "a", attempt: int = 1, gap: bool = False) -> TaskOutput:
    return TaskOutput(seq=seq, delta=Delta(call_id=call, attempt=attempt, seq=seq, change=change), gap=gap)


def words(text: str, **more: Any) -> TaskOutput:
    return said(1, TextDelta(text=text), **more)


def lines(*outputs: TaskOutput) -> list[str]:
    speech = Speech()
    return [line for output in outputs for line in speech.hear(output)] + [*speech.end()]


def test_words_become_lines() -> None:
    assert lines(words("Hel"), words("lo\n\nyou"), words(" two"), said(3, EndDelta(finish_reason="stop"))) == [
        "Hello",
        "you two",
    ]
    assert lines(said(0, ReasoningDelta(text="hm")), said(1, ToolCallDelta(name="x")), words(", yes")) == ["hm, yes"]
    assert lines(words(" \n"), TaskOutput(seq=3, ended=True)) == []


def test_tools_gaps_and_replies_that_begin_anew_end_a_line() -> None:
    tool = ToolProgress(call_id="c", tool="search", stage="ended", duration_s=1.26)
    assert lines(words("I look"), TaskOutput(seq=2, tool=tool), words("Fou", call="b"), words("nd", gap=True)) == [
        "I look",
        "· search 1.3s done",
        "Fou",
        "· something is missing here",
        "nd",
    ]
    assert lines(words("Wron"), words("Right", attempt=2), words("Next", call="b")) == [
        "Wron",
        "· the reply broke off and begins anew",
        "Right",
        "Next",
    ]


def test_the_end_of_what_is_said_stands_below_the_steps(make: Any) -> None:
    out = io.StringIO()
    console = Console(file=out, width=60, height=30, color_system=None, force_terminal=True)
    with shown(begin(make.view()), console) as screen:
        screen.hear("report", words(f"{'x' * 90}\x1b the end"))
        screen.hear("sort", words("first\nsecond\n"))
        drawn = capture(screen, console, make)
        assert any(line.startswith("  report │ …xxx") and line.endswith("\ufffd the end") for line in drawn)
        assert "  sort │ second" in drawn
        assert max(map(len, drawn)) <= 60
        screen.hush("report")
        screen.hush("nobody")
        assert not [line for line in capture(screen, console, make) if "report │" in line]


def capture(screen: Any, console: Console, make: Any, width: int = 60) -> list[str]:
    wide = Console(file=io.StringIO(), width=width, height=30, color_system=None)
    with wide.capture() as taken:
        wide.print(render(screen.view, make.START + timedelta(seconds=1), console, screen._said))
    return [line.rstrip() for line in taken.get().splitlines()]


def answered(make: Any, api: Any, *outputs: TaskOutput) -> None:
    api.on("POST /v1/workflows/triage/runs", RunAccepted(run_id=make.RUN, status=RunStatus.QUEUED))
    api.on(
        f"GET /v1/runs/{make.RUN}",
        make.view(RunStatus.RUNNING),
        make.view(RunStatus.RUNNING),
        make.view(output="All well", last_seq=6),
    )
    api.on(f"GET /v1/runs/{make.RUN}/events", make.stream(*make.whole_run()))
    stream = b"".join(b"data: " + one.encode() + b"\n\n" for one in outputs)
    api.on(OUTPUT, make.Reply(200, stream, "text/event-stream"))


def test_run_watch_shows_what_agents_say(paracle: Callable[..., Any], api: Any, make: Any) -> None:
    answered(make, api, words("All is\x1b"), words(" well"), TaskOutput(seq=2, ended=True))
    result = paracle("run", "triage", "--watch")
    assert result.code == 0
    told = [line[9:] for line in result.out.splitlines()]
    assert told[3:6] == [
        "report           pending → running writer",
        "report           │ All is\ufffd well",
        "report           running → completed 1.0s 1,234 tok $0.0012",
    ]
    assert result.out.splitlines()[-1] == "All well"
    assert [one.path for one in api.asked].count(f"/v1/tasks/{TASK}/output") == 1  # the tool says nothing
    assert "\x1b" not in result.out


def test_no_tokens_shows_the_steps_alone(paracle: Callable[..., Any], api: Any, make: Any) -> None:
    answered(make, api, words("psst"), TaskOutput(seq=2, ended=True))
    result = paracle("run", "triage", "--watch", "--no-tokens")
    assert (result.code, "psst" in result.out) == (0, False)
    assert not [one for one in api.asked if one.path.startswith("/v1/tasks/")]


def test_with_json_they_speak_beside_it(paracle: Callable[..., Any], api: Any, make: Any) -> None:
    answered(make, api, words("psst"), TaskOutput(seq=2, ended=True))
    result = paracle("run", "triage", "--watch", "-o", "json")
    assert result.out.startswith("{")
    assert "report           │ psst" in result.err


def test_an_agent_that_cannot_be_heard_does_not_stop_the_showing(
    paracle: Callable[..., Any], api: Any, make: Any
) -> None:
    answered(make, api)
    api.on(OUTPUT, make.problem("forbidden", 403, "not for you"))
    result = paracle("run", "triage", "--watch")
    assert result.code == 0
    assert "report           cannot be heard: not for you" in result.out


def test_a_tool_that_is_at_work_for_long_says_that_it_waits_for_people(
    api: Any, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overhearing, "_LONG_S", 0.0)
    held = TaskOutput(seq=1, tool=ToolProgress(call_id="c", tool="sorter", stage="held", approval_id="apr_1"))
    answered(make, api, held, TaskOutput(seq=1, ended=True))
    _, started, completed, *_ = make.whole_run()
    out = io.StringIO()

    async def watched() -> None:
        async with AsyncClient(api.url) as client:
            with shown(begin(make.view()), Console(file=out, width=200)) as screen:
                ears = overhearing._Ears(client, screen)
                ears.listen(started)
                await eventually(
                    lambda: "sorter waits until people decide: paracle approvals show apr_1" in out.getvalue()
                )
                await ears.hear_out(completed)
                await ears.close()

    asyncio.run(watched())
    assert out.getvalue().startswith(" " * 9 + "sort ")


CHILD, GRANDCHILD = (f"run_01JD{letter * 22}" for letter in "BC")


def started(make: Any, seq: int, step: str, kind: str, **more: Any) -> Any:
    return make.record(seq, "step.started", step=step, attempt=1, target_kind=kind, target="t", **more)


def question(make: Any, seq: int, kind: str, **more: Any) -> Any:
    return make.record(seq, f"approval.{kind}", step="ok", approval_id="apr_2", digest="d", **more)


def test_a_child_run_that_waits_for_people_says_so_at_any_depth(
    api: Any, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overhearing, "_LONG_S", 0.0)
    held = TaskOutput(seq=2, tool=ToolProgress(call_id="c", tool="pay", stage="held", approval_id="apr_1"))
    short = TaskOutput(seq=3, budget=BudgetProgress(approval_id="apr_3", budget="team", stage="held"))
    answered(make, api, words("psst"), held, short, TaskOutput(seq=4, ended=True))
    asked = question(make, 1, "asked", ask="Refund 7?")
    decided = question(make, 2, "decided", decision="approve", principal="ann")
    below = started(make, 1, "deeper", "workflow", child_run_id=GRANDCHILD)
    api.on(f"GET /v1/runs/{CHILD}", make.problem("not_found", 404, "not yet"), make.view(RunStatus.RUNNING))
    api.on(f"GET /v1/runs/{GRANDCHILD}", make.view(RunStatus.RUNNING))
    api.on(f"GET /v1/runs/{CHILD}/events", make.stream(below, started(make, 2, "agent", "agent", task_id=TASK)))
    api.on(f"GET /v1/runs/{GRANDCHILD}/events", make.stream(asked, decided))
    out = io.StringIO()
    said = (
        "refund/agent     │ · pay waits until people decide: paracle approvals show apr_1",
        "refund/agent     │ · budget team is used up, unless people raise it: paracle approvals show apr_3",
        "refund/deeper/ok │ · Refund 7? (paracle approvals show apr_2)",
    )

    async def watched() -> None:
        async with AsyncClient(api.url) as client:
            with shown(begin(make.view()), Console(file=out, width=200)) as screen:
                ears = overhearing._Ears(client, screen)
                ears.listen(started(make, 1, "refund", "workflow", child_run_id=CHILD))
                await eventually(lambda: all(line in out.getvalue() for line in said))
                await ears.close()

    asyncio.run(watched())
    assert "psst" not in out.getvalue()


def test_a_question_stands_below_the_steps_until_it_is_answered(make: Any) -> None:
    console = Console(file=io.StringIO(), width=90, height=30, color_system=None, force_terminal=True)
    with shown(begin(make.view()), console) as screen:
        ears = overhearing._Ears(AsyncClient("http://localhost"), screen, None, "refund/")
        ears.hear_question(question(make, 1, "asked", ask="Refund 7?"))
        assert "  refund/ok │ · Refund 7? (paracle approvals show apr_2)" in capture(screen, console, make, 90)
        ears.hear_question(question(make, 2, "decided", decision="approve", principal="ann"))
        assert not [line for line in capture(screen, console, make) if "refund/ok" in line]


def test_a_child_run_that_cannot_be_heard_does_not_stop_the_showing(
    api: Any, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overhearing, "_LONG_S", 0.0)
    api.on(f"GET /v1/runs/{CHILD}", make.problem("forbidden", 403, "not for you"))
    out = io.StringIO()

    async def watched() -> None:
        async with AsyncClient(api.url) as client:
            with shown(begin(make.view()), Console(file=out, width=200)) as screen:
                ears = overhearing._Ears(client, screen)
                ears.listen(started(make, 1, "refund", "workflow", child_run_id=CHILD))
                await eventually(lambda: "refund           cannot be heard: not for you" in out.getvalue())
                await ears.close()

    asyncio.run(watched())


def test_only_so_many_are_heard_at_once(
    paracle: Callable[..., Any], api: Any, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overhearing, "MOST", 0)
    answered(make, api, words("psst"), TaskOutput(seq=2, ended=True))
    result = paracle("run", "triage", "--watch")
    assert "1 agent could not be heard: at most 0 are at once" in result.out


def test_a_reader_that_still_waits_is_stopped(make: Any, api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overhearing, "_PATIENCE_S", 0.0)
    answered(make, api)
    api.on(OUTPUT, make.Reply(200, b"", "text/event-stream", wait_s=60))
    out = io.StringIO()
    ended = asyncio.run(overhearing._follow(AsyncClient(api.url), make.RUN, Console(file=out, width=200)))
    assert ended.run.status.terminal


def test_interrupting_says_how_to_come_back(
    paracle: Callable[..., Any], api: Any, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    answered(make, api)
    monkeypatch.setattr(overhearing, "_follow", interrupt)
    result = paracle("run", "triage", "--watch")
    assert result.code == 130
    assert f"paracle cancel {make.RUN}" in result.err
