"""Composition root of the API."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, override

from fastapi import FastAPI

from paracle_api_gateway import openapi, problems, routes
from paracle_api_gateway.follow import Follower
from paracle_api_gateway.output import OutputFollower
from paracle_api_gateway.ports import Bells, Outputs
from paracle_api_gateway.settings import Settings
from paracle_chassis.bus import Bus

VERSION: Final = "1.0.0"
_DESCRIPTION: Final = (
    "Runs AI agents and workflows of agents, durably and at scale. "
    "Errors are RFC 9457 problems (`application/problem+json`) with a stable `code`. "
    "The API does not authenticate: it listens on loopback, or behind something that does."
)


class Api(FastAPI):
    """The FastAPI application, with its OpenAPI document completed."""

    @override
    def openapi(self) -> dict[str, Any]:
        """The document at /openapi.json."""
        return openapi.document(self)


def create_app(
    settings: Settings,
    *,
    bus: Bus,
    bells: Bells,
    outputs: Outputs,
    check: Callable[[], Awaitable[None]],
) -> Api:
    """The API over `bus`; `check` raises if it cannot do its work just now."""
    app = create_routes()
    closing = asyncio.Event()
    app.state.settings = settings
    app.state.bus = bus
    app.state.check = check
    app.state.closing = closing
    app.state.follower = Follower(bus, bells, closing, settings.sse_poll_s, settings.sse_keep_alive_s)
    app.state.output_follower = OutputFollower(bus, outputs, closing, settings.sse_poll_s, settings.sse_keep_alive_s)
    return app


def create_routes() -> Api:
    """The API without anything behind it: enough for its document."""
    app = Api(
        title="Paracle",
        version=VERSION,
        summary="The REST API of Paracle.",
        description=_DESCRIPTION,
        docs_url=None,  # FastAPI's pages load their scripts from elsewhere; `routes.docs` needs nothing
        redoc_url=None,
        redirect_slashes=False,
    )
    problems.install(app)
    routes.install(app)
    return app
