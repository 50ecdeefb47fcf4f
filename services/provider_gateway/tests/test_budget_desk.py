"""Budgets as they are set, deleted, raised and shown; what calls do to them; what is told of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from accounts_samples import PostgresBank, budget, order, settled

from paracle_chassis.postgres import Database
from paracle_chassis.settings import ServiceSettings
from paracle_chassis.testing.eventually import eventually
from paracle_chassis.testing.infra import migrated
from paracle_chassis.testing.memory import MemoryBus
from paracle_domain.budget.matching import Charge, Tally
from paracle_domain.budget.messages import BudgetView, DeleteBudget, ListBudgets, RaiseBudget, SetBudget
from paracle_domain.budget.spec import BudgetApproval
from paracle_domain.envelope import Context
from paracle_domain.errors import Conflict, InvalidInput, NotFound, Unavailable
from paracle_domain.machine import EventRecord
from paracle_provider_gateway.adapters.budgets import BudgetOutbox, PostgresBudgets
from paracle_provider_gateway.bookkeeping import count_of, question_of
from paracle_provider_gateway.budgets import BudgetDesk
from paracle_provider_gateway.ledger import Count, Over

pytestmark = pytest.mark.connected
CALL = Context("acme", principal="ann")
AT = datetime(2026, 11, 26, 12, tzinfo=UTC)


class Counter:
    """Budgets over PostgreSQL, with calls that go on them."""

    def __init__(self, bank: PostgresBank) -> None:
        self.bank = bank
        self.told = 0
        self.store = PostgresBudgets(bank.pool, bank.queries)
        self.desk = BudgetDesk(self.store, self._tell, lambda: AT)
        self.ledger = bank.ledger("a")

    def _tell(self) -> None:
        self.told += 1

    async def set(self, name: str = "b", **more: Any) -> BudgetView:
        return await self.desk.set_budget(SetBudget(budget=budget(name, **more)), CALL)

    async def only(self, **query: Any) -> BudgetView:
        (view,) = (await self.desk.list_budgets(ListBudgets(**query), CALL)).budgets
        return view

    async def count(self, name: str = "b", subject: str = "acme") -> Count:
        (known,) = await self.store.find("acme", name)
        charge = Charge(known.budget, subject, known.budget.window.period(AT))
        return count_of("acme", known.born, charge)

    async def spend(self, usd: str, *counts: Count, tokens: int = 5) -> None:
        page = await self.ledger.page("acme")
        one = order(*counts, usd=usd, revision=page.revision)
        assert list(await self.ledger.open([one])) == [None]
        await self.ledger.settle([settled(one, usd=usd, tokens=tokens)])

    async def events(self) -> list[tuple[str, int, str]]:
        rows = await self.bank.pool.fetch("select budget, seq, type from budget_events order by at, seq")
        return [tuple(row) for row in rows]


@pytest.fixture
async def counter(postgres_dsn: str) -> AsyncIterator[Counter]:
    await migrated(postgres_dsn, "paracle_provider_gateway")
    async with Database(ServiceSettings(postgres_dsn=postgres_dsn), "paracle_provider_gateway") as found:
        bank = PostgresBank(found.pool)
        await bank.join("a")
        yield Counter(bank)


async def test_a_budget_that_is_set_is_shown_with_what_is_left(counter: Counter):
    view = await counter.set(limit_tokens=100)
    assert (view.revision, view.set_by, view.more) == (1, "ann", False)
    (use,) = view.uses
    assert (use.subject, use.remaining_usd, use.remaining_tokens) == ("acme", Decimal(1), 100)
    await counter.spend("0.25", await counter.count(), tokens=30)
    (use,) = (await counter.only()).uses
    assert (use.spent_usd, use.remaining_usd, use.calls) == (Decimal("0.25"), Decimal("0.75"), 1)
    assert (use.spent_tokens, use.remaining_tokens, use.ends_at) == (30, 70, None)


async def test_a_budget_that_changes_keeps_what_it_counted(counter: Counter):
    await counter.set()
    await counter.spend("0.25", await counter.count())
    view = await counter.set(limit_usd=Decimal(2))
    assert (view.revision, view.uses[0].spent_usd, view.uses[0].remaining_usd) == (2, Decimal("0.25"), Decimal("1.75"))


async def test_one_that_is_deleted_and_set_anew_counts_anew(counter: Counter):
    await counter.set()
    old = await counter.count()
    await counter.spend("0.25", old)
    assert (await counter.desk.delete_budget(DeleteBudget(name="b"), CALL)).uses[0].spent_usd == Decimal("0.25")
    assert (await counter.desk.list_budgets(ListBudgets(), CALL)).budgets == ()
    assert (await counter.set()).uses[0].spent_usd == 0
    assert (await counter.count()).id != old.id
    with pytest.raises(NotFound, match="there is no budget 'c'; known: b"):
        await counter.desk.delete_budget(DeleteBudget(name="c"), CALL)


async def test_every_change_makes_the_book_newer(counter: Counter):
    revisions = [(await counter.ledger.page("acme")).revision]
    for change in (counter.set(), counter.set("c"), counter.desk.delete_budget(DeleteBudget(name="c"), CALL)):
        await change
        revisions.append((await counter.ledger.page("acme")).revision)
    assert revisions == [0, 1, 2, 3]


async def test_each_subject_has_its_use_the_largest_first(counter: Counter):
    await counter.set(scope="agent")
    assert (await counter.only()).uses == ()
    for number, name in enumerate(("idle", "busy", "other"), 1):
        await counter.spend(f"0.{number}", await counter.count(subject=name))
    shown = await counter.only(subjects=2)
    assert ([use.subject for use in shown.uses], shown.more) == (["other", "busy"], True)
    assert [use.subject for use in (await counter.only(subject="idle")).uses] == ["idle"]
    assert (await counter.desk.list_budgets(ListBudgets(subject="nobody"), CALL)).budgets == ()
    assert (await counter.desk.list_budgets(ListBudgets(scope="run"), CALL)).budgets == ()


async def test_tenants_are_apart(counter: Counter):
    await counter.set()
    assert (await counter.desk.list_budgets(ListBudgets(), Context("other"))).budgets == ()


async def test_a_raise_holds_for_the_window_and_counts_once(counter: Counter):
    await counter.set(window="day", limit_usd=Decimal("0.2"))
    await counter.spend("0.2", await counter.count())
    assert isinstance(await _refusal(counter), Over)
    lift = RaiseBudget(name="b", subject="acme", key="apr_1", usd=Decimal("0.5"), reason="one more")
    await counter.desk.raise_budget(lift, CALL)
    (use,) = (await counter.desk.raise_budget(lift, CALL)).uses
    assert (use.raised_usd, use.limit_usd, use.remaining_usd) == (Decimal("0.5"), Decimal("0.7"), Decimal("0.5"))
    assert (use.period, use.ends_at) == ("2026-11-26", datetime(2026, 11, 27, tzinfo=UTC))
    assert await _refusal(counter) is None
    assert [what for _, _, what in await counter.events()] == ["budget.set", "budget.hit", "budget.raised"]


async def test_a_raise_for_a_window_that_is_over_changes_nothing(counter: Counter):
    await counter.set(window="day", limit_usd=Decimal("0.2"))
    lift = RaiseBudget(name="b", subject="acme", key="apr_1", usd=Decimal("0.5"), period="2026-11-25")
    (use,) = (await counter.desk.raise_budget(lift, CALL)).uses
    assert (use.period, use.raised_usd) == ("2026-11-26", Decimal(0))
    assert [what for _, _, what in await counter.events()] == ["budget.set"]
    (use,) = (await counter.desk.raise_budget(lift.model_copy(update={"period": "2026-11-26"}), CALL)).uses
    assert use.raised_usd == Decimal("0.5")


async def _used_up(counter: Counter, **more: Any) -> RaiseBudget:
    """What is sent once people have agreed to raise the budget, which calls have used up."""
    await counter.set(limit_usd=Decimal("0.2"), on_hit="ask", **more)
    await counter.spend("0.2", await counter.count())
    question = await _open_question(counter)
    return RaiseBudget(name="b", subject="acme", key="apr_1", usd=Decimal("0.5"), question=question)


async def _open_question(counter: Counter) -> str:
    """What a call that is held back has people asked."""
    found = await _refusal(counter)
    assert isinstance(found, Over)
    return question_of(found.count, found.tally)


async def test_what_people_agreed_to_raises_the_budget_once(counter: Counter):
    lift = await _used_up(counter)
    for _ in range(2):
        (use,) = (await counter.desk.raise_budget(lift, CALL)).uses
        assert (use.raised_usd, use.limit_usd) == (Decimal("0.5"), Decimal("0.7"))
    with pytest.raises(Conflict) as caught:
        await counter.desk.raise_budget(lift.model_copy(update={"key": "apr_2"}), CALL)
    assert caught.value.path == "question", "once it was raised, another approval of that is too late"
    assert (await counter.only()).uses[0].raised_usd == Decimal("0.5")


@pytest.mark.parametrize(
    "change",
    [
        {"limit_usd": Decimal("0.1")},
        {"limit_usd": None, "limit_tokens": 5},
        {"window": "day"},
        {"on_hit": "stop"},
        {"approval": BudgetApproval(roles=("finance",))},
        {"scope": "agent"},
        {"scope": "agent", "of": "writer"},
    ],
)
async def test_what_people_agreed_to_is_void_once_the_budget_is_another(counter: Counter, change: dict[str, Any]):
    lift = await _used_up(counter)
    more: dict[str, Any] = {"limit_usd": Decimal("0.2"), "on_hit": "ask"}
    await counter.set(**more | change)
    for _ in range(2):
        with pytest.raises(Conflict, match="budget 'b' was changed since"):
            await counter.desk.raise_budget(lift, CALL)
    assert await counter.bank.pool.fetchval("select sum(raised_usd) from counters") == 0
    assert await counter.events() == [
        ("b", 1, "budget.set"), ("b", 2, "budget.hit"), ("b", 3, "budget.set"), ("b", 4, "budget.raise_void"),
    ]  # fmt: skip
    await counter.set(limit_usd=Decimal("0.2"), on_hit="ask")
    with pytest.raises(Conflict):
        await counter.desk.raise_budget(lift, CALL)  # what is void stays so, though the budget is as it was again


async def test_what_people_agreed_to_of_a_budget_that_was_set_anew_is_void(counter: Counter):
    lift = await _used_up(counter)
    await counter.desk.delete_budget(DeleteBudget(name="b"), CALL)
    with pytest.raises(NotFound):
        await counter.desk.raise_budget(lift, CALL)
    await counter.set(limit_usd=Decimal("0.2"), on_hit="ask")
    with pytest.raises(Conflict):
        await counter.desk.raise_budget(lift, CALL)


async def test_what_people_agreed_to_is_void_in_the_next_window(counter: Counter):
    lift = await _used_up(counter, window="day")
    tomorrow = BudgetDesk(counter.store, counter._tell, lambda: AT + timedelta(days=1))
    with pytest.raises(Conflict):
        await tomorrow.raise_budget(lift, CALL)


async def test_a_change_and_a_raise_at_once_come_one_after_the_other(counter: Counter):
    """Whichever is first: nobody raises what he was not asked about."""
    for number in range(8):
        await counter.desk.set_budget(SetBudget(budget=budget("b", limit_usd=Decimal("0.2"), on_hit="ask")), CALL)
        count = await counter.count()
        await counter.spend("0.2", count)
        lift = RaiseBudget(
            name="b", subject="acme", key=f"apr_{number}", usd=Decimal("0.5"), question=await _open_question(counter)
        )
        raised, _ = await asyncio.gather(
            counter.desk.raise_budget(lift, CALL), counter.set(limit_usd=Decimal("0.1")), return_exceptions=True
        )
        last = [what for _, _, what in await counter.events()][-2:]
        if isinstance(raised, Conflict):
            assert last == ["budget.set", "budget.raise_void"]
        else:
            assert last == ["budget.raised", "budget.set"]
        await counter.desk.delete_budget(DeleteBudget(name="b"), CALL)


async def test_of_two_raises_for_one_question_one_comes_too_late_though_nothing_is_counted(counter: Counter):
    await counter.set(on_hit="ask")
    question = question_of(await counter.count(), Tally())
    lift = RaiseBudget(name="b", subject="acme", key="apr_1", usd=Decimal("0.5"), question=question)
    waiting = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"

    async def both_wait() -> bool:
        return await counter.bank.pool.fetchval(waiting) == 2

    async with counter.bank.pool.acquire() as busy, busy.transaction():
        await busy.execute("select from budgets for update")
        raises = [
            asyncio.create_task(counter.desk.raise_budget(lift.model_copy(update={"key": key}), CALL))
            for key in ("apr_1", "apr_2")
        ]
        await eventually(both_wait)
    raised = await asyncio.gather(*raises, return_exceptions=True)
    assert sorted(type(one).__name__ for one in raised) == ["BudgetView", "Conflict"]
    assert (await counter.only()).uses[0].raised_usd == Decimal("0.5")


async def _refusal(counter: Counter) -> object:
    page = await counter.ledger.page("acme")
    (verdict,) = await counter.ledger.open([order(await counter.count(), revision=page.revision)])
    return verdict


@pytest.mark.parametrize(
    ("lift", "field"),
    [
        ({"subject": "other", "usd": Decimal(1)}, "subject"),
        ({"subject": "acme", "tokens": 5}, "tokens"),
    ],
)
async def test_what_cannot_be_raised_is_refused(counter: Counter, lift: dict[str, Any], field: str):
    await counter.set()
    with pytest.raises(InvalidInput) as caught:
        await counter.desk.raise_budget(RaiseBudget(name="b", key="k", **lift), CALL)
    assert caught.value.path == field


async def test_a_hit_is_told_once_and_again_after_a_raise(counter: Counter):
    await counter.set(limit_usd=Decimal("0.2"))
    await counter.spend("0.2", await counter.count())
    for _ in range(3):
        await _refusal(counter)
    assert (await counter.only()).uses[0].hit_at is not None
    await counter.desk.raise_budget(RaiseBudget(name="b", subject="acme", key="k", usd=Decimal("0.1")), CALL)
    await counter.spend("0.1", await counter.count())
    await _refusal(counter)
    assert await counter.events() == [
        ("b", 1, "budget.set"), ("b", 2, "budget.hit"), ("b", 3, "budget.raised"), ("b", 4, "budget.hit"),
    ]  # fmt: skip


async def test_changes_and_calls_at_once_get_through(counter: Counter):
    await counter.set(limit_usd=Decimal(50))
    count = await counter.count()

    async def calls() -> None:
        for _ in range(10):
            one = order(count, revision=(await counter.ledger.page("acme")).revision)
            if list(await counter.ledger.open([one])) == [None]:
                await counter.ledger.settle([settled(one)])

    async def changes(number: int) -> None:
        for at in range(5):
            await counter.set(limit_usd=Decimal(50 + number))
            lift = RaiseBudget(name="b", subject="acme", key=f"{number}-{at}", usd=Decimal(1))
            await counter.desk.raise_budget(lift, CALL)

    await asyncio.gather(calls(), calls(), changes(1), changes(2))
    (use,) = (await counter.only()).uses
    assert (use.raised_usd, use.reserved_usd) == (Decimal(10), Decimal(0))
    assert [seq for _, seq, _ in sorted(await counter.events(), key=lambda one: one[1])] == list(range(1, 22))


async def test_what_happened_is_told_in_order_and_again_if_in_doubt(counter: Counter):
    class Flaky(MemoryBus):
        fails = 1

        async def publish(self, messages):
            if self.fails:
                self.fails -= 1
                raise Unavailable("NATS is away")
            heard.extend(messages)

    heard: list[Any] = []
    outbox = BudgetOutbox(counter.bank.pool, counter.bank.queries, Flaky())
    await counter.set()
    await counter.desk.delete_budget(DeleteBudget(name="b", reason="done"), CALL)
    with pytest.raises(Unavailable):
        await outbox.drain()
    for again in (False, False, True):
        if again:
            outbox.doubt()
        await outbox.drain()
    assert counter.told == 2
    told = [EventRecord.model_validate_json(one.message.encode()) for one in heard]
    assert [(one.seq, one.type) for one in told] == [(1, "budget.set"), (2, "budget.deleted")] * 2
    assert told[1].data == {"reason": "done"}
    assert {one.envelope.context.principal for one in heard} == {"ann"}
    assert heard[0].subject == "paracle.v1.acme.evt.budget.b.set"
    assert heard[0].envelope.id == heard[2].envelope.id
