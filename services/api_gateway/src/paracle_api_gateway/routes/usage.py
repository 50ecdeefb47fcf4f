"""What model calls used: added up by whatever is asked for, and attempt by attempt."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field

from paracle_api_gateway.auth import Caller
from paracle_api_gateway.problems import documented
from paracle_api_gateway.routes.common import RUN_PATTERN, TheBus, answer
from paracle_domain.inference.ledger import (
    MOST_ROWS,
    Label,
    ListAttempts,
    Outcome,
    QueryUsage,
    UsageBy,
    UsageRecords,
    UsageTable,
)
from paracle_domain.messages import Moment

_TASK_PATTERN = r"^task_[0-7][0-9A-HJKMNP-TV-Z]{25}$"


class Meant(BaseModel):
    """Which attempts are meant: all that is given has to hold."""

    since: Moment | None = Field(default=None, description="Only those that ended then or later.")
    until: Moment | None = Field(default=None, description="Only those that ended earlier than that.")
    model: Label | None = Field(default=None, description="Only of this model, as its provider calls it.")
    provider: Label | None = Field(default=None, description="Only of this provider.")
    agent: Label | None = Field(default=None, description="Only of this agent.")
    user: Label | None = Field(default=None, description="Only of runs that this principal started.")
    project: Label | None = Field(default=None, description="Only of runs with this label `project`.")
    run_id: str | None = Field(default=None, pattern=RUN_PATTERN, description="Only of this run.")
    task_id: str | None = Field(default=None, pattern=_TASK_PATTERN, description="Only of this task.")
    outcome: Outcome | None = Field(default=None, description="Only those that ended so, or are `open`.")


class UsageParams(Meant):
    """What `GET /v1/usage` takes."""

    by: list[UsageBy] = Field(
        default=[], max_length=len(UsageBy), description="What to add up by; repeated: by all of these together."
    )
    limit: int = Field(default=500, ge=1, le=MOST_ROWS)


class AttemptParams(Meant):
    """What `GET /v1/attempts` takes."""

    limit: int = Field(default=100, ge=1, le=1_000)
    cursor: Label | None = Field(default=None, description="`next_cursor` of the page before.")


def router() -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["usage"])
    routes.get(
        "/v1/usage",
        operation_id="query_usage",
        summary="Add up what model calls used",
        response_model=UsageTable,
        responses=documented(422),
    )(query_usage)
    routes.get(
        "/v1/attempts",
        operation_id="list_attempts",
        summary="List attempts of model calls",
        response_model=UsageRecords,
        responses=documented(422),
    )(list_attempts)
    return routes


async def query_usage(call: Caller, bus: TheBus, asked: Annotated[UsageParams, Query()]) -> Response:
    """Rows: the newest time first, then what cost most; and the total of all that is meant, shown or not."""
    request = QueryUsage.model_validate(_given(asked) | {"by": tuple(dict.fromkeys(asked.by))})
    return answer(await bus.call(request, call))


async def list_attempts(call: Caller, bus: TheBus, asked: Annotated[AttemptParams, Query()]) -> Response:
    """Each request to a provider, newest first: one more than a call where it was tried again or somewhere else."""
    return answer(await bus.call(ListAttempts.model_validate(_given(asked)), call))


def _given(asked: Meant) -> dict[str, Any]:
    return asked.model_dump(exclude_none=True)
