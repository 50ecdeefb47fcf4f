"""`paracle sessions`."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from paracle_domain.ids import new_id
from paracle_domain.inference.chat import ChatMessage, ToolCallPart
from paracle_domain.messages import Done
from paracle_domain.task.past import Recap
from paracle_domain.task.sessions import SessionPage, SessionSummary, SessionTurn, SessionView

SESSION = new_id("ses")


@pytest.fixture
def summary(make: Any) -> SessionSummary:
    return SessionSummary(session_id=SESSION, turns=3, open=1, created_at=make.START, asked_at=make.START)


@pytest.mark.parametrize("ls", [(), ("ls",)])
def test_a_list(paracle: Callable[..., Any], api: Any, summary: SessionSummary, ls: tuple[str, ...]) -> None:
    api.on("GET /v1/sessions", SessionPage(sessions=(summary,), next_cursor=SESSION))
    shown = paracle("sessions", *ls).out.splitlines()
    assert shown[1].split()[:3] == [SESSION, "3", "1"]
    assert shown[-1] == f"more: --cursor {SESSION}"
    assert json.loads(paracle("sessions", *ls, "-o", "json").out)["next_cursor"] == SESSION


def test_none(paracle: Callable[..., Any], api: Any) -> None:
    api.on("GET /v1/sessions", SessionPage(sessions=()))
    assert "paracle chat AGENT" in paracle("sessions").out


def test_what_was_said(paracle: Callable[..., Any], api: Any, make: Any, summary: SessionSummary) -> None:
    call = ChatMessage.assistant("", ToolCallPart(id="1", name="search", arguments={}))
    said = (ChatMessage.user("Hi\x1b[2J"), call, ChatMessage.assistant("Hello\n you"))
    given = {"run_id": make.RUN, "task_id": "t", "asked_at": make.START}
    turns = (
        SessionTurn(turn=1, ended_at=make.START, messages=said, **given),
        SessionTurn(turn=2, ended_at=make.START, **given),
        SessionTurn(turn=3, **given),
    )
    api.on(f"GET /v1/sessions/{SESSION}", SessionView(session=summary, turns=turns, next_after=3))
    assert paracle("sessions", "show", SESSION).out.splitlines() == [
        f"── 1  {make.RUN}",
        "user: Hi\N{REPLACEMENT CHARACTER}[2J",
        "assistant calls search",
        "assistant: Hello",
        " you",
        f"── 2  {make.RUN}",
        "(nothing was kept: it did not complete)",
        f"── 3  {make.RUN}",
        "(open)",
        "more: --after 3",
    ]
    assert len(json.loads(paracle("sessions", "show", SESSION, "--after", "1", "-o", "json").out)["turns"]) == 3
    assert api.asked[-1].query["after"] == "1"


def test_what_was_summed_up(paracle: Callable[..., Any], api: Any, make: Any, summary: SessionSummary) -> None:
    given = {"run_id": make.RUN, "task_id": "t", "asked_at": make.START, "ended_at": make.START}
    turns = [SessionTurn(turn=n, messages=(ChatMessage.user(f"q{n}"),), **given) for n in (1, 2, 3)]
    recap = Recap(summary="They greeted.\x1b[2J", turn=3, made_in=3, made_at=make.START, model="openai/mini")
    views = [SessionView(session=summary, recap=recap, turns=tuple(turns[n:])) for n in (0, 2, 0, 0)]
    api.on(f"GET /v1/sessions/{SESSION}", *views)
    assert paracle("sessions", "show", SESSION).out.splitlines() == [
        "── 1-2  summed up by openai/mini (--full shows what was said)",
        "They greeted.\N{REPLACEMENT CHARACTER}[2J",
        f"── 3  {make.RUN}",
        "user: q3",
    ]
    assert api.asked[-1].query["after"] == "2"
    assert "user: q1" in paracle("sessions", "show", SESSION, "--full").out
    shown = json.loads(paracle("sessions", "show", SESSION, "-o", "json").out)
    assert (len(shown["turns"]), shown["recap"]["turn"]) == (3, 3)


def test_forgetting(paracle: Callable[..., Any], api: Any, make: Any) -> None:
    api.on(f"DELETE /v1/sessions/{SESSION}", Done(), make.problem("conflict", 409, "a turn is open"))
    assert paracle("sessions", "rm", SESSION).code == 0
    again = paracle("sessions", "rm", SESSION)
    assert (again.code, "a turn is open" in again.err) == (1, True)
