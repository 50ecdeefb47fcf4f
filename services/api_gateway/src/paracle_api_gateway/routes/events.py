"""A run's events: a page of them as JSON, or as they happen."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse

from paracle_api_gateway.auth import Caller
from paracle_api_gateway.follow import Follower
from paracle_api_gateway.problems import NotAcceptable, documented
from paracle_api_gateway.routes.common import MAX_NUMBER, RunPath, answer
from paracle_domain.errors import InvalidInput, quote
from paracle_domain.run.commands import RunEvents

EVENT_STREAM: Final = "text/event-stream"
_EXAMPLE: Final = (
    'id: 7\nevent: step.completed\ndata: {"entity":"run","id":"run_01J…","seq":7,"type":"step.completed",…}\n\n'
)
_STREAMED: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "A page of events, or a stream of them: `id` is the event's number, `event` its type, and "
        "`data` the event as JSON (schema EventRecord). The stream ends after the run's last event.",
        "content": {EVENT_STREAM: {"schema": {"type": "string"}, "example": _EXAMPLE}},
    }
}


def router() -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["runs"])
    routes.get(
        "/v1/runs/{run_id}/events",
        operation_id="get_run_events",
        summary="Events of a run",
        response_model=RunEvents,
        responses=_STREAMED | documented(404, 406, 422),
    )(run_events)
    return routes


async def run_events(
    run_id: RunPath,
    request: Request,
    call: Caller,
    after: Annotated[int, Query(ge=0, le=MAX_NUMBER, description="Only events with a higher number.")] = 0,
    follow: Annotated[
        bool | None,
        Query(description="Whether the stream goes on until the run ends (the default) or stops at its present end."),
    ] = None,
    limit: Annotated[int, Query(ge=1, le=5_000, description="Most events of a JSON page.")] = 500,
    accept: Annotated[str, Header()] = "*/*",
    last_event_id: Annotated[
        str | None,
        Header(alias="Last-Event-ID", description="What a reader that was cut off saw last; wins over `after`."),
    ] = None,
) -> Response:
    """Events after a cursor, in order and without gaps: a JSON page, or with `Accept: text/event-stream` a stream."""
    follower: Follower = request.app.state.follower
    streamed = _wants_stream(accept)
    if follow and not streamed:
        raise InvalidInput(f"follow=true gives a stream: send it with Accept: {EVENT_STREAM}", path="query.follow")
    cursor = after if last_event_id is None else _cursor(last_event_id)
    page = await follower.page(call, run_id, cursor, limit)
    if not streamed:
        return answer(page)
    frames = follower.stream(call, run_id, page, cursor, follow=follow is not False)
    return StreamingResponse(frames, media_type=EVENT_STREAM, headers={"X-Accel-Buffering": "no"})


def _wants_stream(accept: str) -> bool:
    """Whether a stream is asked for rather than JSON; who takes anything gets JSON."""
    types = {part.partition(";")[0].strip().lower() for part in accept.split(",")}
    if EVENT_STREAM in types:
        return True
    if types & {"*/*", "application/*", "application/json", ""}:
        return False
    raise NotAcceptable(f"Accept: {quote(accept)}: events can be had as application/json or {EVENT_STREAM}")


def _cursor(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 18 or int(text) > MAX_NUMBER:
        raise InvalidInput(f"{quote(text)} is no event number", path="header.Last-Event-ID")
    return int(text)
