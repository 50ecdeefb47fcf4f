"""Starting, seeing and stopping runs, and what they used."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints

from paracle_api_gateway.auth import Caller
from paracle_api_gateway.bodies import read_json
from paracle_api_gateway.problems import documented
from paracle_api_gateway.routes.common import MAX_NUMBER, MAX_POSITION, NAME_PATTERN, NamePath, RunPath, TheBus, answer
from paracle_chassis.bus import Bus
from paracle_domain.audit import AuditPage, GetAudit, GetUsage, UsageReport
from paracle_domain.envelope import Context
from paracle_domain.ids import id_from_key, is_id, new_id
from paracle_domain.run.commands import (
    CancelRun,
    GetRun,
    GetRunEvents,
    ListRuns,
    RunAccepted,
    RunPage,
    RunStatus,
    RunView,
    StartRun,
)

LabelText = Annotated[str, StringConstraints(min_length=1, max_length=200)]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        description="The same key starts one run, however often it is sent; with another request it is a conflict.",
        examples=["order-4711"],
    ),
]
_BODY_REF: Final = "#/components/schemas/"


class InvokeRequest(BaseModel):
    """What an agent is to be run with."""

    model_config = ConfigDict(extra="forbid")

    input: JsonValue = Field(default_factory=dict, examples=[{"text": "My invoice is wrong."}])
    labels: dict[LabelText, LabelText] = Field(default={}, max_length=50, examples=[{"team": "support"}])


class RunRequest(InvokeRequest):
    """What a workflow is to be run with."""

    revision: int | None = Field(default=None, ge=1, le=MAX_NUMBER, description="The newest if absent.")


class CancelRequest(BaseModel):
    """Why a run is to be stopped."""

    model_config = ConfigDict(extra="forbid")

    reason: str = Field(default="cancelled by request", min_length=1, max_length=1_000)


def router() -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["runs"])
    _starts(routes)
    routes.get(
        "/v1/runs",
        operation_id="list_runs",
        summary="List runs",
        response_model=RunPage,
        responses=documented(422),
    )(list_runs)
    routes.get(
        "/v1/runs/{run_id}",
        operation_id="get_run",
        summary="Get one run",
        response_model=RunView,
        responses=documented(404, 422),
    )(get_run)
    routes.post(
        "/v1/runs/{run_id}/cancel",
        operation_id="cancel_run",
        summary="Cancel a run",
        status_code=202,
        response_model=RunAccepted,
        responses=documented(400, 404, 409, 413, 415, 422),
        openapi_extra=_body(CancelRequest, required=False),
    )(cancel_run)
    routes.get(
        "/v1/runs/{run_id}/usage",
        operation_id="get_run_usage",
        summary="What a run used",
        response_model=UsageReport,
        responses=documented(404, 422),
    )(get_usage)
    routes.get(
        "/v1/runs/{run_id}/audit",
        operation_id="get_run_audit",
        summary="Audit log of a run",
        response_model=AuditPage,
        responses=documented(404, 422),
    )(get_audit)
    return routes


def _starts(routes: APIRouter) -> None:
    located: dict[int | str, dict[str, Any]] = {202: {"description": "Accepted.", "headers": {"Location": _LOCATION}}}
    routes.post(
        "/v1/workflows/{name}/runs",
        operation_id="start_run",
        summary="Start a run of a workflow",
        status_code=202,
        response_model=RunAccepted,
        responses=located | documented(400, 404, 409, 413, 415, 422),
        openapi_extra=_body(RunRequest),
    )(start_run)
    routes.post(
        "/v1/agents/{name}/runs",
        operation_id="invoke_agent",
        summary="Run a single agent",
        status_code=202,
        response_model=RunAccepted,
        responses=located | documented(400, 404, 409, 413, 415, 422),
        openapi_extra=_body(InvokeRequest),
    )(invoke_agent)


_LOCATION: Final = {"description": "Where the run is.", "schema": {"type": "string"}}


def _body(kind: type[BaseModel], *, required: bool = True) -> dict[str, Any]:
    """Document a body that the handler reads itself, to hold it to limits and name positions."""
    content = {"application/json": {"schema": {"$ref": _BODY_REF + kind.__name__}}}
    return {"requestBody": {"required": required, "content": content}}


async def start_run(
    name: NamePath, request: Request, call: Caller, bus: TheBus, idempotency_key: IdempotencyKey = None
) -> Response:
    """Start a run. Once this answers, the run is on disk and will reach a terminal state."""
    asked = await read_json(request, RunRequest)
    run_id = _run_id(call, idempotency_key)
    command = StartRun(workflow=name, revision=asked.revision, input=asked.input, labels=asked.labels, run_id=run_id)
    return await _start(request, call, bus, command)


async def invoke_agent(
    name: NamePath, request: Request, call: Caller, bus: TheBus, idempotency_key: IdempotencyKey = None
) -> Response:
    """Run one agent by itself: a run like any other, of a workflow with that one step."""
    asked = await read_json(request, InvokeRequest)
    command = StartRun(agent=name, input=asked.input, labels=asked.labels, run_id=_run_id(call, idempotency_key))
    return await _start(request, call, bus, command)


def _run_id(call: Context, key: str | None) -> str:
    """The run's id is fixed here, so that sending the command again can never start a second run.

    A key that has the form of a run's id is that id: callers may choose it, as those who publish on NATS may.
    """
    if key is None:
        return new_id("run")
    return key if is_id(key, "run") else id_from_key("run", f"{call.tenant}/{key}")


async def _start(request: Request, call: Context, bus: Bus, command: StartRun) -> Response:
    patience = request.app.state.settings.api_command_timeout_s
    told = await bus.command(command, call, id=command.run_id, timeout_s=patience)
    accepted = RunAccepted.model_validate(told)
    return answer(accepted, 202, {"Location": f"/v1/runs/{accepted.run_id}"})


async def list_runs(
    call: Caller,
    bus: TheBus,
    workflow: Annotated[str | None, Query(pattern=NAME_PATTERN, description="Only runs of this workflow.")] = None,
    status: Annotated[RunStatus | None, Query(description="Only runs that stand so.")] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[str | None, Query(description="`next_cursor` of the page before.")] = None,
) -> Response:
    """Runs, newest first."""
    return answer(await bus.call(ListRuns(workflow=workflow, status=status, limit=limit, cursor=cursor), call))


async def get_run(run_id: RunPath, call: Caller, bus: TheBus) -> Response:
    """The run with its steps."""
    return answer(await bus.call(GetRun(run_id=run_id), call))


async def cancel_run(run_id: RunPath, request: Request, call: Caller, bus: TheBus) -> Response:
    """Stop the run: once this answers, no new step, model call or tool call of it begins."""
    asked = await read_json(request, CancelRequest)
    patience = request.app.state.settings.api_command_timeout_s
    told = await bus.command(CancelRun(run_id=run_id, reason=asked.reason), call, timeout_s=patience)
    return answer(RunAccepted.model_validate(told), 202)


async def get_usage(run_id: RunPath, call: Caller, bus: TheBus) -> Response:
    """Tokens and money, in all and by model, agent and step. A cost that is not known is null, never zero."""
    await _must_exist(bus, call, run_id)
    return answer(await bus.call(GetUsage(run_id=run_id), call))


async def get_audit(
    run_id: RunPath,
    call: Caller,
    bus: TheBus,
    after: Annotated[int, Query(ge=0, le=MAX_POSITION, description="`next_cursor` of the page before.")] = 0,
    limit: Annotated[int, Query(ge=1, le=5_000)] = 500,
) -> Response:
    """Every event of the run and of what it caused, as it was published: who, what, when and why."""
    await _must_exist(bus, call, run_id)
    return answer(await bus.call(GetAudit(run_id=run_id, after=after, limit=limit), call))


async def _must_exist(bus: Bus, call: Context, run_id: str) -> None:
    """A run that does not exist is a 404, not one without events that used nothing."""
    await bus.call(GetRunEvents(run_id=run_id, limit=1), call)
