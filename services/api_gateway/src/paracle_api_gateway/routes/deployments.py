"""Deployments: what providers may be asked, what of that is in use, and which are left in peace."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from paracle_api_gateway.auth import Caller
from paracle_api_gateway.problems import documented
from paracle_api_gateway.routes.common import TheBus, answer
from paracle_domain.inference.deployments import DeploymentList, ListDeployments

Name = Annotated[
    str | None,
    Query(
        min_length=3,
        max_length=200,
        pattern=r"^[^\x00-\x1f\x7f]+$",
        description="Only this one, as provider/model, whether somebody names it or not.",
        examples=["openai/gpt-5-mini"],
    ),
]


def router() -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["deployments"])
    routes.get(
        "/v1/deployments",
        operation_id="list_deployments",
        summary="List deployments, their limits and breakers",
        response_model=DeploymentList,
        responses=documented(404, 422),
    )(list_deployments)
    return routes


async def list_deployments(call: Caller, bus: TheBus, name: Name = None) -> Response:
    """Limits, and what is in use of them, are of all replicas of the gateway; breakers are those of `replica`."""
    return answer(await bus.call(ListDeployments(name=name), call))
