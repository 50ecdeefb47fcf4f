"""Calls over plans with several deployments: who is asked, who answers, what everybody else hears of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from provider_gateway_samples import CONTEXT, ROOT, TASK, Gateway, ask, gateway

from paracle_chassis.testing.eventually import eventually, leap
from paracle_domain.errors import (
    BudgetExceeded,
    Cancelled,
    ContentRefused,
    DeadlineExceeded,
    ParacleError,
    ProviderFailed,
    ProviderUnavailable,
    RateLimited,
)
from paracle_domain.inference.chat import ChatMessage
from paracle_domain.inference.deltas import EndDelta, TextDelta, assemble
from paracle_domain.inference.embedding import ModelCall
from paracle_domain.inference.request import AbortCall, CallLabels, Complete, ListModels
from paracle_domain.inference.response import BreakerState, FinishReason, ModelList
from paracle_domain.inference.usage import Usage
from paracle_domain.provider.spec import Price, Strategy
from paracle_provider_gateway.accounts import GRANTED, Full
from paracle_provider_gateway.breaker import BreakerRules
from paracle_provider_gateway.faults import DeploymentFailed
from paracle_provider_gateway.plans import Deployment, Plan, Route, Tier, Timeouts
from paracle_provider_gateway.ports import Closing, Piece, Reply, StreamItem
from paracle_provider_gateway.retries import RetryPolicy

DOWN = ProviderUnavailable("HTTP 503")
SPENT = Usage(input_tokens=3, output_tokens=2, model_calls=1)


HOLD = "hold"


class Scripted:
    """A provider that answers as it is told, in turn; then with its name.

    `None` hangs (where it streams: after its name, unless it is `silent`), `HOLD` till it is let go.
    """

    source = "memory"
    sandbox = False
    listed_models: tuple[str, ...] = ()

    def __init__(self, name: str, *turns: Exception | str | None, silent: bool = False) -> None:
        self.name = name
        self.turns = list(turns)
        self.asked = 0
        self.gone = 0
        self.held = asyncio.Event()
        self.error: Exception | None = None
        self._silent = silent

    async def default_model(self) -> str:
        return "m"

    async def ask(self, model: str, request: Complete) -> Reply:
        await self._take_turn()
        return Reply(ChatMessage.assistant(self.name), FinishReason.STOP, SPENT, model)

    async def stream(self, model: str, request: Complete) -> AsyncGenerator[StreamItem]:
        if not self._silent:
            yield Piece(0, TextDelta(text=self.name))
        await self._take_turn()
        yield Piece(0, EndDelta(finish_reason=FinishReason.STOP))
        yield Closing(FinishReason.STOP, SPENT, model)

    async def close(self) -> None:
        pass

    async def _take_turn(self) -> None:
        self.asked += 1
        turn = self.turns.pop(0) if self.turns else ""
        if isinstance(turn, Exception):
            raise turn
        if turn is None:
            try:
                await asyncio.Event().wait()
            finally:
                self.gone += 1
        if turn == HOLD:
            await self.held.wait()
            if self.error is not None:
                raise self.error


class OnePlan:
    """A catalog with one plan."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    async def plan(self, tenant: str, request: ModelCall) -> Plan:
        return self._plan

    async def models(self, tenant: str) -> ModelList:
        return ModelList(models=(), default="default")


def routed(
    *deployments: Deployment,
    strategy: Strategy = Strategy.PRIORITY,
    retry: RetryPolicy | None = None,
    rules: BreakerRules | None = None,
    hedge_after_s: float | None = None,
) -> Gateway:
    tier = Tier(tuple(Route(one) for one in deployments), strategy)
    return gateway(catalog=OnePlan(Plan("m", (tier,), retry or RetryPolicy(), hedge_after_s)), rules=rules)


def at(*providers: Scripted, timeouts: Timeouts = Timeouts()) -> Sequence[Deployment]:  # noqa: B008  # a value
    return [Deployment(provider, "m", timeouts=timeouts) for provider in providers]


async def test_the_next_route_answers_at_once_and_the_completion_says_so():
    first, second = Scripted("first", DOWN), Scripted("second")
    over = routed(*at(first, second))
    answer = await over.completions.complete(ask(), CONTEXT)
    assert (answer.message.text, answer.provider, answer.deployment) == ("second", "second", "second/m")
    assert (answer.attempts, over.waits) == (2, [])
    told = [(attempt.deployment.name, attempt.number, outcome.error) for attempt, outcome in over.accounts.settled]
    assert told == [("first/m", 1, "provider_unavailable"), ("second/m", 2, None)]


async def test_when_all_have_failed_the_first_that_is_free_is_asked_again():
    first, second = Scripted("first", DOWN, DOWN), Scripted("second", RateLimited("busy", retry_after_s=9))
    over = routed(*at(first, second))
    answer = await over.completions.complete(ask(timeout_s=60), CONTEXT)
    assert (answer.deployment, answer.attempts, first.asked, second.asked) == ("first/m", 4, 3, 1)
    assert 0 < over.waits[0] <= 0.25, "half of its first back-off, less the time that the second took"
    assert over.waits[1:] == pytest.approx([0.5])


@pytest.mark.parametrize("agent", ["helper", None])
async def test_whoever_watches_the_step_is_told_of_calls_of_its_delegates(agent: str | None):
    over = routed(*at(Scripted("first", RateLimited("busy", retry_after_s=9))))
    watched = ask(timeout_s=60, stream_to=TASK, waits_to=ROOT, labels=CallLabels(agent=agent))
    await over.completions.complete(watched, CONTEXT)
    [own, theirs] = over.outbox.retries
    assert theirs == own.model_copy(update={"agent": agent or watched.model})
    assert theirs.message_id != own.message_id, "they are kept in one stream, in which an id comes once"


async def test_whoever_watches_is_told_why_and_till_when_a_call_waits_for_long():
    busy, watched = Scripted("first", DOWN, RateLimited("busy", retry_after_s=9)), ask(timeout_s=60, stream_to=TASK)
    over = routed(*at(busy))
    before = datetime.now(UTC)
    await over.completions.complete(watched, CONTEXT)
    assert over.waits == pytest.approx([0.25, 9.5], abs=0.1)
    [told] = over.outbox.retries
    assert (told.call_id, told.error.code, told.error.message, told.tried) == (
        watched.call_id,
        "rate_limited",
        "busy",
        2,
    )
    assert timedelta(seconds=9) <= told.at - before
    unwatched = routed(*at(Scripted("first", RateLimited("busy", retry_after_s=9))))
    await unwatched.completions.complete(ask(timeout_s=60), CONTEXT)
    assert unwatched.outbox.retries == []


@pytest.mark.parametrize("error", [ProviderFailed("HTTP 400"), ContentRefused("no")])
async def test_what_others_would_refuse_too_is_not_tried_everywhere(error: ParacleError):
    first, second = Scripted("first", error), Scripted("second")
    with pytest.raises(type(error)):
        await routed(*at(first, second)).completions.complete(ask(), CONTEXT)
    assert (first.asked, second.asked) == (1, 0)


async def test_a_bad_key_is_no_reason_to_fail_where_another_is_good():
    first, second = Scripted("first", DeploymentFailed("HTTP 401")), Scripted("second")
    answer = await routed(*at(first, second)).completions.complete(ask(), CONTEXT)
    assert answer.deployment == "second/m"


async def test_a_stream_that_broke_off_is_replaced_by_the_next_routes():
    first, second = Scripted("first", DOWN), Scripted("second")
    over = routed(*at(first, second))
    answer = await over.completions.complete(ask(stream_to=TASK), CONTEXT)
    said = [(delta.attempt, delta.change.text) for delta in over.outbox.deltas if isinstance(delta.change, TextDelta)]
    assert said == [(1, "first"), (2, "second")]
    assert assemble(over.outbox.deltas) == answer.message == ChatMessage.assistant("second")


async def test_what_is_streamed_for_a_call_that_was_asked_before_replaces_what_was_streamed_then():
    over = routed(*at(Scripted("only")))
    await over.completions.complete(ask(stream_to=TASK, attempts_before=1_000), CONTEXT)
    assert {delta.attempt for delta in over.outbox.deltas} == {1_001}


async def test_what_a_budgets_cheaper_model_streams_replaces_what_the_dear_one_began_to_say():
    over = routed(*at(Scripted("first", DOWN), Scripted("second")))
    over.accounts.answers = [GRANTED, BudgetExceeded("used up", details={"model": "cheap"})]
    answer = await over.completions.complete(ask(stream_to=TASK, attempts_before=1_000), CONTEXT)
    told = [(attempt.request.model, attempt.number) for attempt in over.accounts.opened]
    assert told == [("default", 1), ("default", 2), ("cheap", 1)]
    assert {delta.attempt for delta in over.outbox.deltas} == {1_001, 1_003}
    assert assemble(over.outbox.deltas) == answer.message == ChatMessage.assistant("first")
    assert answer.attempts == 2, "for what a budget refuses nothing is sent"


@pytest.mark.parametrize("stream_to", [None, TASK])
async def test_a_deployment_that_hangs_is_left_after_its_own_time(stream_to: str | None):
    first, second = Scripted("first", None), Scripted("second")
    over = routed(*at(first, timeouts=Timeouts(total_s=60)), *at(second))
    asking = asyncio.create_task(over.completions.complete(ask(stream_to=stream_to, timeout_s=600), CONTEXT))
    await eventually(lambda: first.asked)
    leap(60)
    answer = await asking
    assert (answer.deployment, answer.attempts, first.gone) == ("second/m", 2, 1)
    assert over.accounts.settled[0][1].error == "provider_unavailable"


async def test_the_calls_own_time_is_not_the_deployments_fault():
    hangs = Scripted("first", *[None] * 9)
    over = routed(*at(hangs, timeouts=Timeouts(total_s=600)), rules=BreakerRules(failures=1))
    for _ in range(2):
        hangs.asked = 0
        asking = asyncio.create_task(over.completions.complete(ask(timeout_s=60), CONTEXT))
        await eventually(lambda: hangs.asked)
        leap(60)
        with pytest.raises(DeadlineExceeded):
            await asking
    assert hangs.gone == 2


class TestBreaker:
    async def test_a_dead_deployment_is_asked_five_times_and_found_again_when_it_heals(self):
        first, second = Scripted("first", *[DOWN] * 1_000), Scripted("second")
        over = routed(*at(first, second), rules=BreakerRules(failures=5, cooldown_s=10))
        for _ in range(50):
            assert (await over.completions.complete(ask(), CONTEXT)).deployment == "second/m"
        assert (first.asked, second.asked, over.waits) == (5, 50, [])
        first.turns.clear()
        over.waits.append(10)  # which the clock counts
        assert (await over.completions.complete(ask(), CONTEXT)).deployment == "first/m"
        assert (await over.completions.complete(ask(), CONTEXT)).deployment == "first/m"

    async def test_where_there_is_no_other_it_is_waited_for(self):
        only = Scripted("first", *[DOWN] * 5)
        over = routed(*at(only), rules=BreakerRules(failures=5, cooldown_s=10), retry=RetryPolicy(attempts=5))
        with pytest.raises(ProviderUnavailable, match="HTTP 503"):
            await over.completions.complete(ask(), CONTEXT)
        del over.waits[:]
        assert (await over.completions.complete(ask(timeout_s=60), CONTEXT)).attempts == 1
        assert 10 <= sum(over.waits) < 20

    async def test_a_call_that_has_no_time_for_that_hears_when_to_come_back(self):
        only = Scripted("first", *[DOWN] * 5)
        over = routed(*at(only), rules=BreakerRules(failures=5, cooldown_s=50), retry=RetryPolicy(attempts=5))
        with pytest.raises(ProviderUnavailable, match="HTTP 503"):
            await over.completions.complete(ask(), CONTEXT)
        with pytest.raises(ProviderUnavailable, match="is not asked just now") as caught:
            await over.completions.complete(ask(), CONTEXT)
        assert caught.value.retry_after_s == pytest.approx(50, abs=20)
        assert only.asked == 5

    async def test_the_list_of_models_shows_it(self):
        only = Scripted("first", *[DOWN] * 5)
        only.listed_models = ("m",)
        over = gateway(only, rules=BreakerRules(failures=5, cooldown_s=50), retry=RetryPolicy(attempts=5))
        (well,) = (await over.completions.list_models(ListModels(), CONTEXT)).models
        assert (well.breaker, well.rests_s, well.trouble) == (BreakerState.CLOSED, 0, None)
        with pytest.raises(ProviderUnavailable):
            await over.completions.complete(ask(), CONTEXT)
        (broken,) = (await over.completions.list_models(ListModels(), CONTEXT)).models
        assert (broken.breaker, broken.trouble) == (BreakerState.OPEN, "first/m: provider_unavailable")
        assert 0 < broken.rests_s <= 50

    async def test_a_probe_that_is_aborted_leaves_the_way_free_for_the_next(self):
        only = Scripted("first", DOWN, None)
        over = routed(*at(only), rules=BreakerRules(failures=1, cooldown_s=1), retry=RetryPolicy(attempts=1))
        with pytest.raises(ProviderUnavailable):
            await over.completions.complete(ask(), CONTEXT)
        over.waits.append(1)
        asking = asyncio.create_task(over.completions.complete(ask(timeout_s=60), CONTEXT))
        await eventually(lambda: only.asked == 2)
        leap(60)
        with pytest.raises(DeadlineExceeded):
            await asking
        assert (await over.completions.complete(ask(), CONTEXT)).deployment == "first/m"


class TestHedging:
    @pytest.mark.parametrize("stream_to", [None, TASK])
    async def test_a_silent_deployment_is_raced_and_the_loser_closed_and_settled(self, stream_to: str | None):
        silent, quick = Scripted("silent", None, silent=True), Scripted("quick")
        over = routed(*at(silent, quick), hedge_after_s=0.01)
        answer = await over.completions.complete(ask(stream_to=stream_to), CONTEXT)
        assert (answer.deployment, answer.attempts, silent.gone) == ("quick/m", 2, 1)
        told = {attempt.deployment.name: outcome.error for attempt, outcome in over.accounts.settled}
        assert told == {"silent/m": "cancelled", "quick/m": None}
        assert {delta.attempt for delta in over.outbox.deltas} == ({2} if stream_to else set())

    async def test_who_speaks_in_time_is_not_raced(self):
        slow, other = Scripted("slow", None), Scripted("other")
        over = routed(*at(slow, other), hedge_after_s=60)
        asking = asyncio.create_task(over.completions.complete(ask(stream_to=TASK, timeout_s=90), CONTEXT))
        await eventually(lambda: slow.asked)
        leap(60)
        for _ in range(10):
            await asyncio.sleep(0)
        leap(30)
        with pytest.raises(DeadlineExceeded):
            await asking
        assert (slow.asked, other.asked, slow.gone) == (1, 0, 1), "its first word came at once"

    async def test_the_first_may_still_win(self):
        first, second = Scripted("first", HOLD), Scripted("second", None, silent=True)
        over = routed(*at(first, second), hedge_after_s=0.01)
        asking = asyncio.create_task(over.completions.complete(ask(), CONTEXT))
        await eventually(lambda: second.asked == 1)
        first.held.set()
        answer = await asking
        assert (answer.deployment, answer.attempts, second.gone) == ("first/m", 2, 1)

    async def test_both_may_fail_and_the_walk_goes_on(self):
        first, second = Scripted("first", HOLD, DOWN), Scripted("second", DOWN)
        over = routed(*at(first, second), hedge_after_s=0.01)
        asking = asyncio.create_task(over.completions.complete(ask(), CONTEXT))
        await eventually(lambda: second.asked == 1)
        second.held.set()
        first.error = DOWN
        first.held.set()
        answer = await asking
        assert answer.attempts == 4
        assert len(over.accounts.settled) == 4

    async def test_a_failure_before_its_time_goes_the_usual_way(self):
        first, second = Scripted("first", DOWN), Scripted("second")
        over = routed(*at(first, second), hedge_after_s=60)
        answer = await over.completions.complete(ask(), CONTEXT)
        assert (answer.deployment, answer.attempts) == ("second/m", 2)

    async def test_an_abort_stops_both(self):
        first, second = Scripted("first", None, silent=True), Scripted("second", None, silent=True)
        over, request = routed(*at(first, second), hedge_after_s=0.01), ask()
        asking = asyncio.create_task(over.completions.complete(request, CONTEXT))
        await eventually(lambda: second.asked == 1)
        await over.completions.abort("acme", AbortCall(call_id=request.call_id))
        with pytest.raises(Cancelled):
            await asking
        assert (first.gone, second.gone) == (1, 1)
        assert [outcome.error for _, outcome in over.accounts.settled] == ["cancelled"] * 2

    async def test_a_bug_in_an_attempt_is_no_answer(self):
        first, second = Scripted("first", None, silent=True), Scripted("second", ValueError("bug"))
        over = routed(*at(first, second), hedge_after_s=0.01)
        asking = asyncio.create_task(over.completions.complete(ask(timeout_s=60), CONTEXT))
        await eventually(lambda: second.asked)
        leap(60)
        with pytest.raises((ValueError, DeadlineExceeded)):
            await asking
        assert first.gone == 1


async def test_what_is_full_sends_the_call_to_the_next_route():
    first, second = Scripted("first"), Scripted("second")
    over = routed(*at(first, second))
    over.accounts.answers = [Full("requests per minute", 30)]
    answer = await over.completions.complete(ask(), CONTEXT)
    assert (answer.deployment, answer.attempts, first.asked, over.waits) == ("second/m", 1, 0, [])


async def test_the_quickest_of_late_is_asked_first():
    slow, quick = Scripted("slow"), Scripted("quick")
    over = routed(*at(slow, quick), strategy=Strategy.LOWEST_LATENCY)
    clock = asyncio.get_running_loop().time()
    over.health.latencies.observe(("", "slow/m"), 9.0, clock, streamed=False)
    over.health.latencies.observe(("", "quick/m"), 3.0, clock, streamed=False)
    assert (await over.completions.complete(ask(), CONTEXT)).deployment == "quick/m"


async def test_the_cheapest_is_asked_first_and_an_unknown_price_last():
    unknown, dear, cheap = (Scripted(name) for name in ("unknown", "dear", "cheap"))
    over = routed(
        Deployment(unknown, "m"),
        Deployment(dear, "m", price=Price(input=Decimal(2), output=Decimal(8))),
        Deployment(cheap, "m", price=Price(input=Decimal(1), output=Decimal(9))),
        strategy=Strategy.LOWEST_COST,
    )
    long = ask("word " * 9_000)
    assert (await over.completions.complete(long, CONTEXT)).deployment == "cheap/m"
    assert (await over.completions.complete(ask(), CONTEXT)).deployment == "dear/m"


async def test_the_catalog_says_which_models_there_are():
    assert (await routed(*at(Scripted("a"))).completions.list_models(ListModels(), CONTEXT)).models == ()
