"""The use cases of budgets: set one, delete it, raise it, and say how far all of them are used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Protocol

from paracle_domain.budget.matching import Charge, Tally
from paracle_domain.budget.messages import (
    BudgetList,
    BudgetUse,
    BudgetView,
    DeleteBudget,
    ListBudgets,
    RaiseBudget,
    SetBudget,
)
from paracle_domain.budget.spec import EACH, Budget, BudgetName, BudgetScope, BudgetWindow
from paracle_domain.envelope import Context
from paracle_domain.errors import Conflict, InvalidInput, NotFound
from paracle_domain.names import suggest
from paracle_provider_gateway.bookkeeping import count_of
from paracle_provider_gateway.ledger import Count


@dataclass(frozen=True, slots=True)
class StoredBudget:
    """A budget as it was set."""

    budget: Budget
    born: int
    revision: int
    set_by: str
    set_at: datetime


@dataclass(frozen=True, slots=True)
class StoredUse:
    """How the count of one subject of a budget stands."""

    budget: str
    subject: str
    period: str
    tally: Tally
    hit_at: datetime | None


@dataclass(frozen=True, slots=True)
class Word:
    """Who changes a budget, and why."""

    principal: str
    reason: str | None


class BudgetStore(Protocol):
    """Keeps budgets; whatever changes one makes an event, and the tenant's book one revision newer."""

    async def put(self, tenant: str, budget: Budget, word: Word) -> None:
        """Set it, or change the one of that name."""

    async def remove(self, tenant: str, name: str, word: Word) -> None:
        """Delete it with what it counted."""

    async def lift(self, count: Count, order: RaiseBudget, word: Word) -> bool:
        """Add to the limits of a count, once for the order's key; whether its question is the one that is open.

        If it is not, nothing is added, and that is told.
        """

    async def find(self, tenant: str, name: str | None = None, scope: str | None = None) -> Sequence[StoredBudget]:
        """Those there are, by name."""

    async def uses(
        self, tenant: str, names: Sequence[str], periods: Sequence[str], subject: str | None, most: int
    ) -> Sequence[StoredUse]:
        """Up to `most` counts of each budget in its period, most used first."""


class BudgetDesk:
    """See the module. `told` is called when there is an event to tell."""

    def __init__(
        self, store: BudgetStore, told: Callable[[], None], clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._store = store
        self._told = told
        self._clock = clock

    async def set_budget(self, request: SetBudget, context: Context) -> BudgetView:
        """See `SetBudget`."""
        await self._store.put(context.tenant, request.budget, Word(context.principal, request.reason))
        self._told()
        return await self._view(context.tenant, request.budget.name)

    async def delete_budget(self, request: DeleteBudget, context: Context) -> BudgetView:
        """See `DeleteBudget`."""
        last = await self._view(context.tenant, request.name)
        await self._store.remove(context.tenant, request.name, Word(context.principal, request.reason))
        self._told()
        return last

    async def raise_budget(self, request: RaiseBudget, context: Context) -> BudgetView:
        """See `RaiseBudget`."""
        known = await self._known(context.tenant, request.name)
        now = known.budget.window.period(self._clock())
        if request.question is None:  # else what it is about decides, and is checked under its lock
            _refuse_what_cannot_be_raised(request, known.budget, context.tenant)
            if request.period not in {None, now}:
                return await self._view(context.tenant, request.name, request.subject)
        count = count_of(context.tenant, known.born, Charge(known.budget, request.subject, now))
        raised = await self._store.lift(count, request, Word(context.principal, request.reason))
        self._told()
        if not raised:
            what = f"budget {request.name!r} was changed since that was asked about it, so nothing is raised; ask anew"
            raise Conflict(what, path="question")
        return await self._view(context.tenant, request.name, request.subject)

    async def list_budgets(self, request: ListBudgets, context: Context) -> BudgetList:
        """See `ListBudgets`."""
        scope = None if request.scope is None else request.scope.value
        known = await self._store.find(context.tenant, request.name, scope)
        views = await self._views(context.tenant, known, request.subject, request.subjects)
        shown = [one for one in views if request.subject is None or one.uses]
        return BudgetList(budgets=tuple(shown))

    async def _known(self, tenant: str, name: BudgetName) -> StoredBudget:
        known = await self._store.find(tenant)
        found = next((one for one in known if one.budget.name == name), None)
        if found is None:
            raise NotFound(
                f"there is no budget {name!r}{suggest(name, (one.budget.name for one in known))}", path="name"
            )
        return found

    async def _view(self, tenant: str, name: BudgetName, subject: str | None = None) -> BudgetView:
        known = await self._known(tenant, name)
        (view,) = await self._views(tenant, [known], subject, 20)
        return view

    async def _views(
        self, tenant: str, known: Sequence[StoredBudget], subject: str | None, most: int
    ) -> list[BudgetView]:
        now = self._clock()
        names = [one.budget.name for one in known]
        periods = [one.budget.window.period(now) for one in known]
        found: dict[str, list[StoredUse]] = {name: [] for name in names}
        for use in await self._store.uses(tenant, names, periods, subject, most + 1):
            found[use.budget].append(use)
        return [_viewed(tenant, one, found[one.budget.name], subject, most, now) for one in known]


def _refuse_what_cannot_be_raised(request: RaiseBudget, budget: Budget, tenant: str) -> None:
    subject = tenant if budget.scope is BudgetScope.TENANT else budget.of
    if subject not in {EACH, request.subject}:
        raise InvalidInput(f"budget {budget.name!r} is for {subject!r} alone", path="subject")
    limits = {"usd": (request.usd, budget.limit_usd), "tokens": (request.tokens, budget.limit_tokens)}
    for field, (more, limit) in limits.items():
        if more is not None and limit is None:
            what = f"budget {budget.name!r} has no limit of that kind; leave {field} out, or set limit_{field}"
            raise InvalidInput(what, path=field)


def _viewed(
    tenant: str, known: StoredBudget, uses: Sequence[StoredUse], subject: str | None, most: int, now: datetime
) -> BudgetView:
    budget = known.budget
    shown = [used(budget, use, now) for use in uses[:most]]
    only = tenant if budget.scope is BudgetScope.TENANT else budget.of
    if not shown and only != EACH and subject in {None, only}:
        unused = StoredUse(budget.name, only, budget.window.period(now), Tally(), None)
        shown = [used(budget, unused, now)]
    return BudgetView(
        budget=budget,
        revision=known.revision,
        set_by=known.set_by,
        set_at=known.set_at,
        uses=tuple(shown),
        more=len(uses) > most,
    )


def used(budget: Budget, use: StoredUse, now: datetime) -> BudgetUse:
    """How the count of one subject stands, as people see it."""
    tally, window = use.tally, BudgetWindow(budget.window)
    usd, tokens = tally.limit_usd(budget), tally.limit_tokens(budget)
    return BudgetUse(
        subject=use.subject,
        period=use.period,
        ends_at=window.ends(now),
        spent_usd=tally.spent_usd,
        reserved_usd=tally.reserved_usd,
        raised_usd=tally.raised_usd,
        limit_usd=usd,
        remaining_usd=None if usd is None else max(Decimal(0), usd - tally.spent_usd - tally.reserved_usd),
        spent_tokens=tally.spent_tokens,
        reserved_tokens=tally.reserved_tokens,
        raised_tokens=tally.raised_tokens,
        limit_tokens=tokens,
        remaining_tokens=None if tokens is None else max(0, tokens - tally.spent_tokens - tally.reserved_tokens),
        calls=tally.calls,
        unpriced_calls=tally.unpriced_calls,
        hit_at=use.hit_at,
    )
