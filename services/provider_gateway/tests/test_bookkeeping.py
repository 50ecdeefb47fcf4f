"""What accounts do with an attempt: what it goes on, may use and came to; and what if the ledger is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest
from accounts_memory import MemoryLedger, World
from accounts_samples import budget
from provider_gateway_samples import CONTEXT, ask, deployment, gateway

from paracle_chassis.testing.eventually import eventually
from paracle_domain.budget.matching import Amount, Tally
from paracle_domain.budget.spec import Budget, BudgetApproval
from paracle_domain.envelope import Context
from paracle_domain.errors import BudgetExceeded, Unavailable
from paracle_domain.inference.chat import ChatMessage, Sampling
from paracle_domain.inference.embedding import ModelCall
from paracle_domain.inference.estimate import estimate_input
from paracle_domain.inference.request import CallLabels
from paracle_domain.inference.response import Completion, FinishReason
from paracle_domain.inference.usage import Usage
from paracle_domain.provider.spec import DeploymentLimits, Price
from paracle_provider_gateway import upkeep as upkeeping
from paracle_provider_gateway.accounts import GRANTED, Attempt, Full, MadeElsewhere, Outcome
from paracle_provider_gateway.adapters.sandbox import SandboxProvider
from paracle_provider_gateway.bookkeeping import BOOKS_KEPT, Bookkeeper
from paracle_provider_gateway.ledger import Ending, KnownBudget, Order, Page, Settlement, Verdict
from paracle_provider_gateway.outflow import IN_DOUBT_S, Outflow
from paracle_provider_gateway.ports import Reply
from paracle_provider_gateway.pricing import ListPrices
from paracle_provider_gateway.upkeep import Upkeep

DEAR = Price(input=Decimal(1), output=Decimal(10))


class Flaky(MemoryLedger):
    """A ledger whose next calls fail with these, and that can be made to wait; as PostgreSQL, it takes no zero byte."""

    def __init__(self, world: World, replica: str = "a") -> None:
        super().__init__(world, replica)
        self.failures: list[Exception] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.broken_off: list[Order] = []
        self.batches: list[int] = []
        self.settles: list[int] = []
        self.pages = 0

    async def page(self, tenant: str) -> Page:
        self.pages += 1
        return await super().page(tenant)

    async def open(self, orders: Sequence[Order]) -> Sequence[Verdict]:
        self.batches.append(len(orders))
        await self.gate.wait()
        self.broken_off = list(orders) if self.failures else []
        self._fail()
        if any("\0" in order.model for order in orders):
            raise ValueError('invalid byte sequence for encoding "UTF8": 0x00')
        return await super().open(orders)

    async def is_gone(self, replica: str) -> bool:
        self._fail()
        return await super().is_gone(replica)

    async def close_call(self, tenant: str, call_id: str, replica: str) -> None:
        self._fail()
        await super().close_call(tenant, call_id, replica)

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settlement]:
        self.settles.append(len(settlements))
        self._fail()
        unknown = await super().settle(settlements)
        await self.may_answer.wait()
        return unknown

    def lose_everything(self) -> None:
        """As PostgreSQL does with its last moments when it crashes."""
        self.world.open.clear()
        self.world.ended.clear()
        self.world.tallies.clear()

    def _fail(self) -> None:
        if self.failures:
            raise self.failures.pop(0)


@dataclass
class Office:
    """A bookkeeper with its ledger."""

    world: World
    ledger: Flaky
    keeper: Bookkeeper
    outflow: Outflow
    now: list[float]

    async def settled(self) -> None:
        """All that was told is in the ledger."""
        await eventually(lambda: self.outflow._task is None)

    @property
    def tally(self) -> Tally:
        (found,) = self.world.tallies.values()
        return found


def office_on(world: World, replica: str = "a") -> Office:
    ledger, now = Flaky(world, replica), [0.0]
    outflow = Outflow(ledger, lambda: now[0])
    return Office(world, ledger, Bookkeeper(ledger, ListPrices("sandbox"), outflow), outflow, now)


@pytest.fixture
async def office() -> AsyncIterator[Office]:
    one = office_on(World())
    yield one
    await one.settled()


def with_budgets(office: Office, *budgets: Budget) -> None:
    office.world.set_budgets("acme", *(KnownBudget(one, 1) for one in budgets))


def attempt(of: Any = None, **more: Any) -> Attempt:
    more = {"sampling": Sampling(max_output_tokens=100)} | more
    return Attempt(1, of or deployment("big", price=DEAR), ask(**more), CONTEXT)


def reply(usage: Usage, model: str = "big-1") -> Reply:
    return Reply(ChatMessage.assistant("Hi"), FinishReason.STOP, usage, model)


def estimate(request: ModelCall) -> Decimal:
    return (estimate_input(request) * DEAR.input + 100 * DEAR.output) / 1_000_000


async def test_what_it_may_use_is_reserved_and_what_it_used_is_spent(office: Office):
    with_budgets(office, budget())
    one = attempt()
    assert await office.keeper.open(one) is GRANTED
    assert (office.tally.reserved_usd, office.tally.reserved_tokens) == (
        estimate(one.request), estimate_input(one.request) + 100,
    )  # fmt: skip
    usage = Usage(input_tokens=10, output_tokens=20, cached_tokens=4, model_calls=1)
    office.keeper.settle(one, Outcome(reply(usage), None, 1.5))
    await office.settled()
    assert office.tally == Tally().spend(Amount(Decimal("0.00021"), 30))
    ((record),) = office.world.ended.values()
    assert (record.ending, record.usage.cost_usd) == (Ending.COMPLETED, Decimal("0.00021"))


@pytest.mark.parametrize(
    ("outcome", "ending", "counts"),
    [
        (Outcome(None, "rate_limited", 1), Ending.FAILED, False),
        (Outcome(None, "provider_unavailable", 1), Ending.FAILED, False),
        (Outcome(None, "provider_unavailable", 1, 0.5), Ending.FAILED, True),
        (Outcome(None, "provider_unavailable", 1, lost=True), Ending.FAILED, True),
        (Outcome(None, "deadline_exceeded", 1), Ending.FAILED, True),
        (Outcome(None, "cancelled", 1), Ending.CANCELLED, True),
    ],
)
async def test_what_may_have_cost_something_counts_as_if_it_had(
    office: Office, outcome: Outcome, ending: Ending, counts: bool
):
    with_budgets(office, budget())
    one = attempt()
    await office.keeper.open(one)
    reserved = Amount(office.tally.reserved_usd, office.tally.reserved_tokens)
    office.keeper.settle(one, outcome)
    await office.settled()
    assert office.tally == (Tally().spend(reserved) if counts else Tally())
    ((record),) = office.world.ended.values()
    assert (record.ending, record.usage.cost_usd) == (ending, None if counts else 0)


async def test_a_reply_without_counts_counts_as_what_it_might_have_used(office: Office):
    with_budgets(office, budget())
    one = attempt()
    await office.keeper.open(one)
    reserved = Amount(office.tally.reserved_usd, office.tally.reserved_tokens)
    office.keeper.settle(one, Outcome(reply(Usage(model_calls=1)), None, 1))
    await office.settled()
    assert office.tally == Tally().spend(reserved)
    ((record),) = office.world.ended.values()
    assert (record.ending, record.usage.cost_usd) == (Ending.COMPLETED, None)


async def test_a_call_goes_on_what_its_labels_say(office: Office):
    scopes = [
        budget("p", scope="project", of="web"), budget("u", scope="user"), budget("g", scope="agent", of="triage"),
        budget("no", scope="agent", of="other"), budget("r", scope="run"),
    ]  # fmt: skip
    with_budgets(office, *scopes)
    await office.keeper.open(attempt(labels=CallLabels(project="web", principal="ann", agent="triage")))
    ((_, order),) = office.world.open.values()
    assert sorted((count.budget.name, count.subject) for count, _ in order.counts) == [
        ("g", "triage"), ("p", "web"), ("u", "ann"),
    ]  # fmt: skip


async def test_a_spent_budget_refuses_and_says_all_about_it(office: Office):
    asked = BudgetApproval(roles=("finance",))
    with_budgets(office, budget("small", limit_usd=Decimal("0.0002"), on_hit="ask", approval=asked))
    one = attempt()
    await office.keeper.open(one)
    office.keeper.settle(one, Outcome(reply(Usage(output_tokens=20)), None, 1))
    await office.settled()
    with pytest.raises(
        BudgetExceeded, match=r"budget 'small' \(of tenant acme\) is used up: 0.0002 of 0.0002 USD"
    ) as caught:
        await office.keeper.open(attempt())
    with pytest.raises(BudgetExceeded) as again:
        await office.keeper.open(attempt())
    assert caught.value.details is not None
    question = caught.value.details["question"]
    assert (again.value.details or {})["question"] == question, "all calls ask the same"
    office.world.tallies = {key: tally.add(Decimal("0.0000001"), 0) for key, tally in office.world.tallies.items()}
    office.world.tallies = {key: tally.spend(Amount(Decimal(1), 1)) for key, tally in office.world.tallies.items()}
    with pytest.raises(BudgetExceeded) as raised:
        await office.keeper.open(attempt())
    assert (raised.value.details or {})["question"] != question, "until it is raised"
    assert caught.value.details | {"estimate_usd": "", "estimate_tokens": "", "question": ""} == {
        "budget": "small", "subject": "acme", "period": "total", "on_hit": "ask", "spent_usd": "0.0002",
        "limit_usd": "0.0002", "estimate_usd": "", "estimate_tokens": "", "approval": asked.model_dump_json(),
        "question": "",
    }  # fmt: skip


async def test_a_budget_whose_rest_is_reserved_is_waited_for(office: Office):
    with_budgets(office, budget(limit_usd=Decimal("0.0002")))
    await office.keeper.open(attempt())
    full = await office.keeper.open(attempt())
    assert isinstance(full, Full)
    assert "what is left of budget 'b' (of tenant acme) is reserved" in full.what
    assert full.budget == ("acme", "b acme")


async def test_a_deployment_s_limits_are_shared(office: Office):
    small = deployment("big", price=DEAR, limits=DeploymentLimits(concurrency=1))
    assert await office.keeper.open(attempt(small)) is GRANTED
    assert await office_on(office.world, "b").keeper.open(attempt(small)) == Full(
        "as many calls as it may have are in the air", 0.1
    )


async def test_an_unknown_price_is_refused_where_money_counts_unless_it_is_allowed(office: Office):
    unknown = deployment("nobody-knows")
    unpriced = Attempt(1, type(unknown)(Named(), "nobody-knows"), ask(), CONTEXT)
    with_budgets(office, budget("tokens", limit_usd=None, limit_tokens=10**6))
    assert await office.keeper.open(unpriced) is GRANTED
    with_budgets(office, budget("money"))
    with pytest.raises(BudgetExceeded, match="nobody knows what acme-llm/nobody-knows costs, and budget 'money'"):
        await office.keeper.open(Attempt(1, unpriced.deployment, ask(), CONTEXT))
    with_budgets(office, budget("money", unpriced="allow"))
    assert await office.keeper.open(Attempt(1, unpriced.deployment, ask(), CONTEXT)) is GRANTED


class Named(SandboxProvider):
    name = "acme-llm"


async def test_budgets_that_change_are_seen_at_the_next_call(office: Office):
    assert await office.keeper.open(attempt()) is GRANTED
    assert office.world.tallies == {}
    with_budgets(office, budget())
    assert await office.keeper.open(attempt()) is GRANTED
    assert office.tally.reserved_usd > 0


async def test_who_comes_while_a_batch_is_under_way_goes_with_the_next(office: Office):
    office.ledger.gate.clear()
    opening = [asyncio.create_task(office.keeper.open(attempt())) for _ in range(5)]
    await eventually(lambda: office.ledger.batches == [5])
    late = [asyncio.create_task(office.keeper.open(attempt())) for _ in range(3)]
    office.ledger.gate.set()
    assert await asyncio.gather(*opening, *late) == [GRANTED] * 8
    assert office.ledger.batches == [5, 3]


async def test_who_gives_up_gives_back_what_was_reserved(office: Office):
    with_budgets(office, budget())
    office.ledger.gate.clear()
    opening = asyncio.create_task(office.keeper.open(attempt()))
    await eventually(lambda: office.ledger.batches == [1])
    opening.cancel()
    office.ledger.gate.set()
    await eventually(lambda: bool(office.ledger.settles))
    await office.settled()
    assert office.tally == Tally()


async def test_without_the_ledger_nobody_is_asked(office: Office):
    office.ledger.failures = [ConnectionResetError("away")]
    with pytest.raises(Unavailable, match="cannot reach PostgreSQL"):
        await office.keeper.open(attempt())
    await office.settled()
    office.ledger.failures = [TimeoutError()]
    with pytest.raises(Unavailable):
        await office.keeper.open(attempt())
    await office.settled()
    office.ledger.failures = [ValueError("a bug")]
    with pytest.raises(ValueError, match="a bug"):
        await office.keeper.open(attempt())


async def test_books_of_tenants_are_not_kept_without_end(office: Office):
    async def call_of(tenant: int) -> None:
        one = Attempt(1, deployment("big", price=DEAR), ask(), Context(f"t{tenant}"))
        await office.keeper.open(one)
        office.keeper.settle(one, Outcome(None, "rate_limited", 1))

    for tenant in range(BOOKS_KEPT):
        await call_of(tenant)
    await call_of(1)
    assert office.ledger.pages == BOOKS_KEPT, "each was read once"
    await call_of(BOOKS_KEPT)
    await call_of(0)
    assert office.ledger.pages == BOOKS_KEPT + 2, "and again, once it had to make room"


async def test_what_ended_while_the_ledger_was_away_is_told_later(office: Office):
    with_budgets(office, budget())
    one = attempt()
    await office.keeper.open(one)
    office.ledger.failures = [ConnectionResetError("away")] * 2
    office.keeper.settle(one, Outcome(reply(Usage(input_tokens=10)), None, 1))
    await office.settled()
    assert office.tally == Tally().spend(Amount(Decimal("0.00001"), 10))


async def test_one_that_cannot_be_told_does_not_hold_up_the_others(office: Office, caplog: pytest.LogCaptureFixture):
    attempts = [attempt() for _ in range(3)]
    for one in attempts:
        await office.keeper.open(one)
    office.ledger.failures = [ValueError("odd"), ValueError("odd")]
    for one in attempts:
        office.keeper.settle(one, Outcome(reply(Usage(input_tokens=10)), None, 1))
    await office.settled()
    assert len(office.world.ended) == 2
    assert "cannot be told" in caplog.text


async def test_what_was_spared_is_told_with_the_rest_and_counts_on_nothing(office: Office):
    with_budgets(office, budget())
    one, request = attempt(), ask()
    await office.keeper.open(one)
    office.keeper.settle(one, Outcome(reply(Usage(input_tokens=1_000, model_calls=1)), None, 1.0))
    before = Usage(input_tokens=9, output_tokens=1, cost_usd=Decimal("0.5"))
    answer = Completion(
        message=ChatMessage.assistant("Hi"),
        finish_reason=FinishReason.STOP,
        usage=Usage(),
        saved=before,
        provider="openai",
        model="big-1",
        latency_s=0.1,
    )
    office.keeper.cached(request, CONTEXT, answer)
    await office.settled()
    assert office.tally == Tally(spent_usd=Decimal("0.001"), spent_tokens=1_000, calls=1)
    await office.keeper.tell_again()
    await office.settled()
    [spared] = [record for record in office.world.ended.values() if record.ending is Ending.CACHED]
    assert (spared.order.call_id, spared.order.provider, spared.usage.total_tokens) == (request.call_id, "openai", 0)
    assert office.tally.calls == 1


async def test_what_the_ledger_forgot_is_told_again(office: Office):
    with_budgets(office, budget())
    in_air, ended, old = attempt(), attempt(), attempt()
    for one in (in_air, ended, old):
        await office.keeper.open(one)
    usage = Usage(input_tokens=10, model_calls=1)
    office.keeper.settle(old, Outcome(reply(usage), None, 1))
    await office.settled()
    office.now[0] += IN_DOUBT_S + 1
    office.keeper.settle(ended, Outcome(reply(usage), None, 1))
    await office.settled()
    forgotten = [key for key, record in office.world.ended.items() if record.order.call_id == ended.request.call_id]
    before = office.tally
    office.world.open.clear()
    for key in forgotten:
        del office.world.ended[key]
    office.world.tallies = {key: Tally().spend(Amount(Decimal("0.00001"), 10)) for key in office.world.tallies}
    await office.keeper.tell_again()
    await office.settled()
    assert office.tally == before
    assert len(office.world.open) == 1


async def test_what_cannot_be_lost_any_more_is_forgotten(office: Office):
    one = attempt()
    await office.keeper.open(one)
    office.keeper.settle(one, Outcome(reply(Usage(input_tokens=10, model_calls=1)), None, 1))
    await office.settled()
    office.outflow.forget()
    await office.keeper.tell_again()
    assert office.ledger.settles == [1, 1], "it may still be lost"
    office.now[0] += 2 * IN_DOUBT_S
    office.outflow.forget()
    await office.keeper.tell_again()
    assert office.ledger.settles == [1, 1]


async def test_what_ends_at_no_cost_before_it_is_opened_again_leaves_nothing_reserved(office: Office):
    with_budgets(office, budget())
    one, other = attempt(), attempt()
    for each in (one, other):
        await office.keeper.open(each)
    office.ledger.lose_everything()
    office.ledger.gate.clear()
    again = asyncio.create_task(office.keeper.tell_again())
    await eventually(lambda: len(office.ledger.batches) == 3)
    office.keeper.settle(one, Outcome(None, "rate_limited", 1))
    await office.settled()
    office.now[0] += IN_DOUBT_S + 1
    office.keeper.settle(other, Outcome(None, "rate_limited", 1))
    await office.settled()
    office.ledger.gate.set()
    await again
    await office.settled()
    assert office.world.open == {}
    assert office.tally == Tally()


async def test_what_was_being_told_while_that_was_in_doubt_is_told_again(office: Office):
    with_budgets(office, budget())
    one = attempt()
    await office.keeper.open(one)
    office.ledger.lose_everything()
    office.ledger.gate.clear()
    again = asyncio.create_task(office.keeper.tell_again())
    await eventually(lambda: len(office.ledger.batches) == 2)
    office.ledger.may_answer.clear()
    office.keeper.settle(one, Outcome(None, "rate_limited", 1))
    await eventually(lambda: office.ledger.settles)
    office.ledger.gate.set()
    await eventually(lambda: len(office.ledger.settles) == 2)
    office.ledger.may_answer.set()
    await again
    await office.settled()
    assert office.world.open == {}
    assert office.tally == Tally()


async def test_a_replica_is_steady_again_once_it_has_told_everything(office: Office):
    with_budgets(office, budget())
    in_air, ended = attempt(), attempt()
    for each in (in_air, ended):
        await office.keeper.open(each)
    office.ledger.failures = [ConnectionResetError("away")]
    office.keeper.settle(ended, Outcome(reply(Usage(input_tokens=10, model_calls=1)), None, 1))
    await eventually(lambda: office.ledger.settles)
    before = office.tally
    office.ledger.lose_everything()
    said: list[tuple[bool, int]] = []

    class Seen:
        """It notes whether it is in doubt, and how much the ledger knows."""

        is_in_doubt = True

        async def seen(self) -> None:
            said.append((self.is_in_doubt, len(office.world.ended) + len(office.world.open)))

    upkeep = Upkeep(Seen(), office.ledger, office.keeper)
    office.ledger.failures = [ConnectionResetError("away")]
    with pytest.raises(ConnectionResetError):
        await upkeep.round()
    await upkeep.round()
    assert said == [(True, 0), (True, 0), (False, 2)]
    await upkeep.round()
    assert said[3:] == [(False, 2)]
    await office.settled()
    assert before.reserved_tokens == 2 * office.tally.reserved_tokens
    assert office.tally.spent_tokens == 10


@pytest.mark.parametrize("ends", ["well", "badly", "in silence"])
async def test_while_a_replica_tells_again_it_says_that_it_lives(
    office: Office, monkeypatch: pytest.MonkeyPatch, ends: str
):
    monkeypatch.setattr(upkeeping, "SEEN_EVERY_S", 0.01)
    enough, stopped = asyncio.Event(), asyncio.Event()

    async def tell_again() -> None:
        try:
            await enough.wait()
        finally:
            stopped.set()
        if ends == "badly":
            raise ConnectionResetError("away")

    class Seen:
        is_in_doubt = True
        signs = 0

        async def seen(self) -> None:
            self.signs += 1
            if self.signs == 4:
                enough.set()
                if ends == "in silence":
                    raise ConnectionResetError("away, too")

    monkeypatch.setattr(office.keeper, "tell_again", tell_again)
    presence = Seen()
    upkeep = Upkeep(presence, office.ledger, office.keeper)
    if ends == "well":
        await upkeep.round()
    else:
        with pytest.raises(ConnectionResetError, match="away, too" if ends == "in silence" else "away"):
            await upkeep.round()
    assert stopped.is_set()
    assert presence.is_in_doubt == (ends != "well")
    assert presence.signs >= 4


async def test_closing_orphans_holds_up_no_sign_of_life(office: Office, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(upkeeping, "SEEN_EVERY_S", 0.01)
    monkeypatch.setattr(upkeeping, "BATCH", 2)
    orphans = [2, 2, 1, None]
    signs: list[int] = []

    class Seen:
        is_in_doubt = False

        async def seen(self) -> None:
            signs.append(len(orphans))

    async def close_orphans(_most: int) -> int:
        closed = orphans.pop(0)
        if closed is None:
            await asyncio.Event().wait()
            raise AssertionError
        return closed

    monkeypatch.setattr(office.ledger, "close_orphans", close_orphans)
    upkeep = Upkeep(Seen(), office.ledger, office.keeper)
    await upkeep.round()
    assert signs == [4, 3, 2]
    with pytest.raises(Unavailable, match="silent"):
        await upkeep.round()


async def test_what_was_given_up_and_granted_all_the_same_is_taken_back(office: Office):
    with_budgets(office, budget())
    office.ledger.failures = [ConnectionResetError("away")]
    with pytest.raises(Unavailable):
        await office.keeper.open(attempt())
    await office.settled()
    await MemoryLedger.open(office.ledger, office.ledger.broken_off)  # the statement had arrived, and went on
    assert office.tally.reserved_tokens > 0
    for _ in range(2):
        office.keeper.take_back()
    await office.settled()
    assert office.world.open == {}
    assert office.tally == Tally()


class TestReplicas:
    async def test_a_call_that_another_replica_has_is_not_made(self, office: Office):
        one = attempt()
        await office.keeper.open(one)
        other = office_on(office.world, "b")
        again = Attempt(1, one.deployment, one.request, CONTEXT)
        with pytest.raises(MadeElsewhere) as caught:
            await other.keeper.open(again)
        assert caught.value.replica == "a"
        await other.keeper.take_over("acme", one.request.call_id, "a")
        assert await other.keeper.open(again) is GRANTED
        other.keeper.done("acme", one.request.call_id)

    @pytest.mark.parametrize("failure", [ConnectionResetError(), TimeoutError()])
    async def test_while_the_ledger_is_away_nobody_can_say_who_is_gone(self, office: Office, failure: Exception):
        office.ledger.failures = [failure, failure]
        with pytest.raises(Unavailable, match="cannot reach PostgreSQL"):
            await office.keeper.is_gone("a")
        with pytest.raises(Unavailable, match="cannot reach PostgreSQL"):
            await office.keeper.take_over("acme", "call-1", "a")
        assert not await office.keeper.is_gone("a")
        assert await office.keeper.is_gone("z")

    async def test_the_next_attempt_of_an_own_call_is_its_own(self, office: Office):
        one = attempt()
        await office.keeper.open(one)
        assert await office.keeper.open(Attempt(2, one.deployment, one.request, CONTEXT)) is GRANTED

    async def test_the_answer_of_the_other_replica_is_the_answer(self):
        over, request = gateway(SandboxProvider()), ask()
        answer = await gateway(SandboxProvider()).completions.complete(request, CONTEXT)
        over.accounts.answers = [MadeElsewhere("b")]
        over.neighbours.answers = [answer]
        assert await over.completions.complete(request, CONTEXT) is answer
        assert over.accounts.ended == [("acme", request.call_id)]

    async def test_without_an_answer_of_the_other_the_call_is_made_here(self):
        over, request = gateway(SandboxProvider()), ask()
        over.accounts.answers = [MadeElsewhere("b")]
        assert (await over.completions.complete(request, CONTEXT)).sandbox
        assert over.accounts.taken_over == [("acme", request.call_id, "b")]


class TestAnotherModel:
    async def test_a_budget_can_turn_to_another_model(self):
        over = gateway(SandboxProvider())
        over.accounts.answers = [BudgetExceeded("over", details={"model": "sandbox/rules"})]
        answer = await over.completions.complete(ask(model="sandbox/slow"), CONTEXT)
        assert answer.model == "rules"
        assert [one.request.model for one in over.accounts.opened] == ["sandbox/slow", "sandbox/rules"]

    async def test_but_does_so_once(self):
        over = gateway(SandboxProvider())
        over.accounts.answers = [BudgetExceeded("over", details={"model": "sandbox/rules"})] * 2
        with pytest.raises(BudgetExceeded):
            await over.completions.complete(ask(model="sandbox/slow"), CONTEXT)

    async def test_what_it_uses_counts_and_is_not_held_back(self, office: Office):
        with_budgets(office, budget(limit_usd=Decimal("0.00001"), on_hit="model", model="cheap"))
        one = attempt()
        await office.keeper.open(one)
        office.keeper.settle(one, Outcome(reply(Usage(output_tokens=20)), None, 1))
        await office.settled()
        with pytest.raises(BudgetExceeded) as caught:
            await office.keeper.open(attempt())
        assert caught.value.details["model"] == "cheap"
        assert await office.keeper.open(attempt(model="cheap")) is GRANTED
        assert office.tally.reserved_usd > 0


async def test_an_attempt_that_cannot_be_kept_takes_no_others_along(office: Office):
    office.ledger.gate.clear()
    first = asyncio.create_task(office.keeper.open(attempt()))
    await eventually(lambda: office.ledger.batches == [1])
    models = ["good", "b\0d", "fine"]
    others = [asyncio.create_task(office.keeper.open(attempt(deployment(each)))) for each in models]
    await asyncio.sleep(0)
    office.ledger.gate.set()
    good, bad, fine = await asyncio.gather(*others, return_exceptions=True)
    assert (await first, good, fine) == (GRANTED, GRANTED, GRANTED)
    assert isinstance(bad, ValueError)
    assert office.ledger.batches == [1, 3, 1, 1, 1]
