"""Which budgets a model call counts on, and whether they have room for it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import Final, NamedTuple

from paracle_domain.budget.spec import EACH, Budget, BudgetScope, OnHit

_NOTHING: Final = Decimal(0)


@dataclass(frozen=True, slots=True)
class Spender:
    """Whom a call is for. What is `None` is not known, and no budget of that scope counts the call."""

    tenant: str
    project: str | None = None
    user: str | None = None
    agent: str | None = None
    run: str | None = None
    task: str | None = None


class Charge(NamedTuple):
    """A count that a call goes on: that of a budget, for one subject, in one window."""

    budget: Budget
    subject: str
    period: str


class Book:
    """The budgets of one tenant, found by whom they are for: looking takes as long with a thousand as with one."""

    def __init__(self, budgets: Iterable[Budget] = ()) -> None:
        self.budgets = {budget.name: budget for budget in budgets}
        self._by_subject: dict[tuple[BudgetScope, str], list[Budget]] = {}
        for budget in sorted(self.budgets.values(), key=lambda one: one.name):
            self._by_subject.setdefault((budget.scope, budget.of), []).append(budget)
        self._scopes = [scope for scope in BudgetScope if any(known is scope for known, _ in self._by_subject)]

    def charges(self, spender: Spender, at: datetime) -> list[Charge]:
        """What a call of `spender` at the time `at` goes on."""
        found: list[Charge] = []
        for scope in self._scopes:
            subject: str | None = getattr(spender, scope.value)
            if subject is None:
                continue
            for of in dict.fromkeys((EACH, subject)):
                budgets = self._by_subject.get((scope, of), ())
                found.extend(Charge(budget, subject, budget.window.period(at)) for budget in budgets)
        return found


@dataclass(frozen=True, slots=True)
class Amount:
    """What a call uses, or may use. `usd` is `None` where the price is unknown, which is not zero."""

    usd: Decimal | None
    tokens: int


class Room(Enum):
    """Whether a count takes one more call.

    `FULL`: not now, since what is left is reserved by calls in the air, of which some may come back. `OVER`: not any
    more, since the limit was spent.
    """

    OPEN = "open"
    FULL = "full"
    OVER = "over"


@dataclass(frozen=True, slots=True)
class Tally:
    """How a count stands. `raised` is what people added to the limit, for this window alone."""

    spent_usd: Decimal = _NOTHING
    reserved_usd: Decimal = _NOTHING
    raised_usd: Decimal = _NOTHING
    spent_tokens: int = 0
    reserved_tokens: int = 0
    raised_tokens: int = 0
    calls: int = 0
    unpriced_calls: int = 0

    def room(self, budget: Budget) -> Room:
        """Whether one more call may go on this count of `budget`."""
        found = Room.OPEN
        for limit, spent, reserved in (
            (self.limit_usd(budget), self.spent_usd, self.reserved_usd),
            (self.limit_tokens(budget), self.spent_tokens, self.reserved_tokens),
        ):
            if limit is None:
                continue
            if spent >= limit:
                return Room.OVER
            if spent + reserved >= limit:
                found = Room.FULL
        return found

    def limit_usd(self, budget: Budget) -> Decimal | None:
        """How much money may be spent in all."""
        return None if budget.limit_usd is None else budget.limit_usd + self.raised_usd

    def limit_tokens(self, budget: Budget) -> int | None:
        """How many tokens may be used in all."""
        return None if budget.limit_tokens is None else budget.limit_tokens + self.raised_tokens

    def reserve(self, estimate: Amount) -> Tally:
        """With one more call in the air."""
        usd = self.reserved_usd + (estimate.usd or _NOTHING)
        return replace(self, reserved_usd=usd, reserved_tokens=self.reserved_tokens + estimate.tokens)

    def release(self, estimate: Amount) -> Tally:
        """With that call no longer in the air."""
        usd = self.reserved_usd - (estimate.usd or _NOTHING)
        return replace(self, reserved_usd=usd, reserved_tokens=self.reserved_tokens - estimate.tokens)

    def spend(self, used: Amount) -> Tally:
        """With what a call has used."""
        return replace(
            self,
            spent_usd=self.spent_usd + (used.usd or _NOTHING),
            spent_tokens=self.spent_tokens + used.tokens,
            calls=self.calls + 1,
            unpriced_calls=self.unpriced_calls + (used.usd is None),
        )

    def add(self, usd: Decimal, tokens: int) -> Tally:
        """With so much added to the limits."""
        return replace(self, raised_usd=self.raised_usd + usd, raised_tokens=self.raised_tokens + tokens)


def holds_back(budget: Budget, model: str) -> bool:
    """Whether a call of `model`, as its caller names it, is held back by `budget` when that is used up.

    It is not if `model` is what the budget itself turns to.
    """
    return budget.on_hit is not OnHit.MODEL or budget.model != model
