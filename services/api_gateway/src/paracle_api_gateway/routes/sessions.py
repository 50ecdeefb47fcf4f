"""Conversations with agents: which there are, what was said, and forgetting them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from paracle_api_gateway.auth import Caller
from paracle_api_gateway.problems import documented
from paracle_api_gateway.routes.common import MAX_NUMBER, TheBus, answer
from paracle_domain.messages import Done
from paracle_domain.task.sessions import DeleteSession, GetSession, ListSessions, SessionPage, SessionView

_PATTERN = r"^ses_[0-7][0-9A-HJKMNP-TV-Z]{25}$"
SessionPath = Annotated[str, Path(pattern=_PATTERN, description="Id of the session.")]


def router() -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["sessions"])
    routes.get(
        "/v1/sessions",
        operation_id="list_sessions",
        summary="List sessions",
        response_model=SessionPage,
        responses=documented(422),
    )(list_sessions)
    routes.get(
        "/v1/sessions/{session_id}",
        operation_id="get_session",
        summary="Get one session",
        response_model=SessionView,
        responses=documented(404, 422),
    )(get_session)
    routes.delete(
        "/v1/sessions/{session_id}",
        operation_id="delete_session",
        summary="Forget a session",
        response_model=Done,
        responses=documented(404, 409, 422),
    )(delete_session)
    return routes


async def list_sessions(
    call: Caller,
    bus: TheBus,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[str | None, Query(pattern=_PATTERN, description="`next_cursor` of the page before.")] = None,
) -> Response:
    """Sessions, newest first."""
    return answer(await bus.call(ListSessions(limit=limit, cursor=cursor), call))


async def get_session(
    session_id: SessionPath,
    call: Caller,
    bus: TheBus,
    after: Annotated[int, Query(ge=0, le=MAX_NUMBER, description="Only turns with a higher number.")] = 0,
    limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
) -> Response:
    """A session with its turns, and the messages that each added: all of them, whatever `recap` stands for."""
    return answer(await bus.call(GetSession(session_id=session_id, after=after, limit=limit), call))


async def delete_session(session_id: SessionPath, call: Caller, bus: TheBus) -> Response:
    """Forget what was said. A conflict while one of its turns is open."""
    return answer(await bus.call(DeleteSession(session_id=session_id), call))
