"""What can be asked about budgets; the provider gateway answers."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Self

from pydantic import Field, model_validator

from paracle_domain.budget.spec import Budget, BudgetName, BudgetScope, SubjectName, Tokens, Usd
from paracle_domain.messages import Message, Plain, Request, Value


class BudgetUse(Value):
    """How the count of one subject stands, in the window that is now.

    `limit_*` are the budget's with what was added for this window (`raised_*`); `remaining_*` is what neither is spent
    nor reserved, never below zero. A limit that is absent does not exist. `hit_at` is when a call was first held back.
    `unpriced_calls` are counted in tokens only.
    """

    subject: str
    period: str
    ends_at: datetime | None = None
    spent_usd: Decimal = Decimal(0)
    reserved_usd: Decimal = Decimal(0)
    raised_usd: Decimal = Decimal(0)
    limit_usd: Decimal | None = None
    remaining_usd: Decimal | None = None
    spent_tokens: int = 0
    reserved_tokens: int = 0
    raised_tokens: int = 0
    limit_tokens: int | None = None
    remaining_tokens: int | None = None
    calls: int = 0
    unpriced_calls: int = 0
    hit_at: datetime | None = None

    @property
    def is_over(self) -> bool:
        """Whether a limit was spent, so that no call may go on it any more."""
        usd = self.limit_usd is not None and self.spent_usd >= self.limit_usd
        return usd or (self.limit_tokens is not None and self.spent_tokens >= self.limit_tokens)


class BudgetView(Message, type_name="budget.view"):
    """A budget and how far it is used. A budget for each subject shows the subjects that have used it, most first.

    `revision` counts the changes of the budget itself. `more`: there are more subjects than are shown.
    """

    budget: Budget
    revision: int
    set_by: str
    set_at: datetime
    uses: tuple[BudgetUse, ...] = ()
    more: bool = False


class BudgetList(Message, type_name="budget.list"):
    """Budgets by name."""

    budgets: tuple[BudgetView, ...]


class SetBudget(Request[BudgetView], service="provider_gateway", method="set_budget", answer=BudgetView):
    """Set a budget, or change the one of that name: what it has counted stays, as far as its scope and window do.

    It counts from when it is set on. Audited as `budget.set`.
    """

    budget: Budget
    reason: Plain | None = Field(default=None, max_length=1_000)


class DeleteBudget(Request[BudgetView], service="provider_gateway", method="delete_budget", answer=BudgetView):
    """Let a budget hold back nothing any more, and forget what it counted; answered with how it stood.

    `NotFound` if there is none of that name. Audited as `budget.deleted`.
    """

    name: BudgetName
    reason: Plain | None = Field(default=None, max_length=1_000)


class RaiseBudget(Request[BudgetView], service="provider_gateway", method="raise_budget", answer=BudgetView):
    """Add to the limits of one subject of a budget, for the window that is now: once for each `key`.

    With `period`, only if that is the window: one that is over needs nothing any more, and nothing changes. With
    `question` (of `BudgetExceeded.details`), only as long as that is what people would be asked: once the budget was
    changed or raised, or is in its next window, what they agreed to is void, and stays so. Then nothing changes, the
    answer is `Conflict`, and `budget.raise_void` is audited.

    The subject of a budget for the whole tenant is the tenant. Asked again with the same key, it changes nothing.
    Audited as `budget.raised`.
    """

    name: BudgetName
    subject: SubjectName
    key: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9._:-]+$")]
    usd: Usd | None = None
    tokens: Tokens | None = None
    period: Plain | None = Field(default=None, max_length=20)
    question: Plain | None = Field(default=None, max_length=64)
    reason: Plain | None = Field(default=None, max_length=1_000)

    @model_validator(mode="after")
    def _adds_something(self) -> Self:
        if self.usd is None and self.tokens is None:
            message = "say by how much: usd, tokens, or both"
            raise ValueError(message)
        return self


class ListBudgets(
    Request[BudgetList], service="provider_gateway", method="list_budgets", answer=BudgetList, query=True
):
    """The tenant's budgets and how far they are used: all, or those of one name or scope, or of one subject."""

    name: BudgetName | None = None
    scope: BudgetScope | None = None
    subject: SubjectName | None = None
    subjects: int = Field(default=20, ge=1, le=500, description="most subjects that are shown of each budget")
