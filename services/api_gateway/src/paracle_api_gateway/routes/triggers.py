"""Triggers: how they stand, and pausing, resuming and firing them. Their manifests are in `specs.py`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from paracle_api_gateway.auth import Caller
from paracle_api_gateway.bodies import read_json
from paracle_api_gateway.problems import documented
from paracle_api_gateway.routes.common import LOCATED, NAME_PATTERN, NamePath, TheBus, answer, body_of, order, order_run
from paracle_domain.envelope import Context
from paracle_domain.ids import derive_id, id_from_key, is_id
from paracle_domain.messages import Plain
from paracle_domain.run.commands import RunAccepted
from paracle_domain.trigger.commands import (
    FireTrigger,
    GetTrigger,
    ListTriggers,
    PauseTrigger,
    ResumeTrigger,
    TriggerPage,
    TriggerView,
)

FireKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        description="The same key fires once, however often it is sent.",
        examples=["by-hand-2026-03-01"],
    ),
]


class PauseRequest(BaseModel):
    """Why a trigger is paused."""

    model_config = ConfigDict(extra="forbid")

    reason: Plain | None = Field(default=None, max_length=1_000, examples=["the shop is closed"])


class FireRequest(BaseModel):
    """What a trigger on messages takes for one; one with a schedule needs nothing."""

    model_config = ConfigDict(extra="forbid")

    message: JsonValue = Field(default=None, examples=[{"order_id": 4711, "total": 120}])


def router() -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["triggers"])
    routes.get(
        "/v1/triggers",
        operation_id="list_triggers",
        summary="List triggers",
        response_model=TriggerPage,
        responses=documented(422),
    )(list_triggers)
    routes.get(
        "/v1/triggers/{name}",
        operation_id="get_trigger",
        summary="Get one trigger",
        response_model=TriggerView,
        responses=documented(404, 422),
    )(get_trigger)
    _orders(routes)
    return routes


def _orders(routes: APIRouter) -> None:
    refusals = documented(400, 404, 409, 413, 415, 422)
    routes.post(
        "/v1/triggers/{name}/pause",
        operation_id="pause_trigger",
        summary="Pause a trigger",
        response_model=TriggerView,
        responses=refusals,
        openapi_extra=body_of(PauseRequest, required=False),
    )(pause_trigger)
    routes.post(
        "/v1/triggers/{name}/resume",
        operation_id="resume_trigger",
        summary="Resume a trigger",
        response_model=TriggerView,
        responses=documented(404, 422),
    )(resume_trigger)
    routes.post(
        "/v1/triggers/{name}/fire",
        operation_id="fire_trigger",
        summary="Fire a trigger once, now",
        status_code=202,
        response_model=RunAccepted,
        responses=LOCATED | refusals,
        openapi_extra=body_of(FireRequest, required=False),
    )(fire_trigger)


async def list_triggers(
    call: Caller,
    bus: TheBus,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    cursor: Annotated[str | None, Query(pattern=NAME_PATTERN, description="`next_cursor` of the page before.")] = None,
) -> Response:
    """Triggers by name, with what they count and when they fire next."""
    return answer(await bus.call(ListTriggers(limit=limit, cursor=cursor), call))


async def get_trigger(name: NamePath, call: Caller, bus: TheBus) -> Response:
    """The trigger with its next times and its last runs."""
    return answer(await bus.call(GetTrigger(name=name), call))


async def pause_trigger(name: NamePath, request: Request, call: Caller, bus: TheBus) -> Response:
    """Let the trigger start nothing until it is resumed."""
    asked = await read_json(request, PauseRequest)
    told = await order(request, call, bus, PauseTrigger(name=name, reason=asked.reason))
    return answer(TriggerView.model_validate(told))


async def resume_trigger(name: NamePath, request: Request, call: Caller, bus: TheBus) -> Response:
    """Let a paused trigger go on; what it missed meanwhile is not made up for."""
    return answer(TriggerView.model_validate(await order(request, call, bus, ResumeTrigger(name=name))))


async def fire_trigger(
    name: NamePath, request: Request, call: Caller, bus: TheBus, idempotency_key: FireKey = None
) -> Response:
    """Start one run of the trigger now, paused or not, whatever else of it runs."""
    asked = await read_json(request, FireRequest)
    command = FireTrigger(name=name, message=asked.message)
    return await order_run(request, call, bus, command, id=_message_id(call, name, idempotency_key), located=True)


def _message_id(call: Context, name: str, key: str | None) -> str | None:
    """What the key stands for; one that is the id of a message hands its time on, so that the run's id has it, too."""
    if key is None:
        return None
    if is_id(key, "msg"):
        return derive_id("msg", key, call.tenant, "trigger", name)
    return id_from_key("msg", f"{call.tenant}/trigger/{name}/{key}")
