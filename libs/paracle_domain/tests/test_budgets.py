"""Budgets: what they are, which calls they count, whether they have room; against a naive model."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from paracle_domain.budget.matching import Amount, Book, Charge, Room, Spender, Tally, holds_back
from paracle_domain.budget.messages import ListBudgets, RaiseBudget, SetBudget
from paracle_domain.budget.spec import EACH, Budget, BudgetScope, BudgetWindow, OnHit, Unpriced
from paracle_domain.errors import BudgetExceeded, from_info, from_problem

AT = datetime(2026, 11, 26, 12, 30, tzinfo=UTC)
ATHENS = timezone(timedelta(hours=2))
DECADES = (datetime(2000, 1, 1), datetime(2100, 1, 1))  # noqa: DTZ001  # Hypothesis adds the zone
SUBJECTS = ("ann", "bob", EACH)


def budget(name: str = "b", **more: Any) -> Budget:
    more = {"limit_usd": Decimal(1)} | more
    return Budget(name=name, **more)


class TestSpec:
    @pytest.mark.parametrize(
        ("fields", "said"),
        [
            ({"limit_usd": None}, "limits something"),
            ({"on_hit": "model"}, "belong together"),
            ({"model": "sandbox/rules"}, "belong together"),
            ({"of": "acme"}, "for the whole tenant"),
            ({"limit_usd": 0}, "greater than 0"),
            ({"limit_tokens": -1}, "greater than 0"),
            ({"name": "a.b"}, "pattern"),
            ({"of": ""}, "at least 1"),
            ({"on_hit": "model", "model": "a/b\0"}, "cannot be looked for or kept"),
        ],
    )
    def test_nonsense_is_refused(self, fields: dict[str, Any], said: str):
        with pytest.raises(ValidationError, match=said):
            budget(**fields)

    def test_what_a_budget_is_if_nothing_else_is_said(self):
        one = Budget(name="b", limit_tokens=5)
        assert (one.scope, one.of, one.window) == (BudgetScope.TENANT, EACH, BudgetWindow.TOTAL)
        assert (one.on_hit, one.unpriced) == (OnHit.STOP, Unpriced.REFUSE)

    def test_a_raise_adds_something(self):
        with pytest.raises(ValidationError, match="by how much"):
            RaiseBudget(name="b", subject="acme", key="k")
        assert RaiseBudget(name="b", subject="acme", key="k", tokens=1).usd is None

    def test_messages_survive_the_wire(self):
        message = SetBudget(budget=budget(limit_usd=Decimal("0.25"), scope="agent", of="triage", window="day"))
        assert SetBudget.decode(message.encode()) == message
        assert ListBudgets.decode(b"{}") == ListBudgets()


class TestWindows:
    @pytest.mark.parametrize(
        ("window", "at", "period", "ends"),
        [
            ("day", AT, "2026-11-26", datetime(2026, 11, 27, tzinfo=UTC)),
            ("month", AT, "2026-11", datetime(2026, 12, 1, tzinfo=UTC)),
            ("month", datetime(2026, 12, 31, 23, tzinfo=UTC), "2026-12", datetime(2027, 1, 1, tzinfo=UTC)),
            ("total", AT, "total", None),
            ("day", datetime(2026, 1, 1, 1, tzinfo=ATHENS), "2025-12-31", datetime(2026, 1, 1, tzinfo=UTC)),
        ],
    )  # fmt: skip
    def test_they_are_those_of_the_calendar_in_utc(self, window: str, at: datetime, period: str, ends: datetime | None):
        assert BudgetWindow(window).period(at) == period
        assert BudgetWindow(window).ends(at) == ends

    @given(st.datetimes(*DECADES, timezones=st.just(UTC)))
    def test_a_window_ends_where_the_next_begins(self, at: datetime):
        for window in (BudgetWindow.DAY, BudgetWindow.MONTH):
            end = window.ends(at)
            assert end is not None
            assert at < end
            assert window.period(end - timedelta(microseconds=1)) == window.period(at) != window.period(end)


budgets = st.builds(
    Budget,
    name=st.from_regex(r"[a-f]{1,2}", fullmatch=True),
    scope=st.sampled_from(list(BudgetScope)[1:]),
    of=st.sampled_from(SUBJECTS),
    window=st.sampled_from(BudgetWindow),
    limit_usd=st.decimals("0.01", 9, places=2),
)
tenants = st.builds(Budget, name=st.just("whole"), window=st.sampled_from(BudgetWindow), limit_tokens=st.integers(1, 9))
names = st.none() | st.sampled_from(SUBJECTS)
spenders = st.builds(Spender, st.just("acme"), names, names, names, names, names)


class TestMatching:
    @given(st.lists(budgets | tenants, max_size=12, unique_by=lambda one: one.name), spenders)
    def test_a_call_goes_on_what_a_look_at_every_budget_says(self, all_of_them: list[Budget], spender: Spender):
        naive = []
        for one in all_of_them:
            subject = getattr(spender, one.scope.value)
            if subject is not None and one.of in {EACH, subject}:
                naive.append(Charge(one, subject, one.window.period(AT)))
        found = Book(all_of_them).charges(spender, AT)
        assert sorted(found, key=lambda one: one.budget.name) == sorted(naive, key=lambda one: one.budget.name)

    def test_no_budgets_are_no_charges(self):
        assert Book().charges(Spender("acme", user="ann"), AT) == []

    def test_the_model_that_a_budget_turns_to_is_not_held_back(self):
        cheaper = budget(on_hit="model", model="sandbox/rules")
        assert not holds_back(cheaper, "sandbox/rules")
        assert holds_back(cheaper, "openai/gpt-5")
        assert holds_back(budget(), "sandbox/rules")


usds = st.none() | st.decimals(0, 2, places=3)
amounts = st.builds(Amount, usds, st.integers(0, 50))


class TestRoom:
    def test_over_is_what_was_spent_and_full_what_is_reserved(self):
        one = budget(limit_usd=Decimal(1), limit_tokens=100)
        empty = Tally()
        assert empty.room(one) is Room.OPEN
        assert empty.reserve(Amount(Decimal(1), 5)).room(one) is Room.FULL
        assert empty.reserve(Amount(None, 100)).room(one) is Room.FULL
        assert empty.spend(Amount(Decimal(1), 5)).room(one) is Room.OVER
        assert empty.spend(Amount(None, 100)).room(one) is Room.OVER
        assert empty.spend(Amount(Decimal(1), 5)).add(Decimal(1), 0).room(one) is Room.OPEN
        full_of_money_over_in_tokens = empty.reserve(Amount(Decimal(2), 0)).spend(Amount(None, 100))
        assert full_of_money_over_in_tokens.room(one) is Room.OVER

    def test_without_a_limit_there_is_room(self):
        much = Tally().spend(Amount(Decimal(10**6), 10**9))
        assert much.room(budget(limit_usd=None, limit_tokens=10**10)) is Room.OPEN
        assert much.limit_usd(budget(limit_usd=None, limit_tokens=1)) is None
        assert much.limit_tokens(budget()) is None

    def test_unknown_prices_are_counted_apart(self):
        spent = Tally().spend(Amount(None, 7)).spend(Amount(Decimal("0.5"), 1))
        assert (spent.spent_usd, spent.spent_tokens, spent.calls, spent.unpriced_calls) == (Decimal("0.5"), 8, 2, 1)

    @given(st.lists(st.tuples(amounts, st.integers(0, 3)), max_size=30), st.decimals("0.01", 5, places=2))
    def test_calls_pass_the_limit_by_one_of_them_at_most(self, calls: list[tuple[Amount, int]], limit: Decimal):
        """Whatever ends when: what is admitted while there is room never adds up to the limit and a whole call."""
        one, tally = budget(limit_usd=limit), Tally()
        in_air: list[Amount] = []
        largest = max((call.usd or Decimal(0) for call, _ in calls), default=Decimal(0))
        for estimate, ends in calls:
            if tally.room(one) is Room.OPEN:
                tally = tally.reserve(estimate)
                in_air.append(estimate)
            for ended in in_air[:ends]:
                tally = tally.release(ended).spend(ended)
            del in_air[:ends]
            assert tally.spent_usd + tally.reserved_usd < limit + max(largest, Decimal("0.001"))
        for ended in in_air:
            tally = tally.release(ended).spend(ended)
        assert tally.reserved_usd == tally.reserved_tokens == 0


def test_the_error_says_for_programs_what_it_is_about():
    error = BudgetExceeded("over", details={"budget": "b", "on_hit": "ask"})
    for again in (from_problem(error.to_problem()), from_info(error.to_info())):
        assert type(again) is BudgetExceeded
        assert again.details == {"budget": "b", "on_hit": "ask"}
    assert not error.retryable
