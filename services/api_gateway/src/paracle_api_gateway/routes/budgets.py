"""Budgets: what model calls may use, how far that is used, and changing it."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from paracle_api_gateway.auth import Caller
from paracle_api_gateway.bodies import read_json
from paracle_api_gateway.problems import documented
from paracle_api_gateway.routes.common import IdempotencyKey, TheBus, answer, body_of
from paracle_domain.budget.messages import (
    BudgetList,
    BudgetView,
    DeleteBudget,
    ListBudgets,
    RaiseBudget,
    SetBudget,
)
from paracle_domain.budget.spec import Budget, BudgetName, BudgetScope, BudgetTerms, SubjectName, Tokens, Usd
from paracle_domain.errors import InvalidInput
from paracle_domain.ids import id_from_key, new_id
from paracle_domain.messages import Plain

BudgetPath = Annotated[BudgetName, Path(description="Name of the budget.", examples=["team-a"])]
Reason = Annotated[Plain, Field(max_length=1_000)]
_TERMS: Final[JsonValue] = {"scope": "project", "of": "atlas", "limit_usd": "20", "window": "day"}


class BudgetRequest(BudgetTerms):
    """A limit on what model calls use: in money, in tokens, or in both."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [_TERMS]})

    reason: Reason | None = None


class RaiseRequest(BaseModel):
    """By how much the limit of one subject goes up, for the window that is now."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"subject": "atlas", "usd": "5"}]})

    subject: SubjectName
    usd: Usd | None = None
    tokens: Tokens | None = None
    reason: Reason | None = None


def router() -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["budgets"])
    routes.get(
        "/v1/budgets",
        operation_id="list_budgets",
        summary="List budgets",
        response_model=BudgetList,
        responses=documented(422),
    )(list_budgets)
    routes.put(
        "/v1/budgets/{name}",
        operation_id="set_budget",
        summary="Set a budget",
        response_model=BudgetView,
        responses=documented(400, 409, 413, 415, 422),
        openapi_extra=body_of(BudgetRequest),
    )(set_budget)
    routes.delete(
        "/v1/budgets/{name}",
        operation_id="delete_budget",
        summary="Delete a budget",
        response_model=BudgetView,
        responses=documented(404, 422),
    )(delete_budget)
    routes.post(
        "/v1/budgets/{name}/raise",
        operation_id="raise_budget",
        summary="Raise a budget for the window that is now",
        response_model=BudgetView,
        responses=documented(400, 404, 409, 413, 415, 422),
        openapi_extra=body_of(RaiseRequest),
    )(raise_budget)
    return routes


async def list_budgets(
    call: Caller,
    bus: TheBus,
    *,
    name: Annotated[BudgetName | None, Query(description="Only this one.")] = None,
    scope: Annotated[BudgetScope | None, Query(description="Only budgets of this scope.")] = None,
    subject: Annotated[
        SubjectName | None, Query(description="Only what this project, user, agent, run or task has used.")
    ] = None,
    subjects: Annotated[int, Query(ge=1, le=500, description="Most subjects that are shown of each budget.")] = 20,
) -> Response:
    """Budgets by name, each with what is spent, reserved and left, of those subjects that have used most."""
    return answer(await bus.call(ListBudgets(name=name, scope=scope, subject=subject, subjects=subjects), call))


async def set_budget(name: BudgetPath, request: Request, call: Caller, bus: TheBus) -> Response:
    """Set it, or change the one that is there: what it has counted stays, as far as scope and window do."""
    asked = await read_json(request, BudgetRequest)
    budget = Budget.model_validate({**asked.model_dump(exclude={"reason"}), "name": name})
    return answer(await bus.call(SetBudget(budget=budget, reason=asked.reason), call))


async def delete_budget(
    name: BudgetPath,
    call: Caller,
    bus: TheBus,
    reason: Annotated[Reason | None, Query(description="Why; kept in the audit log.")] = None,
) -> Response:
    """From now on it holds nothing back; the answer says how it stood."""
    return answer(await bus.call(DeleteBudget(name=name, reason=reason), call))


async def raise_budget(
    name: BudgetPath, request: Request, call: Caller, bus: TheBus, idempotency_key: IdempotencyKey = None
) -> Response:
    """Add to the limit of one subject until the window ends; the budget itself stays as it was set."""
    asked = await read_json(request, RaiseRequest)
    if asked.usd is None and asked.tokens is None:
        raise InvalidInput("say by how much: usd, tokens, or both")
    key = new_id("msg") if idempotency_key is None else id_from_key("msg", f"{call.tenant}/{name}/{idempotency_key}")
    order = RaiseBudget(
        name=name, subject=asked.subject, key=key, usd=asked.usd, tokens=asked.tokens, reason=asked.reason
    )
    return answer(await bus.call(order, call))
