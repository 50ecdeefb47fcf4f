"""Starting and seeing runs, and what they used."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from paracle_api_gateway.auth import Caller
from paracle_api_gateway.bodies import read_json
from paracle_api_gateway.problems import documented
from paracle_api_gateway.routes.common import (
    LOCATED,
    MAX_NUMBER,
    MAX_POSITION,
    IdempotencyKey,
    NamePath,
    RunPath,
    TheBus,
    answer,
    body_of,
    order_run,
    run_id_of,
)
from paracle_chassis.bus import Bus
from paracle_domain.audit import AuditPage, GetAudit, GetUsage, UsageReport
from paracle_domain.envelope import Context
from paracle_domain.errors import PayloadTooLarge
from paracle_domain.run.commands import (
    GetRun,
    GetRunEvents,
    GetStep,
    Outputs,
    RunAccepted,
    RunView,
    ShownStep,
    StartRun,
)
from paracle_domain.run.labels import Labels


class InvokeRequest(BaseModel):
    """What an agent is to be run with."""

    model_config = ConfigDict(extra="forbid")

    input: JsonValue = Field(
        default_factory=dict, description="What it works on.", examples=[{"text": "My invoice is wrong."}]
    )
    labels: Labels = Field(
        default={}, description="To find it by; `project` says who pays.", examples=[{"team": "support"}]
    )
    priority: int = Field(default=0, ge=-100, le=100, description="Where starts queue, the highest goes first.")


class RunRequest(InvokeRequest):
    """What a workflow is to be run with."""

    revision: int | None = Field(default=None, ge=1, le=MAX_NUMBER, description="The newest if absent.")


Parts = Annotated[int, Query(ge=0, le=10_000, description="Most items or iterations of each step.")]


def router() -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["runs"])
    _starts(routes)
    routes.get(
        "/v1/runs/{run_id}",
        operation_id="get_run",
        summary="Get one run",
        response_model=RunView,
        responses=documented(404, 413, 422),
    )(get_run)
    routes.get(
        "/v1/runs/{run_id}/steps/{step}",
        operation_id="get_run_step",
        summary="Get one step of a run",
        response_model=ShownStep,
        responses=documented(404, 422),
    )(get_step)
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
    routes.post(
        "/v1/workflows/{name}/runs",
        operation_id="start_run",
        summary="Start a run of a workflow",
        status_code=202,
        response_model=RunAccepted,
        responses=LOCATED | documented(400, 404, 409, 413, 415, 422),
        openapi_extra=body_of(RunRequest),
    )(start_run)
    routes.post(
        "/v1/agents/{name}/runs",
        operation_id="invoke_agent",
        summary="Run a single agent",
        status_code=202,
        response_model=RunAccepted,
        responses=LOCATED | documented(400, 404, 409, 413, 415, 422),
        openapi_extra=body_of(InvokeRequest),
    )(invoke_agent)


async def start_run(
    name: NamePath, request: Request, call: Caller, bus: TheBus, idempotency_key: IdempotencyKey = None
) -> Response:
    """Start a run. Once this answers, the run is on disk and will reach a terminal state."""
    asked = await read_json(request, RunRequest)
    run_id = run_id_of(call, idempotency_key)
    command = StartRun(
        workflow=name,
        revision=asked.revision,
        input=asked.input,
        labels=asked.labels,
        priority=asked.priority,
        run_id=run_id,
    )
    return await order_run(request, call, bus, command, id=run_id, located=True)


async def invoke_agent(
    name: NamePath, request: Request, call: Caller, bus: TheBus, idempotency_key: IdempotencyKey = None
) -> Response:
    """Run one agent by itself: a run like any other, of a workflow with that one step."""
    asked = await read_json(request, InvokeRequest)
    run_id = run_id_of(call, idempotency_key)
    command = StartRun(agent=name, input=asked.input, labels=asked.labels, priority=asked.priority, run_id=run_id)
    return await order_run(request, call, bus, command, id=run_id, located=True)


async def get_run(
    run_id: RunPath,
    call: Caller,
    bus: TheBus,
    parts: Parts = 100,
    outputs: Annotated[
        Outputs, Query(description="Whether inputs and outputs are in it: all, only the run's own, or none.")
    ] = Outputs.ALL,
) -> Response:
    """The run with its steps. The header `Link` says where its events, children, approvals, … are.

    Its outputs may be more together than an answer holds (64 MiB): `outputs=run` leaves out those of steps, each of
    which is to be had by itself.
    """
    try:
        view = await bus.call(GetRun(run_id=run_id, parts=parts, outputs=outputs), call)
    except PayloadTooLarge as error:
        here = f"/v1/runs/{run_id}"
        raise PayloadTooLarge(
            f"the outputs of the steps are more together than an answer holds; ask for {here}?outputs=run, and for "
            f"single ones at {here}/steps/{{step}}",
            path="query.outputs",
        ) from error
    return answer(view, headers={"Link": ", ".join(_links(view))})


async def get_step(
    run_id: RunPath,
    step: Annotated[str, Path(max_length=128, description="Its path.", examples=["pay", "each[3]", "pay.compensate"])],
    call: Caller,
    bus: TheBus,
    parts: Parts = 100,
) -> Response:
    """One step with its output, or an item, an iteration or a compensation; what is within it is without outputs."""
    return answer(await bus.call(GetStep(run_id=run_id, step=step, parts=parts), call))


def _links(view: RunView) -> Iterator[str]:
    """What belongs to a run, as RFC 8288 has it."""
    here = f"/v1/runs/{view.run.run_id}"
    for name in ("events", "usage", "audit"):
        yield f'<{here}/{name}>; rel="{name}"'
    yield f'</v1/runs?parent={view.run.run_id}>; rel="children"'
    yield f'</v1/approvals?run_id={view.run.run_id}>; rel="approvals"'
    yield f'</v1/dead-letters?run_id={view.run.run_id}>; rel="dead-letters"'
    if view.parent is not None:
        yield f'</v1/runs/{view.parent.run_id}>; rel="up"'
    if view.run.forked_from is not None:
        yield f'</v1/runs/{view.run.forked_from}>; rel="forked-from"'


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
