"""The REST routes, one module a resource."""

from __future__ import annotations

from fastapi import FastAPI

from paracle_api_gateway.routes import docs, events, health, manifests, runs, specs


def install(app: FastAPI) -> None:
    """All routes of the API."""
    for module in (manifests, specs, runs, events, health, docs):
        app.include_router(module.router())
