"""Conversations as they are kept: what can be asked of them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import Field, StringConstraints

from paracle_domain.ids import RunId
from paracle_domain.inference.chat import ChatMessage
from paracle_domain.messages import HIGHEST, Done, Message, Request, Value
from paracle_domain.task.past import Recap

SessionId = Annotated[str, StringConstraints(pattern=r"^ses_[0-7][0-9A-HJKMNP-TV-Z]{25}$")]


class SessionSummary(Value):
    """One conversation. `turns` counts those that were asked; `open` are under way or wait."""

    session_id: SessionId
    turns: int
    open: int
    created_at: datetime
    asked_at: datetime = Field(description="when its last turn came")


class SessionTurn(Value):
    """One turn: its task, and the messages that it added; none, if it is open, failed or was cancelled."""

    turn: int
    task_id: str
    run_id: str
    asked_at: datetime
    ended_at: datetime | None = None
    messages: tuple[ChatMessage, ...] = ()


class SessionPage(Message, type_name="session.page"):
    """Sessions, newest first; `next_cursor` asks for the page after it."""

    sessions: tuple[SessionSummary, ...]
    next_cursor: str | None = None


class SessionView(Message, type_name="session.view"):
    """One conversation with a page of its turns in order; `next_after` asks for those that follow.

    `recap` is the summary that models are told now instead of what was said first. All of that is kept as it was said.
    """

    session: SessionSummary
    recap: Recap | None = None
    turns: tuple[SessionTurn, ...]
    next_after: int | None = None


class ListSessions(
    Request[SessionPage], service="agent_runtime", method="list_sessions", answer=SessionPage, query=True
):
    """Sessions of the tenant, newest first."""

    limit: int = Field(default=50, ge=1, le=500)
    cursor: SessionId | None = None


class GetSession(Request[SessionView], service="agent_runtime", method="get_session", answer=SessionView, query=True):
    """A session with its turns after number `after`. Errors: `NotFound`."""

    session_id: SessionId
    after: int = Field(default=0, ge=0, le=HIGHEST)
    limit: int = Field(default=100, ge=1, le=1_000)


class DeleteSession(Request[Done], service="agent_runtime", method="delete_session", answer=Done):
    """Forget a session with all that was said in it. Errors: `NotFound`; `Conflict` while a turn is open."""

    session_id: SessionId


class TurnsBefore(Message, type_name="session.turns_before"):
    """Runs that are turns of a session, in order."""

    run_ids: tuple[RunId, ...]


class ListTurnsBefore(
    Request[TurnsBefore], service="orchestrator", method="list_turns_before", answer=TurnsBefore, query=True
):
    """Runs of the session of run `run_id` that were accepted before it and have not ended; for the agent runtime.

    Not those that wait for a slot: they may wait for its own.
    Only runs of single agents are turns of sessions as a whole. Of any other run, there are none. `last`: at most so
    many, those that were accepted last.
    """

    run_id: RunId
    last: int | None = Field(default=None, ge=1)
