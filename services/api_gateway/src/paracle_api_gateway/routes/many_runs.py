"""Many runs at once: lists of them, and orders to all that a filter finds."""

from __future__ import annotations

import re
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from paracle_api_gateway.auth import Caller
from paracle_api_gateway.bodies import read_json
from paracle_api_gateway.problems import documented
from paracle_api_gateway.routes.common import NAME_PATTERN, RUN_PATTERN, RunPath, TheBus, answer, body_of
from paracle_chassis.bus import Bus
from paracle_domain.envelope import Context
from paracle_domain.errors import InvalidInput, from_validation, quote
from paracle_domain.messages import Moment
from paracle_domain.run.commands import (
    CancelRuns,
    ListRuns,
    ResumeRuns,
    RunFilter,
    RunPage,
    RunsAccepted,
    RunStatus,
)
from paracle_domain.run.diff import DiffRuns, RunsDiff
from paracle_domain.run.labels import Labels

BULK_TIMEOUT_S: Final = 60.0
"""An order to many runs is answered when all have been told, which takes longer than one."""

_LABEL: Final = re.compile(r"(?P<key>(?:[^:\\]|\\.)+):(?P<value>.+)", re.DOTALL)
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)
_LABELS: Final[TypeAdapter[dict[str, str]]] = TypeAdapter(Labels)

StatusQuery = Annotated[
    list[RunStatus] | None, Query(description="Only runs that stand so; given several times, in one of these ways.")
]
LabelQuery = Annotated[
    list[str] | None,
    Query(
        description="`key:value`. Only runs with that label; given several times, with all. A colon or a backslash in "
        "the key has a backslash before it.",
        examples=["team:a"],
    ),
]
AfterQuery = Annotated[Moment | None, Query(description="Only runs created then or later.")]
BeforeQuery = Annotated[Moment | None, Query(description="Only runs created earlier than that.")]


class BulkFilter(RunFilter):
    """A filter whose fields are all heeded: one that is misspelt would let the order go to more runs than are meant."""

    model_config = ConfigDict(extra="forbid")


class BulkRequest(BaseModel):
    """Which runs an order is for: those that meet all of `filter`, which must name something."""

    model_config = ConfigDict(extra="forbid")

    filter: BulkFilter = Field(examples=[{"workflow": "triage", "labels": {"team": "support"}}])
    dry_run: bool = Field(default=False, description="Only count them.")

    @property
    def wanted(self) -> RunFilter:
        """The filter as it travels."""
        return RunFilter.model_validate(dict(self.filter))


class CancelManyRequest(BulkRequest):
    """Which runs are to be stopped, and why."""

    reason: str = Field(default="cancelled by request", min_length=1, max_length=1_000)


class ResumeManyRequest(BulkRequest):
    """Which paused runs are to go on, and why."""

    reason: str = Field(default="", max_length=1_000)


def router() -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["runs"])
    routes.get(
        "/v1/runs",
        operation_id="list_runs",
        summary="List runs",
        response_model=RunPage,
        responses=documented(422),
    )(list_runs)
    routes.post(
        "/v1/runs/cancel",
        operation_id="cancel_runs",
        summary="Cancel many runs",
        response_model=RunsAccepted,
        responses=documented(400, 413, 415, 422),
        openapi_extra=body_of(CancelManyRequest),
    )(cancel_runs)
    routes.post(
        "/v1/runs/resume",
        operation_id="resume_runs",
        summary="Resume many paused runs",
        response_model=RunsAccepted,
        responses=documented(400, 413, 415, 422),
        openapi_extra=body_of(ResumeManyRequest),
    )(resume_runs)
    routes.get(
        "/v1/runs/{run_id}/diff",
        operation_id="diff_runs",
        summary="What differs between the pins of two runs",
        response_model=RunsDiff,
        responses=documented(404, 422),
    )(diff_runs)
    return routes


async def list_runs(
    call: Caller,
    bus: TheBus,
    workflow: Annotated[str | None, Query(pattern=NAME_PATTERN, description="Only runs of this workflow.")] = None,
    status: StatusQuery = None,
    label: LabelQuery = None,
    created_after: AfterQuery = None,
    created_before: BeforeQuery = None,
    parent: Annotated[str | None, Query(pattern=RUN_PATTERN, description="Only children of this run.")] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[str | None, Query(description="`next_cursor` of the page before.")] = None,
    *,
    stuck: Annotated[bool, Query(description="Only runs with a message that could not be handled.")] = False,
) -> Response:
    """Runs, newest first. A page may be short and still have a `next_cursor`: a long search rests after a while."""
    wanted = ListRuns(
        workflow=workflow,
        statuses=tuple(status or ()),
        labels=_labels(label or []),
        created_after=created_after,
        created_before=created_before,
        parent=parent,
        stuck=stuck,
        limit=limit,
        cursor=cursor,
    )
    return answer(await bus.call(wanted, call))


def _labels(given: list[str]) -> dict[str, str]:
    labels: dict[str, str] = {}
    for item in given:
        found = _LABEL.fullmatch(item)
        if found is None:
            raise InvalidInput(f"{quote(item)} is not key:value", path="query.label")
        key, value = _ESCAPED.sub(r"\1", found["key"]), found["value"]
        if labels.setdefault(key, value) != value:
            raise InvalidInput(f"no run has two values of label {quote(key)}; ask for one", path="query.label")
    try:
        return _LABELS.validate_python(labels)
    except ValidationError as error:
        raise InvalidInput(from_validation(error, "labels").message, path="query.label") from error


async def cancel_runs(request: Request, call: Caller, bus: TheBus) -> Response:
    """Stop every run that the filter finds. Once this answers, nothing new of them begins."""
    asked = await read_json(request, CancelManyRequest)
    command = CancelRuns(filter=asked.wanted, reason=asked.reason, dry_run=asked.dry_run)
    return await _order(bus, call, command)


async def resume_runs(request: Request, call: Caller, bus: TheBus) -> Response:
    """Go on with every paused run that the filter finds."""
    asked = await read_json(request, ResumeManyRequest)
    command = ResumeRuns(filter=asked.wanted, reason=asked.reason, dry_run=asked.dry_run)
    return await _order(bus, call, command)


async def diff_runs(
    run_id: RunPath,
    call: Caller,
    bus: TheBus,
    other: Annotated[str, Query(alias="with", pattern=RUN_PATTERN, description="Id of the run on the right.")],
) -> Response:
    """Where the plans that two runs pinned differ (workflow, agents, tools, children, contract), by path."""
    return answer(await bus.call(DiffRuns(left=run_id, right=other), call))


async def _order(bus: Bus, call: Context, command: CancelRuns | ResumeRuns) -> Response:
    return answer(RunsAccepted.model_validate(await bus.command(command, call, timeout_s=BULK_TIMEOUT_S)))
