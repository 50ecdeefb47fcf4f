"""Models and money: deployments, what model calls used, and what they may use."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from paracle_client.calls.call import Call, chosen, keyed, part_of
from paracle_domain.budget.messages import BudgetList, BudgetView
from paracle_domain.budget.spec import Budget, BudgetScope
from paracle_domain.inference.caching import CacheCleared
from paracle_domain.inference.deployments import DeploymentList
from paracle_domain.inference.ledger import UsageBy, UsageFilter, UsageRecords, UsageTable


def query_usage(by: Sequence[UsageBy] = (), which: UsageFilter | None = None, *, limit: int = 500) -> Call[UsageTable]:
    """What model calls (those that fit `which`) used, added up `by` any of its kinds; with the total."""
    return Call("GET", "/v1/usage", UsageTable, {"by": list(by), **chosen(which), "limit": limit})


def attempts(which: UsageFilter | None = None, *, limit: int = 100, cursor: str | None = None) -> Call[UsageRecords]:
    """Attempts of model calls one by one, newest first."""
    return Call("GET", "/v1/attempts", UsageRecords, {**chosen(which), "limit": limit, "cursor": cursor})


def deployments(name: str | None = None) -> Call[DeploymentList]:
    """Deployments: their limits with what is in use of them, and the breakers of the replica that answers."""
    return Call("GET", "/v1/deployments", DeploymentList, {"name": name})


def clear_cache() -> Call[CacheCleared]:
    """Drop all cached answers of models."""
    return Call("DELETE", "/v1/cache", CacheCleared)


def budgets(
    *, name: str | None = None, scope: BudgetScope | None = None, subject: str | None = None, subjects: int = 20
) -> Call[BudgetList]:
    """Budgets, and what is spent, reserved and left of each."""
    found = {"name": name, "scope": scope, "subject": subject, "subjects": subjects}
    return Call("GET", "/v1/budgets", BudgetList, found)


def set_budget(budget: Budget, *, reason: str | None = None) -> Call[BudgetView]:
    """Set a budget, or change the one of that name."""
    body = {**budget.model_dump(mode="json", exclude={"name"}, exclude_none=True), "reason": reason}
    return Call("PUT", f"/v1/budgets/{part_of(budget.name)}", BudgetView, json=body)


def delete_budget(name: str, *, reason: str | None = None) -> Call[BudgetView]:
    """Let a budget hold nothing back any more; answered with how it stood."""
    return Call("DELETE", f"/v1/budgets/{part_of(name)}", BudgetView, {"reason": reason})


def raise_budget(
    name: str,
    subject: str,
    *,
    usd: Decimal | None = None,
    tokens: int | None = None,
    reason: str | None = None,
    idempotency_key: str | None = None,
) -> Call[BudgetView]:
    """Add to the limit of one subject of a budget, until its window ends."""
    body = {"subject": subject, "usd": None if usd is None else str(usd), "tokens": tokens, "reason": reason}
    path = f"/v1/budgets/{part_of(name)}/raise"
    return Call("POST", path, BudgetView, headers=keyed(idempotency_key), json=body)
