"""An answer in the terminal while it is made: said once, and whole."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console

from paracle_client.cli import run_commands
from paracle_client.cli.speaking import Doorbell, Voice
from paracle_client.cli.target import console
from paracle_client.plain import safe
from paracle_client.speech import Speech
from paracle_domain.errors import ProviderUnavailable
from paracle_domain.inference.deltas import Change, Delta, ReasoningDelta, TextDelta, ToolCallDelta
from paracle_domain.inference.retrying import Retried, Retrying
from paracle_domain.run.commands import RunAccepted, RunStatus
from paracle_domain.task.output import BudgetProgress, SummaryProgress, TaskOutput, ToolProgress

TASK = "task_01JDAAAAAAAAAAAAAAAAAAAAAA"


def said(seq: int, change: Change, *, call: str = "a", attempt: int = 1, gap: bool = False) -> TaskOutput:
    return TaskOutput(seq=seq, delta=Delta(call_id=call, attempt=attempt, seq=seq, change=change), gap=gap)


def progress(stage: Any, **more: Any) -> TaskOutput:
    return TaskOutput(seq=5, tool=ToolProgress(call_id="c", tool="search", stage=stage, **more))


def test_words_are_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    voice = Voice(console(aside=True))
    for number, text in enumerate(["Hel", "lo\n", "you\x1b[2J"]):
        voice.hear(said(number, TextDelta(text=text)))
    voice.conclude("Hello\nyou\x1b[2J")
    assert capsys.readouterr().out == "Hello\nyou\N{REPLACEMENT CHARACTER}[2J\n"


@pytest.mark.parametrize(
    "heard",
    [
        [],
        [said(3, TextDelta(text="lo"), gap=True)],
        [said(0, TextDelta(text="Hello")), said(2, TextDelta(text=""), gap=True)],
        [said(0, ReasoningDelta(text="hm")), said(1, ToolCallDelta(id="x", name="search"))],
    ],
)
def test_what_was_not_said_whole_is_printed_whole(heard: list[TaskOutput], capsys: pytest.CaptureFixture[str]) -> None:
    voice = Voice(console(aside=True))
    for output in heard:
        voice.hear(output)
    voice.conclude("Hello")
    assert capsys.readouterr().out.splitlines()[-1] == "Hello"


def test_an_answer_in_json_is_said_once_too(capsys: pytest.CaptureFixture[str]) -> None:
    voice = Voice(console(aside=True))
    voice.hear(said(0, TextDelta(text='{"a": 1}')))
    voice.conclude({"a": 1})
    assert capsys.readouterr().out == '{"a": 1}\n'
    voice.hear(said(0, TextDelta(text='{"a": 1'), call="b"))
    voice.conclude({"a": 1})
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_a_reply_that_broke_off_begins_anew(capsys: pytest.CaptureFixture[str]) -> None:
    voice = Voice(console(aside=True))
    voice.hear(said(0, TextDelta(text="Wron")))
    voice.hear(said(0, TextDelta(text="Right"), attempt=2))
    voice.conclude("Right")
    heard = capsys.readouterr()
    assert heard.out == "Wron\nRight\n"
    assert "begins anew" in heard.err


def test_tools_are_told_beside_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    voice = Voice(console(aside=True))
    voice.hear(said(0, TextDelta(text="I look.")))
    voice.hear(progress("started"))
    voice.hear(progress("ended", duration_s=1.26))
    voice.hear(progress("ended", duration_s=0.1, error="tool_failed"))
    voice.hear(said(0, TextDelta(text="Found."), call="b"))
    voice.conclude("Found.")
    heard = capsys.readouterr()
    assert heard.out == "I look.\nFound.\n"
    assert heard.err.splitlines() == ["· search…", "· search 1.3s done", "· search 0.1s tool_failed"]


def test_a_call_that_waits_for_people_says_how_to_decide(capsys: pytest.CaptureFixture[str]) -> None:
    voice = Voice(console(aside=True))
    voice.hear(progress("held", approval_id="apr_1"))
    assert capsys.readouterr().err == "· search waits until people decide: paracle approvals show apr_1\n"


def test_thoughts_and_words_are_on_lines_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    aside = Console(stderr=True, force_terminal=True, color_system=None)
    voice = Voice(aside)
    changes: list[Change] = [ReasoningDelta(text="Hm"), ReasoningDelta(text="."), TextDelta(text="Yes.")]
    for number, change in enumerate(changes):
        voice.hear(said(number, change))
    voice.hear(said(0, ReasoningDelta(text="Well."), call="b"))
    voice.hear(progress("started"))
    voice.conclude(None)
    heard = capsys.readouterr()
    assert (heard.out, heard.err) == ("Yes.\n", "Hm.\nWell.\n· search…\n")


def test_summing_up_is_told_beside_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    voice = Voice(console(aside=True))
    for error in (None, "rate_limited"):
        for stage in ("started", "ended"):
            voice.hear(TaskOutput(seq=1, summary=SummaryProgress(call_id="c", stage=stage, error=error)))
    heard = capsys.readouterr()
    started = "· the conversation is long: summing up its beginning…"
    assert heard.err.splitlines() == [started, started, "· summing up failed (rate_limited); nothing is left out"]


def test_budgets_that_wait_for_people_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    held, ended = (TaskOutput(seq=1, budget=budget(stage)) for stage in ("held", "ended"))
    voice, bell, speech = Voice(console(aside=True)), Doorbell(console(aside=True)), Speech()
    for output in (held, ended):
        voice.hear(output)
        bell.hear(output)
    waits = "· budget team is used up, unless people raise it: paracle approvals show apr_1"
    decided = "· budget team: it was decided"
    assert capsys.readouterr().err.splitlines() == [waits, waits, decided]
    assert [line for output in (held, ended) for line in speech.hear(output)] == [waits, decided]


AT = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)


def retrying(why: str, tried: int = 1, agent: str | None = None) -> TaskOutput:
    error = ProviderUnavailable(why).to_info()
    return TaskOutput(seq=1, retrying=Retrying(call_id="c", error=error, tried=tried, at=AT, agent=agent))


def retried(agent: str, error: str | None = None) -> TaskOutput:
    return TaskOutput(seq=1, retried=Retried(call_id="c", agent=agent, error=error))


def test_a_model_that_does_not_answer_is_told_once_for_each_reason(capsys: pytest.CaptureFixture[str]) -> None:
    heard = [
        *(retrying(f"re\x1bfused after {number}.5 s, req_{number}") for number in range(3)),
        retrying("left in peace", tried=0),
        retrying("re\x1bfused after 3.5 s, req_9"),
        said(0, TextDelta(text="Hello")),
        retrying("left in peace", tried=0),
        progress("ended"),
    ]
    voice, bell, speech = Voice(console(aside=True)), Doorbell(console(aside=True)), Speech()
    at = f"{AT.astimezone():%H:%M:%S}"
    why = "provider_unavailable: re\ufffdfused after 0.5 s, req_0"
    first = f"· the model call failed, and is tried again from {at} on: {why}"
    then = f"· the reply has to wait, till {at} at least: provider_unavailable: left in peace"
    answers = "· the model answers, after 5 waits"
    for output in heard:
        voice.hear(output)
    assert unfolded(capsys.readouterr().err) == unfolded(f"{first} {then} {answers} {then} · search done")
    for output in heard:
        bell.hear(output)
    assert unfolded(capsys.readouterr().err) == unfolded(f"{first} {then} {answers} {then}")
    lines = [safe(line) for output in heard for line in speech.hear(output)]
    assert lines == [first, then, answers, "Hello", then, "· search done"]


def test_models_of_agents_that_it_turned_to_are_told_by_name() -> None:
    speech, at = Speech(), f"{AT.astimezone():%H:%M:%S}"
    heard = [
        retrying("down", agent="poet"),
        retrying("down", agent="poet"),
        retrying("down", agent="critic"),
        progress("ended"),
        retried("editor"),
        retried("poet"),
        retried("critic", "provider_failed"),
    ]
    failed = f"the model call failed, and is tried again from {at} on: provider_unavailable: down"
    assert [line for output in heard for line in speech.hear(output)] == [
        f"· poet: {failed}",
        f"· critic: {failed}",
        "· search done",
        "· poet: the model answers, after 2 waits",
    ]


def unfolded(text: str) -> list[str]:
    return text.split()


def budget(stage: Any) -> BudgetProgress:
    return BudgetProgress(approval_id="apr_1", budget="team", stage=stage)


def answer_of(make: Any, api: Any) -> None:
    api.on("POST /v1/agents/helper/runs", RunAccepted(run_id=make.RUN, status=RunStatus.QUEUED))
    api.on(f"GET /v1/runs/{make.RUN}", make.view(RunStatus.RUNNING), make.view(output="Hello!", last_seq=6))
    api.on(f"GET /v1/runs/{make.RUN}/events", make.stream(*make.whole_run()[:1], *make.whole_run()[3:]))
    api.on(f"GET /v1/runs/{make.RUN}/usage", make.problem("not_found", 404, "none"))
    words = [said(1, TextDelta(text="Hel")), said(2, TextDelta(text="lo!")), TaskOutput(seq=2, ended=True)]
    stream = b"".join(b"data: " + one.encode() + b"\n\n" for one in words)
    api.on(f"GET /v1/tasks/{TASK}/output", make.Reply(200, stream, "text/event-stream"))


def test_invoke_says_the_answer_while_it_is_made(
    paracle: Callable[..., Any], api: Any, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer_of(make, api)
    monkeypatch.setattr(run_commands, "settled_usage", lambda *_: None)
    monkeypatch.setattr(run_commands, "sandbox_answered", lambda _: False)
    result = paracle("invoke", "helper", "Hi", "--watch")
    assert (result.code, result.out) == (0, "Hello!\n")


def test_interrupting_what_is_said_says_how_to_come_back(
    paracle: Callable[..., Any], api: Any, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    answer_of(make, api)
    monkeypatch.setattr(run_commands, "speak", interrupt)
    result = paracle("invoke", "helper", "Hi", "--watch")
    assert result.code == 130
    assert f"paracle cancel {make.RUN}" in result.err


@pytest.mark.parametrize("person", [True, False])
def test_whoever_waits_for_an_answer_is_told_that_people_are_to_decide(
    paracle: Callable[..., Any], api: Any, make: Any, monkeypatch: pytest.MonkeyPatch, *, person: bool
) -> None:
    answer_of(make, api)
    told = [said(1, TextDelta(text="Hel")), progress("held", approval_id="apr_1"), TaskOutput(seq=5, ended=True)]
    stream = b"".join(b"data: " + one.encode() + b"\n\n" for one in told)
    api.on(f"GET /v1/tasks/{TASK}/output", make.Reply(200, stream, "text/event-stream"))
    monkeypatch.setattr(run_commands, "settled_usage", lambda *_: None)
    monkeypatch.setattr(run_commands, "sandbox_answered", lambda _: False)
    screen = Console(stderr=True, force_terminal=person, color_system=None, highlight=False)
    monkeypatch.setattr(run_commands, "console", lambda *, aside=False: screen if aside else console())
    result = paracle("invoke", "helper", "Hi")
    assert (result.code, result.out) == (0, "Hello!\n")
    assert ("search waits until people decide: paracle approvals show apr_1" in result.err) is person
