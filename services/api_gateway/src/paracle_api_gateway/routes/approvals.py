"""What people are asked, and what they decide."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from paracle_api_gateway.auth import Caller
from paracle_api_gateway.bodies import read_json
from paracle_api_gateway.problems import documented
from paracle_api_gateway.routes.common import NAME_PATTERN, RUN_PATTERN, TheBus, answer, body_of, order_run
from paracle_domain.messages import Plain
from paracle_domain.run.commands import (
    ApprovalPage,
    ApprovalStatus,
    ApprovalView,
    DecideApproval,
    GetApproval,
    ListApprovals,
    RunAccepted,
    Verdict,
)

ApprovalPath = Annotated[
    str,
    Path(
        pattern=r"^apr_[0-7][0-9A-HJKMNP-TV-Z]{25}$",
        description="Id of the approval.",
        examples=["apr_01JDZ7T6C4W2V9M3N5K8Q0XHRB"],
    ),
]


class DecisionRequest(BaseModel):
    """What somebody decided, and of what: `digest` is that of the approval as it was shown to him."""

    model_config = ConfigDict(extra="forbid")

    decision: Verdict
    digest: str = Field(min_length=1, max_length=200, examples=["sha256:9f86d081884c7d65…"])
    reason: str = Field(default="", max_length=4_000)


def router() -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["approvals"])
    routes.get(
        "/v1/approvals",
        operation_id="list_approvals",
        summary="List approvals",
        response_model=ApprovalPage,
        responses=documented(422),
    )(list_approvals)
    routes.get(
        "/v1/approvals/{approval_id}",
        operation_id="get_approval",
        summary="Get one approval",
        response_model=ApprovalView,
        responses=documented(404, 422),
    )(get_approval)
    routes.post(
        "/v1/approvals/{approval_id}/decision",
        operation_id="decide_approval",
        summary="Approve or reject",
        status_code=202,
        response_model=RunAccepted,
        responses=documented(400, 404, 409, 413, 415, 422),
        openapi_extra=body_of(DecisionRequest),
    )(decide_approval)
    return routes


async def list_approvals(
    call: Caller,
    bus: TheBus,
    *,
    status: Annotated[ApprovalStatus | None, Query(description="Only approvals that stand so.")] = None,
    run_id: Annotated[str | None, Query(pattern=RUN_PATTERN, description="Only of this run.")] = None,
    workflow: Annotated[str | None, Query(pattern=NAME_PATTERN, description="Only of runs of this workflow.")] = None,
    approver: Annotated[
        Plain | None, Query(min_length=1, max_length=200, description="Only those that name this principal or role.")
    ] = None,
    mine: Annotated[bool, Query(description="Only those that whoever asks may approve now.")] = False,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[str | None, Query(description="`next_cursor` of the page before.")] = None,
) -> Response:
    """Approvals: those that are open first, then the newest."""
    question = ListApprovals(
        status=status, run_id=run_id, workflow=workflow, approver=approver, mine=mine, limit=limit, cursor=cursor
    )
    return answer(await bus.call(question, call))


async def get_approval(approval_id: ApprovalPath, call: Caller, bus: TheBus) -> Response:
    """What exactly is asked, of whom, and what was decided."""
    return answer(await bus.call(GetApproval(approval_id=approval_id), call))


async def decide_approval(approval_id: ApprovalPath, request: Request, call: Caller, bus: TheBus) -> Response:
    """Approve or reject exactly what `digest` stands for; anything else is a conflict and changes nothing."""
    asked = await read_json(request, DecisionRequest)
    command = DecideApproval(approval_id=approval_id, digest=asked.digest, decision=asked.decision, reason=asked.reason)
    # No two are the same message: whoever was refused may have got the role since, or be asked by now. What somebody
    # has decided already counts once by itself, however often he says it.
    return await order_run(request, call, bus, command)
