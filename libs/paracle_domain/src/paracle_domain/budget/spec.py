"""What a budget is. Windows are those of the calendar, in UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Final, Self, assert_never

from pydantic import Field, model_validator

from paracle_domain.messages import Plain, Value
from paracle_domain.workflow.spec import ApprovalRules

EACH: Final = "*"
"""Stands for every subject of a scope, each with a count of its own."""

BudgetName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
SubjectName = Annotated[Plain, Field(min_length=1, max_length=256)]
Usd = Annotated[Decimal, Field(gt=0, le=1_000_000_000, decimal_places=9)]
Tokens = Annotated[int, Field(gt=0, le=10**15)]


class BudgetScope(StrEnum):
    """Whose calls a budget counts, by the labels of a call. `user` is the principal that started the run."""

    TENANT = "tenant"
    PROJECT = "project"
    USER = "user"
    AGENT = "agent"
    RUN = "run"
    TASK = "task"


class BudgetWindow(StrEnum):
    """When a count begins anew: at midnight, on the first of the month, or never."""

    DAY = "day"
    MONTH = "month"
    TOTAL = "total"

    def period(self, at: datetime) -> str:
        """The window that `at` falls into: `2026-11-26`, `2026-11` or `total`."""
        day = at.astimezone(UTC)
        match self:
            case BudgetWindow.DAY:
                return f"{day:%Y-%m-%d}"
            case BudgetWindow.MONTH:
                return f"{day:%Y-%m}"
            case BudgetWindow.TOTAL:
                return "total"
            case _:
                assert_never(self)

    def ends(self, at: datetime) -> datetime | None:
        """When the window that `at` falls into is over; `None`: never."""
        midnight = at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        match self:
            case BudgetWindow.DAY:
                return midnight + timedelta(days=1)
            case BudgetWindow.MONTH:
                return (midnight.replace(day=1) + timedelta(days=32)).replace(day=1)
            case BudgetWindow.TOTAL:
                return None
            case _:
                assert_never(self)


class OnHit(StrEnum):
    """What becomes of a call when the budget is used up.

    `stop`: it fails with `budget_exceeded`. `ask`: it fails likewise, and the agent's task asks people whether the
    budget is raised. `model`: another model is asked; what that one uses is counted, and not held back by this budget.
    """

    STOP = "stop"
    ASK = "ask"
    MODEL = "model"


class BudgetApproval(ApprovalRules):
    """Who is asked whether a budget is raised, with `on_hit: ask`. Without names: everybody but who started the run."""


class Unpriced(StrEnum):
    """What becomes of a call whose price nobody knows, where money is counted. `allow`: only its tokens count."""

    REFUSE = "refuse"
    ALLOW = "allow"


class BudgetTerms(Value):
    """What a `Budget` says, whatever it is called."""

    scope: BudgetScope = BudgetScope.TENANT
    of: SubjectName = EACH
    window: BudgetWindow = BudgetWindow.TOTAL
    limit_usd: Usd | None = None
    limit_tokens: Tokens | None = None
    on_hit: OnHit = OnHit.STOP
    model: Annotated[Plain, Field(min_length=1, max_length=200)] | None = None
    unpriced: Unpriced = Unpriced.REFUSE
    approval: BudgetApproval = BudgetApproval()

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.limit_usd is None and self.limit_tokens is None:
            message = "a budget limits something: give limit_usd, limit_tokens, or both"
            raise ValueError(message)
        if (self.on_hit is OnHit.MODEL) != (self.model is not None):
            message = "on_hit: model and the field model belong together: name the model that is asked instead"
            raise ValueError(message)
        if self.scope is BudgetScope.TENANT and self.of != EACH:
            message = "a budget of scope tenant is for the whole tenant; leave out the field of"
            raise ValueError(message)
        return self


class Budget(BudgetTerms):
    """A limit on what model calls use: in money, in tokens, or in both.

    Room is reserved before a call and settled after it, by all replicas together. A call goes ahead as long as what was
    spent and what is reserved are below the limit, so all calls together pass it by one of them at most.

    `of` is the one project, user, agent, run or task that is meant, or `*`: each, with a count of its own. A tenant has
    no budgets of others. `model` is who is asked instead, with `on_hit: model`; `approval` says which people are asked,
    with `on_hit: ask`.
    """

    name: BudgetName
