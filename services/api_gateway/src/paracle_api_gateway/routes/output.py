"""What a task says while it is at work, as it says it."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.responses import StreamingResponse

from paracle_api_gateway.auth import Caller
from paracle_api_gateway.output import OutputFollower
from paracle_api_gateway.problems import documented
from paracle_api_gateway.routes.common import MAX_POSITION
from paracle_api_gateway.routes.events import EVENT_STREAM
from paracle_domain.errors import InvalidInput, quote

_PATTERN: Final = r"^task_[0-7][0-9A-HJKMNP-TV-Z]{25}$"
_EXAMPLE: Final = (
    'id: 71\nevent: delta\ndata: {"seq":71,"delta":{"call_id":"…","seq":3,"change":{"type":"text","text":"Hel"}}}\n\n'
)
_STREAMED: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "A stream: `id` is a cursor, `event` is `delta` (a piece of a reply), `tool` (a call of one "
        "began or ended, or waits for people), `summary` (summing up what was said before began or ended), `budget` "
        "(people are asked to raise one, or have decided), `retrying` (a model call failed or waits: why, and when it "
        "is tried again; with `agent`, one of an agent that it turned to), `retried` (one of those has ended) or "
        "`ended` (the last), and `data` is JSON (message task.output). `gap` in it says that something before it is "
        "lost.",
        "content": {EVENT_STREAM: {"schema": {"type": "string"}, "example": _EXAMPLE}},
    }
}


def router() -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["runs"])
    routes.get(
        "/v1/tasks/{task_id}/output",
        operation_id="get_task_output",
        summary="What a task says while it is at work",
        response_class=StreamingResponse,
        responses=_STREAMED | documented(422),
    )(task_output)
    return routes


async def task_output(
    task_id: Annotated[str, Path(pattern=_PATTERN, description="Id of the task: events of its run name it.")],
    request: Request,
    call: Caller,
    after: Annotated[int, Query(ge=0, le=MAX_POSITION, description="Only what comes after this cursor.")] = 0,
    follow: Annotated[
        bool | None, Query(description="False: only what it has said so far; else until the task has ended.")
    ] = None,
    last_event_id: Annotated[
        str | None,
        Header(alias="Last-Event-ID", description="What a reader that was cut off saw last; wins over `after`."),
    ] = None,
) -> Response:
    """Tokens, thoughts and the progress of tools as server-sent events, until the task ends. They are kept for ten
    minutes. A task that nobody knows says nothing: its stream ends after a while without `ended`.
    """
    follower: OutputFollower = request.app.state.output_follower
    cursor = after if last_event_id is None else _cursor(last_event_id)
    frames = follower.stream(call, task_id, cursor) if follow is not False else follower.so_far(call, task_id, cursor)
    return StreamingResponse(frames, media_type=EVENT_STREAM, headers={"X-Accel-Buffering": "no"})


def _cursor(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 19 or int(text) > MAX_POSITION:
        raise InvalidInput(f"{quote(text)} is no cursor", path="header.Last-Event-ID")
    return int(text)
