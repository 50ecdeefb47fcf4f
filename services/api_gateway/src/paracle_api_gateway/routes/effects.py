"""What tools have done to the world, and what people found out where that was in doubt."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from paracle_api_gateway.auth import Caller
from paracle_api_gateway.bodies import read_json
from paracle_api_gateway.problems import documented
from paracle_api_gateway.routes.common import NAME_PATTERN, RUN_PATTERN, TheBus, answer, body_of, order
from paracle_domain.messages import Moment
from paracle_domain.task.effects import (
    EffectFilter,
    EffectPage,
    EffectState,
    EffectView,
    GetEffect,
    ListEffects,
    ResolveEffect,
    Truth,
)

EffectPath = Annotated[
    str,
    Path(
        pattern=r"^eff_[0-7][0-9A-HJKMNP-TV-Z]{25}$",
        description="Idempotency key of the effect.",
        examples=["eff_01JDZ7T6C4W2V9M3N5K8Q0XHRB"],
    ),
]


class ResolutionRequest(BaseModel):
    """What became of an effect that is in doubt, and how you know."""

    model_config = ConfigDict(extra="forbid")

    outcome: Truth
    output: JsonValue = Field(default=None, description="what the tool would have answered, if it was done")
    reason: str = Field(min_length=1, max_length=4_000, examples=["it is on the statement"])


def router() -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["effects"])
    routes.get(
        "/v1/effects",
        operation_id="list_effects",
        summary="List effects",
        response_model=EffectPage,
        responses=documented(422),
    )(list_effects)
    routes.get(
        "/v1/effects/{key}",
        operation_id="get_effect",
        summary="Get one effect",
        response_model=EffectView,
        responses=documented(404, 422),
    )(get_effect)
    routes.post(
        "/v1/effects/{key}/resolution",
        operation_id="resolve_effect",
        summary="Resolve an effect that is in doubt",
        response_model=EffectView,
        responses=documented(400, 404, 409, 413, 415, 422),
        openapi_extra=body_of(ResolutionRequest),
    )(resolve_effect)
    return routes


async def list_effects(
    call: Caller,
    bus: TheBus,
    *,
    state: Annotated[EffectState | None, Query(description="Only effects that stand so.")] = None,
    tool: Annotated[str | None, Query(pattern=NAME_PATTERN, description="Only of this tool.")] = None,
    run_id: Annotated[str | None, Query(pattern=RUN_PATTERN, description="Only of this run.")] = None,
    since: Annotated[Moment | None, Query(description="Only those intended then or later.")] = None,
    until: Annotated[Moment | None, Query(description="Only those intended earlier than that.")] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[str | None, Query(description="`next_cursor` of the page before.")] = None,
) -> Response:
    """Effects of tools, the newest first."""
    which = EffectFilter(state=state, tool=tool, run_id=run_id, since=since, until=until)
    return answer(await bus.call(ListEffects(filter=which, limit=limit, cursor=cursor), call))


async def get_effect(key: EffectPath, call: Caller, bus: TheBus) -> Response:
    """The call that has this idempotency key: how it stands, and what was found out about it."""
    return answer(await bus.call(GetEffect(key=key), call))


async def resolve_effect(key: EffectPath, request: Request, call: Caller, bus: TheBus) -> Response:
    """Say whether it was done. Later attempts of the step, and forks from it, believe that."""
    asked = await read_json(request, ResolutionRequest)
    command = ResolveEffect(key=key, outcome=asked.outcome, output=asked.output, reason=asked.reason)
    return answer(EffectView.model_validate(await order(request, call, bus, command)))
