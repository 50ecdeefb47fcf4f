"""Conversations over REST."""

from datetime import UTC, datetime

import pytest

from paracle_domain.errors import Conflict, NotFound
from paracle_domain.ids import new_id
from paracle_domain.inference.chat import ChatMessage
from paracle_domain.messages import Done
from paracle_domain.task.sessions import (
    DeleteSession,
    GetSession,
    ListSessions,
    SessionPage,
    SessionSummary,
    SessionTurn,
    SessionView,
)

SESSION = new_id("ses")
AT = datetime(2026, 1, 2, tzinfo=UTC)
SUMMARY = SessionSummary(session_id=SESSION, turns=1, open=0, created_at=AT, asked_at=AT)
TURN = SessionTurn(turn=1, task_id="t", run_id="r", asked_at=AT, ended_at=AT, messages=(ChatMessage.user("Hi"),))


async def test_sessions_are_listed_shown_and_forgotten(client, world):
    world.bus.answers[ListSessions] = SessionPage(sessions=(SUMMARY,), next_cursor=SESSION)
    world.bus.answers[GetSession] = SessionView(session=SUMMARY, turns=(TURN,))
    world.bus.answers[DeleteSession] = Done()
    page = (await client.get(f"/v1/sessions?limit=1&cursor={SESSION}")).json()
    assert (page["next_cursor"], page["sessions"][0]["turns"]) == (SESSION, 1)
    view = (await client.get(f"/v1/sessions/{SESSION}?after=3&limit=7")).json()
    assert view["turns"][0]["messages"][0]["parts"][0]["text"] == "Hi"
    assert (await client.delete(f"/v1/sessions/{SESSION}")).status_code == 200
    assert [question for question, _ in world.bus.asked] == [
        ListSessions(limit=1, cursor=SESSION),
        GetSession(session_id=SESSION, after=3, limit=7),
        DeleteSession(session_id=SESSION),
    ]


@pytest.mark.parametrize(("error", "status"), [(NotFound("none"), 404), (Conflict("open"), 409)])
async def test_what_cannot_be_forgotten(client, world, error, status):
    world.bus.answers[DeleteSession] = error
    assert (await client.delete(f"/v1/sessions/{SESSION}")).status_code == status


async def test_what_is_no_session(client):
    assert (await client.get("/v1/sessions/mine")).status_code == 422
