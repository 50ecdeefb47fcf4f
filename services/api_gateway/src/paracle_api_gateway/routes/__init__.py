"""The REST routes, one module a resource."""

from __future__ import annotations

from fastapi import Depends, FastAPI

from paracle_api_gateway.parameters import require_known
from paracle_api_gateway.routes import (
    approvals,
    budgets,
    cache,
    dead_letters,
    deployments,
    docs,
    effects,
    events,
    health,
    manifests,
    many_runs,
    models,
    output,
    pools,
    run_orders,
    runs,
    sessions,
    specs,
    triggers,
    usage,
)


def install(app: FastAPI) -> None:
    """All routes of the API."""
    for module in (
        manifests,
        specs,
        many_runs,
        runs,
        run_orders,
        approvals,
        effects,
        triggers,
        events,
        output,
        sessions,
        pools,
        budgets,
        usage,
        deployments,
        cache,
        models,
        dead_letters,
    ):
        app.include_router(module.router(), dependencies=[Depends(require_known)])
    for module in (health, docs):
        app.include_router(module.router())
