"""Worker pools: what waits for each, who serves it, and whether anything new is taken."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from paracle_api_gateway.auth import Caller
from paracle_api_gateway.bodies import read_json
from paracle_api_gateway.problems import documented
from paracle_api_gateway.routes.common import TheBus, answer, body_of, order
from paracle_domain.messages import Plain
from paracle_domain.task.pools import DrainPool, GetPool, ListPools, PoolList, PoolView, ResumePool

PoolPath = Annotated[str, Path(pattern=r"^[a-z][a-z0-9_-]{0,30}$", description="Name of the pool.", examples=["gpu"])]


class DrainRequest(BaseModel):
    """Why nothing new is to be taken."""

    model_config = ConfigDict(extra="forbid")

    reason: Plain = Field(default="", max_length=1_000)


def router() -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["pools"])
    routes.get(
        "/v1/pools",
        operation_id="list_pools",
        summary="List worker pools",
        response_model=PoolList,
        responses=documented(),
    )(list_pools)
    routes.get(
        "/v1/pools/{pool}",
        operation_id="get_pool",
        summary="Get one worker pool",
        response_model=PoolView,
        responses=documented(422),
    )(get_pool)
    routes.post(
        "/v1/pools/{pool}/drain",
        operation_id="drain_pool",
        summary="Take no new tasks of a pool",
        response_model=PoolView,
        responses=documented(400, 403, 413, 415, 422),
        openapi_extra=body_of(DrainRequest),
    )(drain_pool)
    routes.post(
        "/v1/pools/{pool}/resume",
        operation_id="resume_pool",
        summary="Take tasks of a pool again",
        response_model=PoolView,
        responses=documented(403, 422),
    )(resume_pool)
    return routes


async def list_pools(call: Caller, bus: TheBus) -> Response:
    """Those that are served, drained or waited for."""
    return answer(await bus.call(ListPools(), call))


async def get_pool(pool: PoolPath, call: Caller, bus: TheBus) -> Response:
    """One of them. A pool that nobody has heard of is `unserved`: a task for it would wait."""
    return answer(await bus.call(GetPool(pool=pool), call))


async def drain_pool(pool: PoolPath, request: Request, call: Caller, bus: TheBus) -> Response:
    """From now on no process takes a new task of the pool; what is in hand is finished. Tasks wait until it is resumed.

    Pools are of all tenants, so only the operator's tenant may do this.
    """
    asked = await read_json(request, DrainRequest)
    told = await order(request, call, bus, DrainPool(pool=pool, reason=asked.reason))
    return answer(PoolView.model_validate(told))


async def resume_pool(pool: PoolPath, request: Request, call: Caller, bus: TheBus) -> Response:
    """Take tasks of a pool again that was drained."""
    return answer(PoolView.model_validate(await order(request, call, bus, ResumePool(pool=pool))))
