"""The cache of answers: dropping what is in it."""

from __future__ import annotations

from fastapi import APIRouter, Response

from paracle_api_gateway.auth import Caller
from paracle_api_gateway.problems import documented
from paracle_api_gateway.routes.common import TheBus, answer
from paracle_domain.inference.caching import CacheCleared, ClearCache


def router() -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["cache"])
    routes.delete(
        "/v1/cache",
        operation_id="clear_cache",
        summary="Drop all cached answers of models",
        response_model=CacheCleared,
        responses=documented(),
    )(clear_cache)
    return routes


async def clear_cache(call: Caller, bus: TheBus) -> Response:
    """Those of the tenant, at every replica; one that a replica is just being given may be kept."""
    return answer(await bus.call(ClearCache(), call))
