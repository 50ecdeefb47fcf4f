"""Whether the process lives, and whether it can do its work."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from paracle_domain.errors import ParacleError


class Health(BaseModel):
    """How a check went."""

    status: Annotated[str, Field(examples=["ready"])]
    checks: dict[str, str] = {}


def router() -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["health"])
    routes.get("/livez", operation_id="livez", summary="Is the process alive", response_model=Health)(livez)
    routes.get(
        "/readyz",
        operation_id="readyz",
        summary="Can it do its work",
        response_model=Health,
        responses={503: {"model": Health, "description": "Something that it needs does not answer."}},
    )(readyz)
    return routes


async def livez() -> Any:
    """The process runs and its event loop turns."""
    return JSONResponse({"status": "alive"})


async def readyz(request: Request) -> Any:
    """NATS answered just now, and the process is not draining."""
    state = request.app.state
    if state.closing.is_set():
        return JSONResponse({"status": "draining", "checks": {}}, 503)
    try:
        await state.check()
    except ParacleError as error:
        return JSONResponse({"status": "unavailable", "checks": {"nats": error.message}}, 503)
    return JSONResponse({"status": "ready", "checks": {"nats": "ok"}})
