"""What can be asked of a run that was started: stop it, pause it, signal it, do part of it again."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from paracle_api_gateway.auth import Caller
from paracle_api_gateway.bodies import read_json
from paracle_api_gateway.problems import documented
from paracle_api_gateway.routes.common import (
    LOCATED,
    MAX_NUMBER,
    NAME_PATTERN,
    IdempotencyKey,
    RunPath,
    TheBus,
    body_of,
    order_run,
    run_id_of,
)
from paracle_domain.ids import id_from_key
from paracle_domain.run.commands import CancelRun, ForkRun, PauseRun, ResumeRun, RunAccepted, SignalRun
from paracle_domain.run.labels import Labels

SignalPath = Annotated[str, Path(pattern=NAME_PATTERN, description="Name of the signal.", examples=["paid"])]

SignalKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        description="The same key is one signal, however often it is sent.",
        examples=["payment-4711"],
    ),
]


class CancelRequest(BaseModel):
    """Why a run is to be stopped."""

    model_config = ConfigDict(extra="forbid")

    reason: str = Field(default="cancelled by request", min_length=1, max_length=1_000)


class ReasonRequest(BaseModel):
    """Why something is asked."""

    model_config = ConfigDict(extra="forbid")

    reason: str = Field(default="", max_length=1_000)


class SignalRequest(BaseModel):
    """What a run is to be told."""

    model_config = ConfigDict(extra="forbid")

    payload: JsonValue = Field(default=None, examples=[{"amount": 12}])


class ForkRequest(BaseModel):
    """What is to be done again, and with what."""

    model_config = ConfigDict(extra="forbid")

    from_step: str = Field(
        min_length=1, max_length=63, description="It and all that depends on it run anew.", examples=["pay"]
    )
    revision: int | None = Field(default=None, ge=1, le=MAX_NUMBER, description="The old run's plan if absent.")
    input: JsonValue = Field(default=None, description="The old run's if absent.")
    labels: Labels | None = Field(default=None, description="The old run's if absent.")


def router() -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["runs"])
    refusals = documented(400, 404, 409, 413, 415, 422)
    routes.post(
        "/v1/runs/{run_id}/cancel",
        operation_id="cancel_run",
        summary="Cancel a run",
        status_code=202,
        response_model=RunAccepted,
        responses=refusals,
        openapi_extra=body_of(CancelRequest, required=False),
    )(cancel_run)
    routes.post(
        "/v1/runs/{run_id}/pause",
        operation_id="pause_run",
        summary="Pause a run",
        status_code=202,
        response_model=RunAccepted,
        responses=refusals,
        openapi_extra=body_of(ReasonRequest, required=False),
    )(pause_run)
    routes.post(
        "/v1/runs/{run_id}/resume",
        operation_id="resume_run",
        summary="Resume a paused run",
        status_code=202,
        response_model=RunAccepted,
        responses=refusals,
        openapi_extra=body_of(ReasonRequest, required=False),
    )(resume_run)
    routes.post(
        "/v1/runs/{run_id}/signals/{name}",
        operation_id="signal_run",
        summary="Signal a run",
        status_code=202,
        response_model=RunAccepted,
        responses=refusals,
        openapi_extra=body_of(SignalRequest, required=False),
    )(signal_run)
    routes.post(
        "/v1/runs/{run_id}/fork",
        operation_id="fork_run",
        summary="Do part of a run again",
        status_code=202,
        response_model=RunAccepted,
        responses=LOCATED | refusals,
        openapi_extra=body_of(ForkRequest),
    )(fork_run)
    return routes


async def cancel_run(run_id: RunPath, request: Request, call: Caller, bus: TheBus) -> Response:
    """Stop the run: once this answers, no new step, model call or tool call of it begins."""
    asked = await read_json(request, CancelRequest)
    return await order_run(request, call, bus, CancelRun(run_id=run_id, reason=asked.reason))


async def pause_run(run_id: RunPath, request: Request, call: Caller, bus: TheBus) -> Response:
    """Start nothing new of the run until it is resumed; what runs goes on."""
    asked = await read_json(request, ReasonRequest)
    return await order_run(request, call, bus, PauseRun(run_id=run_id, reason=asked.reason))


async def resume_run(run_id: RunPath, request: Request, call: Caller, bus: TheBus) -> Response:
    """Go on with a paused run; one that is not paused is left as it is."""
    asked = await read_json(request, ReasonRequest)
    return await order_run(request, call, bus, ResumeRun(run_id=run_id, reason=asked.reason))


async def signal_run(
    run_id: RunPath,
    name: SignalPath,
    request: Request,
    call: Caller,
    bus: TheBus,
    idempotency_key: SignalKey = None,
) -> Response:
    """Tell the run what a `wait` step of it waits for, or will: a signal that comes early is kept."""
    asked = await read_json(request, SignalRequest)
    command = SignalRun(run_id=run_id, signal=name, payload=asked.payload)
    scope = f"{call.tenant}/{run_id}/{name}/{idempotency_key}"
    message_id = None if idempotency_key is None else id_from_key("msg", scope)
    return await order_run(request, call, bus, command, id=message_id)


async def fork_run(
    run_id: RunPath, request: Request, call: Caller, bus: TheBus, idempotency_key: IdempotencyKey = None
) -> Response:
    """Start a new run that keeps the results of this one, but for a step and all that depends on it."""
    asked = await read_json(request, ForkRequest)
    new_run_id = run_id_of(call, idempotency_key)
    command = ForkRun(
        run_id=run_id,
        from_step=asked.from_step,
        revision=asked.revision,
        input=asked.input,
        labels=asked.labels,
        new_run_id=new_run_id,
    )
    return await order_run(request, call, bus, command, id=new_run_id, located=True)
