"""Conversations in a terminal and over a pipe."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from typing import Any

import pytest

from paracle_client.cli import chat
from paracle_client.cli.target import console
from paracle_domain.errors import ErrorInfo
from paracle_domain.ids import new_id
from paracle_domain.inference.chat import ChatMessage
from paracle_domain.inference.deltas import Delta, TextDelta
from paracle_domain.registry import SpecView
from paracle_domain.run.commands import RunAccepted, RunStatus
from paracle_domain.task.output import TaskOutput
from paracle_domain.task.sessions import SessionSummary, SessionTurn, SessionView

TASK = "task_01JDAAAAAAAAAAAAAAAAAAAAAA"


@pytest.fixture
def helper(api: Any, make: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An agent that says `Hello!`, whose runs all have the same id."""

    def known(kind: Any) -> str:
        return make.RUN if kind == "run" else new_id(kind)

    monkeypatch.setattr(chat, "new_id", known)
    about = {"kind": "Agent", "name": "helper", "revision": 1, "manifest": {}, "digest": "d", "author": "me"}
    api.on("GET /v1/agents/helper", SpecView(**about, created_at=make.START))
    api.on("POST /v1/agents/helper/runs", RunAccepted(run_id=make.RUN, status=RunStatus.QUEUED))
    api.on(f"GET /v1/runs/{make.RUN}", *(turn_of(make) for _ in range(2)))
    api.on(f"GET /v1/runs/{make.RUN}/events", make.stream(*make.whole_run()[:1], *make.whole_run()[3:]))
    delta = Delta(call_id="a", seq=0, change=TextDelta(text="Hello!"))
    said = [TaskOutput(seq=1, delta=delta), TaskOutput(seq=1, ended=True)]
    stream = b"".join(b"data: " + one.encode() + b"\n\n" for one in said)
    api.on(f"GET /v1/tasks/{TASK}/output", make.Reply(200, stream, "text/event-stream"))
    return api


def turn_of(make: Any, **more: Any) -> Any:
    return make.view(**{"input": {"text": "Hi"}, "output": "Hello!", "last_seq": 7, **more})


def inputs(api: Any) -> list[Any]:
    return [one.json["input"] for one in api.asked if one.path.endswith("helper/runs")]


def type_in(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))


def test_each_line_of_a_pipe_is_a_turn_of_one_session(
    paracle: Callable[..., Any], helper: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    type_in(monkeypatch, "Hi", "", "  And you? ", "/exit", "never")
    result = paracle("chat", "helper")
    assert (result.code, result.out) == (0, "Hello!\nHello!\n")
    assert [one["text"] for one in inputs(helper)] == ["Hi", "And you?"]
    assert inputs(helper)[0]["session"] == inputs(helper)[1]["session"]
    labels = [one.json["labels"] for one in helper.asked if one.path.endswith("helper/runs")]
    assert labels[0] == labels[1] == {"session": inputs(helper)[0]["session"]}
    assert f"paracle chat helper --session {labels[0]['session']}" in result.err


def test_a_session_goes_on(paracle: Callable[..., Any], helper: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    session = new_id("ses")
    type_in(monkeypatch, "And you?")
    result = paracle("chat", "helper", "--session", session)
    assert result.code == 0
    assert inputs(helper) == [{"text": "And you?", "session": session}]


def test_an_agent_that_is_not_there_is_told_before_anything_is_said(
    paracle: Callable[..., Any], api: Any, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.on("GET /v1/agents/helpr", make.problem("not_found", 404, "there is no agent 'helpr'"))
    type_in(monkeypatch)
    result = paracle("chat", "helpr")
    assert (result.code, result.err) == (1, "error: there is no agent 'helpr'\n")


def test_a_session_that_is_none(paracle: Callable[..., Any], helper: Any) -> None:
    result = paracle("chat", "helper", "--session", "mine")
    assert result.code == 1
    assert "is no id of a session" in result.err
    assert inputs(helper) == []


def test_a_turn_that_failed_shows_in_the_exit_code(
    paracle: Callable[..., Any], helper: Any, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = ErrorInfo(code="provider_failed", message="no key")
    failed = turn_of(make, status=RunStatus.FAILED, output=None, error=error)
    helper.on(f"GET /v1/runs/{make.RUN}", failed, failed, turn_of(make))
    type_in(monkeypatch, "Hi", "Again")
    result = paracle("chat", "helper")
    assert result.code == 1
    assert "the turn is failed: provider_failed: no key" in result.err
    assert [one["text"] for one in inputs(helper)] == ["Hi", "Again"]


@pytest.mark.parametrize("begun", [True, False])
def test_an_interrupt_cancels_the_turn_and_the_talk_goes_on(
    paracle: Callable[..., Any], helper: Any, make: Any, monkeypatch: pytest.MonkeyPatch, *, begun: bool
) -> None:
    speaks = iter([KeyboardInterrupt(), turn_of(make)])

    def speak(*_: Any) -> Any:
        if isinstance(found := next(speaks), BaseException):
            raise found
        return found

    monkeypatch.setattr(chat, "speak", speak)
    if begun:
        helper.on(f"POST /v1/runs/{make.RUN}/cancel", RunAccepted(run_id=make.RUN, status=RunStatus.CANCELLING))
    monkeypatch.setattr(sys, "stdin", make.Terminal("Hi\nAgain\n"))
    result = paracle("chat", "helper")
    assert result.code == 0
    assert ("cancelled before it began" in result.err) is not begun
    assert any(one.path == f"/v1/runs/{make.RUN}/cancel" for one in helper.asked)
    assert [one["text"] for one in inputs(helper)] == ["Hi", "Again"]
    assert result.out.endswith("Hello!\n")


def test_an_interrupt_between_turns_says_how_to_leave(
    paracle: Callable[..., Any], helper: Any, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed = iter([KeyboardInterrupt(), "/exit"])

    def type_something(*_: Any, **__: Any) -> str:
        if isinstance(found := next(typed), BaseException):
            raise found
        return str(found)

    monkeypatch.setattr("builtins.input", type_something)
    monkeypatch.setattr(sys, "stdin", make.Terminal(""))
    result = paracle("chat", "helper")
    assert result.code == 0
    assert "/exit leaves" in result.err
    assert inputs(helper) == []


def summed(make: Any, turns: int) -> SessionSummary:
    return SessionSummary(session_id=new_id("ses"), turns=turns, open=0, created_at=make.START, asked_at=make.START)


def view_of(make: Any, *numbers: int, next_after: int | None = None) -> SessionView:
    given = {"run_id": make.RUN, "task_id": "t", "asked_at": make.START, "ended_at": make.START}
    turns = tuple(SessionTurn(turn=n, messages=(ChatMessage.user(f"q{n}"),), **given) for n in numbers)
    return SessionView(session=summed(make, 3), turns=turns, next_after=next_after)


def test_commands_are_no_turns(
    paracle: Callable[..., Any], helper: Any, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed = ["/help", "/nope", "/history", "Hi", "/new", "/etc/hosts, what is it?", "/exit"]
    monkeypatch.setattr(sys, "stdin", make.Terminal("".join(f"{line}\n" for line in typed)))
    result = paracle("chat", "helper")
    assert [one["text"] for one in inputs(helper)] == ["Hi", "/etc/hosts, what is it?"]
    assert inputs(helper)[0]["session"] != inputs(helper)[1]["session"]
    for told in ("/history  what was said", "there is no /nope", "nothing was said", "a new session: ses_"):
        assert told in result.err


def test_an_earlier_session_is_recalled(
    paracle: Callable[..., Any], helper: Any, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = new_id("ses")
    views = [
        view_of(make, 1, 2, 3),
        view_of(make, 2, 3),
        view_of(make),
        view_of(make, 1, next_after=1),
        view_of(make, 2),
    ]
    helper.on(f"GET /v1/sessions/{session}", *views)
    monkeypatch.setattr(sys, "stdin", make.Terminal("/history\n/exit\n"))
    result = paracle("chat", "helper", "--session", session)
    recalled, all_of_it = result.err.split("> ", 1)
    assert "1 earlier turn; /history" in recalled
    assert [line for line in recalled.splitlines() if line.startswith("user")] == ["user: q2", "user: q3"]
    assert [line for line in all_of_it.splitlines() if line.startswith("user")] == ["user: q1", "user: q2"]
    asked = [one.query["after"] for one in helper.asked if one.path.endswith(session)]
    assert asked == ["0", "1", "0", "0", "1"]


def test_lines_are_edited_where_all_of_the_terminal_is_a_persons(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda prompt: f"typed after {prompt}")
    assert chat.ask(console(aside=True)) == "typed after > "
