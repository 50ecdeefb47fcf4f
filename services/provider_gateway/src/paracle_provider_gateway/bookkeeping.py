"""Accounts on a ledger: which budgets an attempt goes on, what it may use, whether there is room, what it came to."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from itertools import count
from typing import Final
from uuid import UUID

from paracle_chassis.batching import Batches
from paracle_chassis.outages import as_unavailable
from paracle_domain.budget.matching import Book, Charge, Spender, Tally, holds_back
from paracle_domain.budget.spec import Budget, OnHit, Unpriced
from paracle_domain.envelope import Context
from paracle_domain.errors import (
    BudgetExceeded,
    Cancelled,
    ContentRefused,
    DeadlineExceeded,
    InternalError,
    Unavailable,
)
from paracle_domain.inference.embedding import ModelCall
from paracle_domain.inference.estimate import estimate_input, estimate_output
from paracle_domain.inference.request import Complete
from paracle_domain.inference.response import Completion
from paracle_domain.inference.usage import NOTHING, Usage
from paracle_domain.provider.spec import DeploymentLimits
from paracle_provider_gateway.accounts import GRANTED, Attempt, Full, MadeElsewhere, Opening, Outcome
from paracle_provider_gateway.ledger import (
    Count,
    Elsewhere,
    Ending,
    Ledger,
    Mode,
    NoRoom,
    Order,
    Over,
    Page,
    Settlement,
    Stale,
    Verdict,
)
from paracle_provider_gateway.outflow import Outflow
from paracle_provider_gateway.ports import Prices

_log = logging.getLogger(__name__)

_ZERO: Final = Decimal(0)
_NO_LIMITS: Final = DeploymentLimits()
BOOKS_KEPT: Final = 2_048
_COUNTS_KEPT: Final = 512
_BATCH: Final = 256
_MAY_HAVE_COST: Final = frozenset({Cancelled.code, DeadlineExceeded.code, InternalError.code, ContentRefused.code})
"""Errors that come of asking a provider which goes on, and charges, all the same."""
_AWAY: Final = "the provider gateway cannot reach PostgreSQL, where budgets and the usage ledger are; ask again"
_LIMIT_NAMES: Final = {
    "concurrency": "as many calls as it may have are in the air",
    "requests": "its requests of this minute are used up",
    "tokens": "its tokens of this minute are used up",
    "doubt": "PostgreSQL has lost its last moments, of which it is told again",
}


class Bookkeeper:
    """`Accounts` and `Savings` on a ledger.

    Parameters
    ----------
    clock
        The time, in UTC.
    """

    def __init__(
        self,
        ledger: Ledger,
        prices: Prices,
        outflow: Outflow,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._ledger = ledger
        self._prices = prices
        self._outflow = outflow
        self._clock = clock
        self._books: dict[str, _Shelf] = {}
        self._openings: Batches[Order, Verdict] = Batches(
            self._reserve,
            abandoned=self._given_up,
            alone=lambda error: not isinstance(error, Unavailable),
            most=_BATCH,
        )
        self._live: dict[Attempt, Order] = {}
        self._mine: set[tuple[str, str]] = set()
        self._given_up_lately: list[Settlement] = []
        self._given_up_before: list[Settlement] = []
        self._reading = asyncio.Lock()
        self._serials = count(time.time_ns() // 1_000)

    async def open(self, attempt: Attempt) -> Opening:
        """See `Accounts.open`."""
        while True:
            shelf = await self._shelf(attempt.context.tenant)
            order = self._order(attempt, shelf)
            if order.usd is None and (refusal := _unpriced(order)) is not None:
                await self._confirm(shelf, refusal)
                continue
            try:
                verdict = await self._openings(order)
            except Unavailable as error:
                self._given_up(order, error)
                raise
            match verdict:
                case None:
                    self._live[attempt] = order
                    self._mine.add((order.tenant, order.call_id))
                    return GRANTED
                case Stale():
                    self._forget(shelf)
                case Elsewhere(replica):
                    raise MadeElsewhere(replica)
                case Over(counted, tally):
                    raise _exceeded(counted, tally, order)
                case NoRoom():
                    return _full(verdict)

    def settle(self, attempt: Attempt, outcome: Outcome) -> None:
        """See `Accounts.settle`."""
        order = self._live.pop(attempt)
        self._outflow.add([self._settlement(attempt, order, outcome)])

    def cached(self, request: Complete, context: Context, answer: Completion) -> None:
        """See `Savings.cached`."""
        order = Order(
            tenant=context.tenant,
            call_id=request.call_id,
            serial=next(self._serials),
            number=1,
            labels=_labels(request, context),
            provider=answer.provider,
            model=answer.model,
            usd=_ZERO,
            tokens=0,
            load=None,
            limits=_NO_LIMITS,
            counts=(),
            revision=0,
        )
        saved = answer.saved or NOTHING
        spared = Settlement(order, Ending.CACHED, None, answer.model, NOTHING, _ZERO, 0, answer.latency_s, None, saved)
        self._outflow.add([spared])

    async def is_gone(self, replica: str) -> bool:
        """See `Ledger.is_gone`; raises `Unavailable` if nobody can say."""
        with as_unavailable(_AWAY):
            return await self._ledger.is_gone(replica)

    async def take_over(self, tenant: str, call_id: str, replica: str) -> None:
        """`replica` is gone, or lost the answer of a call: the call is made here."""
        with as_unavailable(_AWAY):
            await self._ledger.close_call(tenant, call_id, replica)
        self._mine.add((tenant, call_id))

    def done(self, tenant: str, call_id: str) -> None:
        """The call has ended, as far as this replica is concerned."""
        self._mine.discard((tenant, call_id))

    async def tell_again(self) -> None:
        """PostgreSQL may have lost its last moments: say once more what is in the air, and what has ended lately."""
        self._outflow.doubt()  # of what is open now, some may end, and be settled, before it is opened again
        live = list(self._live.values())
        for order in live:
            order.mode = Mode.AGAIN
        if live:
            await self._ledger.open(live)
        await self._outflow.tell_again()

    def take_back(self) -> None:
        """Take back once more what was given up a while ago: a statement may outlive its connection for a moment."""
        self._outflow.add(self._given_up_before)
        self._given_up_before, self._given_up_lately = self._given_up_lately, []

    async def _reserve(self, orders: Sequence[Order]) -> Sequence[Verdict]:
        with as_unavailable(_AWAY):
            return await self._ledger.open(orders)

    async def _shelf(self, tenant: str) -> _Shelf:
        found = self._books.get(tenant)
        if found is None:
            async with self._reading:  # many may want it at once, of whom one reads it
                found = self._books.get(tenant) or await self._read(tenant)
        return found

    async def _read(self, tenant: str) -> _Shelf:
        with as_unavailable(_AWAY):
            page = await self._ledger.page(tenant)
        if len(self._books) >= BOOKS_KEPT:  # tenants come and go; who is still there is read anew
            del self._books[next(iter(self._books))]
        found = self._books[tenant] = _Shelf(tenant, page)
        return found

    async def _confirm(self, shelf: _Shelf, refusal: BudgetExceeded) -> None:
        """Refuse, unless the budgets have changed meanwhile: who is not asked is not told so either."""
        if (await self._read(shelf.tenant)).revision == shelf.revision:
            raise refusal

    def _forget(self, shelf: _Shelf) -> None:
        if self._books.get(shelf.tenant) is shelf:
            del self._books[shelf.tenant]

    def _order(self, attempt: Attempt, shelf: _Shelf) -> Order:
        request, deployment, context = attempt.request, attempt.deployment, attempt.context
        labels = request.labels
        given, most = estimate_input(request), estimate_output(request, deployment.capabilities.max_output_tokens)
        usd = self._prices.estimate(deployment, given, most)
        user = _user(request, context)
        spender = Spender(context.tenant, labels.project, user, labels.agent, labels.run_id, labels.task_id)
        counts = tuple(
            (counted, holds_back(counted.budget, request.model)) for counted in shelf.counts(spender, self._clock())
        )
        return Order(
            tenant=context.tenant,
            call_id=request.call_id,
            serial=next(self._serials),
            number=attempt.number,
            labels=_labels(request, context),
            provider=deployment.provider.name,
            model=deployment.model,
            usd=usd,
            tokens=given + most,
            load=deployment.load,
            limits=deployment.limits,
            counts=counts,
            revision=shelf.revision,
            mode=Mode.ANYWAY if (context.tenant, request.call_id) in self._mine else Mode.USUAL,
        )

    def _settlement(self, attempt: Attempt, order: Order, outcome: Outcome) -> Settlement:
        ending, usage, model = _ending(outcome), NOTHING, None
        counted_usd, counted_tokens = _ZERO, 0
        if outcome.reply is not None:
            model = outcome.reply.model or attempt.deployment.model
            cost = self._prices.cost(attempt.deployment, model, outcome.reply.usage)
            usage = outcome.reply.usage.model_copy(update={"cost_usd": cost})
            counted_usd, counted_tokens = cost or _ZERO, usage.total_tokens
        elif outcome.lost or outcome.error in _MAY_HAVE_COST or outcome.first_token_s is not None:
            usage = Usage(cost_usd=None)
        if usage.total_tokens == 0 and usage.cost_usd is None:  # nobody knows what it used: at most what it might
            counted_usd, counted_tokens = order.usd or _ZERO, order.tokens
        return Settlement(
            order,
            ending,
            outcome.error,
            model,
            usage,
            counted_usd,
            counted_tokens,
            outcome.latency_s,
            outcome.first_token_s,
        )

    def _given_up(self, order: Order, verdict: Verdict | Exception) -> None:
        """Nobody waits for `order` any more; if it was granted, or may have been, that is taken back."""
        if verdict is None or isinstance(verdict, Exception):
            taken_back = Settlement(order, Ending.CANCELLED, None, None, NOTHING, _ZERO, 0, 0.0, None)
            self._outflow.add([taken_back])
            if verdict is not None:
                self._given_up_lately.append(taken_back)


class _Shelf:
    """A tenant's book at a revision, with the counters that calls have gone on."""

    def __init__(self, tenant: str, page: Page) -> None:
        self.revision = page.revision
        self.tenant = tenant
        self._born = {known.budget.name: known.born for known in page.budgets}
        self._book = Book(known.budget for known in page.budgets)
        self._count = lru_cache(maxsize=_COUNTS_KEPT)(self._made)

    def counts(self, spender: Spender, at: datetime) -> list[Count]:
        """What a call goes on."""
        return [
            self._count(charge.budget.name, charge.subject, charge.period) for charge in self._book.charges(spender, at)
        ]

    def _made(self, name: str, subject: str, period: str) -> Count:
        charge = Charge(self._book.budgets[name], subject, period)
        return count_of(self.tenant, self._born[name], charge)


def count_of(tenant: str, born: int, charge: Charge) -> Count:
    """The counter of a charge; its id follows from all that tells it from others."""
    told = "\x1f".join((tenant, charge.budget.name, str(born), charge.subject, charge.period))
    digest = hashlib.blake2b(told.encode(), digest_size=16).digest()
    return Count(UUID(bytes=digest), tenant, charge.budget, born, charge.subject, charge.period)


def question_of(counted: Count, tally: Tally) -> str:
    """What people are asked about: the same for all calls, until the budget is raised or changed.

    What is as it is by default does not matter, so that fields that are new make no question another.
    """
    budget = counted.budget.model_dump_json(exclude_defaults=True)
    told = (str(counted.id), budget, str(tally.raised_usd), str(tally.raised_tokens))
    return hashlib.blake2b("\x1f".join(told).encode(), digest_size=16).hexdigest()


def _user(request: ModelCall, context: Context) -> str | None:
    return request.labels.principal or context.principal or None


def _labels(request: ModelCall, context: Context) -> tuple[str | None, ...]:
    """As `ledger.LABELS` has them."""
    own = request.labels
    return own.project, _user(request, context), own.agent, own.run_id, own.task_id, own.parent_task_id, own.step


def _ending(outcome: Outcome) -> Ending:
    if outcome.reply is not None:
        return Ending.COMPLETED
    return Ending.CANCELLED if outcome.error == Cancelled.code else Ending.FAILED


def _full(verdict: NoRoom) -> Full:
    if verdict.count is None:
        return Full(_LIMIT_NAMES[verdict.limit], verdict.after_s)
    counted = verdict.count
    what = f"what is left of {_shown(counted)} is reserved by calls in the air"
    return Full(what, verdict.after_s, (counted.tenant, f"{counted.budget.name} {counted.subject}"))


def _shown(counted: Count) -> str:
    of, budget = counted.subject, counted.budget
    period = "" if counted.period == "total" else f" in {counted.period}"
    return f"budget {budget.name!r} (of {budget.scope.value} {of}{period})"


def _details(counted: Count, tally: Tally, order: Order) -> dict[str, str]:
    budget = counted.budget
    found = {
        "budget": budget.name, "subject": counted.subject, "period": counted.period, "on_hit": budget.on_hit.value,
        "estimate_tokens": str(order.tokens),
    }  # fmt: skip
    if order.usd is not None:
        found["estimate_usd"] = str(order.usd)
    if budget.model is not None:
        found["model"] = budget.model
    if budget.on_hit is OnHit.ASK:
        found |= {"approval": budget.approval.model_dump_json(), "question": question_of(counted, tally)}
    return found


def _exceeded(counted: Count, tally: Tally, order: Order) -> BudgetExceeded:
    details, said = _details(counted, tally, order), []
    usd, tokens = tally.limit_usd(counted.budget), tally.limit_tokens(counted.budget)
    if usd is not None:
        details |= {"spent_usd": str(tally.spent_usd), "limit_usd": str(usd)}
        said.append(f"{tally.spent_usd:f} of {usd:f} USD")
    if tokens is not None:
        details |= {"spent_tokens": str(tally.spent_tokens), "limit_tokens": str(tokens)}
        said.append(f"{tally.spent_tokens:,} of {tokens:,} tokens")
    until = "" if counted.period == "total" else ", or wait for its next window"
    option = "--usd" if tokens is None or (usd is not None and tally.spent_usd >= usd) else "--tokens"
    more = f"paracle budget raise {counted.budget.name} {counted.subject} {option} N"
    what = f"{_shown(counted)} is used up: {' and '.join(said)}; raise it (`{more}`){until}"
    return BudgetExceeded(what, details=details)


def _unpriced(order: Order) -> BudgetExceeded | None:
    """Why a call whose price nobody knows is refused, if it is."""
    for counted, strict in order.counts:
        budget: Budget = counted.budget
        if strict and budget.limit_usd is not None and budget.unpriced is Unpriced.REFUSE:
            details = {"budget": budget.name, "subject": counted.subject, "period": counted.period, "on_hit": "stop"}
            if budget.model is not None:
                details |= {"on_hit": budget.on_hit.value, "model": budget.model}
            return BudgetExceeded(
                f"nobody knows what {order.provider}/{order.model} costs, and {_shown(counted)} counts money; give its "
                "provider's manifest a price, or let the budget have unpriced: allow",
                details=details,
            )
    return None
