"""Calls that a kept answer will do for: what they get, what it costs, and who waits for whom."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from decimal import Decimal
from typing import Any

import pytest
from answers_memory import MemoryAnswers
from provider_gateway_samples import CONTEXT, SEARCH, TASK, Gateway, ask, gateway

from paracle_chassis.testing.eventually import eventually, leap
from paracle_domain.envelope import Context
from paracle_domain.errors import (
    BudgetExceeded,
    Cancelled,
    ContentRefused,
    DeadlineExceeded,
    ProviderFailed,
    ProviderUnavailable,
    Unavailable,
)
from paracle_domain.guard.messages import GuardAnswer, GuardQuestion
from paracle_domain.guard.spec import NatsGuard
from paracle_domain.inference.caching import CachePolicy
from paracle_domain.inference.chat import ChatMessage, ReasoningPart, Role, TextPart, ToolCallPart
from paracle_domain.inference.deltas import TextDelta, assemble
from paracle_domain.inference.request import AbortCall, CallLabels, Complete
from paracle_domain.inference.response import Completion, FinishReason
from paracle_domain.inference.usage import NOTHING, Usage
from paracle_provider_gateway.accounts import Full
from paracle_provider_gateway.plans import Deployment, Plan, Route, Tier
from paracle_provider_gateway.ports import Closing, Piece, Reply, StreamItem
from paracle_provider_gateway.retries import RetryPolicy

HOUR = CachePolicy(ttl_s=3_600)
THINKING = ChatMessage(
    role=Role.ASSISTANT,
    parts=(ReasoningPart(text="Hm"), TextPart(text="Wait."), ToolCallPart(id="1", name="search", arguments={"q": "x"})),
)


class Model:
    """A provider that says what it is told to, in turn, then how often it was asked; it waits while it is `held`."""

    sandbox = False
    listed_models = ("m",)

    def __init__(self, *turns: Exception | ChatMessage, name: str = "openai", source: str = "here") -> None:
        self.name = name
        self.source = source
        self.asked = 0
        self.gone = 0
        self.go = asyncio.Event()
        self.go.set()
        self._turns = list(turns)

    def hold(self) -> None:
        self.go.clear()

    async def default_model(self) -> str:
        return "m"

    async def ask(self, model: str, request: Complete) -> Reply:
        self.asked += 1
        turn = self._turns.pop(0) if self._turns else ChatMessage.assistant(f"{model} no. {self.asked}")
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.gone += 1
            raise
        if isinstance(turn, Exception):
            raise turn
        finish = FinishReason.TOOL_CALLS if turn.tool_calls else FinishReason.STOP
        return Reply(turn, finish, Usage(input_tokens=1_000, output_tokens=500, model_calls=1), model)

    async def stream(self, model: str, request: Complete) -> AsyncGenerator[StreamItem]:
        reply = await self.ask(model, request)
        for index, part in enumerate(reply.message.parts):
            assert isinstance(part, TextPart)
            yield Piece(index, TextDelta(text=part.text))
        yield Closing(reply.finish_reason, reply.usage, reply.model)

    async def close(self) -> None:
        pass


def over(*models: Model, **more: Any) -> Gateway:
    return gateway(*models, retry=RetryPolicy(attempts=1), **more)


def cached(text: str = "Which?", policy: CachePolicy = HOUR, **more: Any) -> Complete:
    return ask(text, cache=policy, **{"timeout_s": 600} | more)


async def told(gate: Gateway, request: Complete, context: Context = CONTEXT) -> str:
    return (await gate.completions.complete(request, context)).message.text


def asking(gate: Gateway, request: Complete) -> asyncio.Task[Completion]:
    return asyncio.create_task(gate.completions.complete(request, CONTEXT))


async def test_the_second_asker_gets_the_first_ones_answer_and_pays_nothing():
    model = Model()
    gate = over(model)
    first = await gate.completions.complete(cached(), CONTEXT)
    again = await gate.completions.complete(cached(), CONTEXT)
    assert model.asked == 1
    assert (first.saved, first.attempts, first.usage.total_tokens) == (None, 1, 1_500)
    assert (again.message, again.finish_reason, again.deployment) == (first.message, first.finish_reason, "openai/m")
    assert (again.usage, again.saved, again.attempts, again.first_token_s) == (NOTHING, first.usage, 0, None)
    assert len(gate.accounts.settled) == 1
    assert gate.accounts.spared == [again]


async def test_who_does_not_ask_for_it_neither_gets_nor_leaves_anything():
    model = Model()
    gate = over(model)
    await told(gate, ask("Which?"))
    assert await told(gate, cached()) == "m no. 2"
    assert await told(gate, ask("Which?")) == "m no. 3"
    assert gate.answers.looked_up == [1], "who does not ask for it is not looked up either"


async def test_a_call_id_keeps_its_answer_whatever_becomes_of_the_cache():
    gate = over(Model())
    await told(gate, cached())
    request = cached()
    first = await gate.completions.complete(request, CONTEXT)
    await gate.shelf.clear("acme")
    assert await gate.completions.complete(request, CONTEXT) == first
    assert len(gate.accounts.spared) == 1


async def test_tenants_share_nothing():
    model = Model()
    gate = over(model)
    theirs = Context("globex")
    assert await told(gate, cached()) == "m no. 1"
    assert await told(gate, cached(), theirs) == "m no. 2"
    assert await gate.shelf.clear("globex") == 1
    assert (await told(gate, cached()), await told(gate, cached(), theirs)) == ("m no. 1", "m no. 3")
    model.hold()
    ours = asking(gate, cached("New?"))
    await eventually(lambda: model.asked == 4)
    other = asyncio.create_task(gate.completions.complete(cached("New?"), theirs))
    await eventually(lambda: model.asked == 5)
    model.go.set()
    assert (await ours).message.text != (await other).message.text


async def test_an_answer_is_as_old_as_its_reader_allows():
    now = asyncio.get_running_loop().time()
    model, answers = Model(), MemoryAnswers(lambda: now)
    gate = over(model, answers=answers)
    await told(gate, cached())
    await eventually(lambda: answers.kept)
    [(key, kept)] = answers.kept.items()
    assert kept.expires_at == pytest.approx(kept.made_at + 3_600)
    older = type(kept)(kept.body, kept.made_at - 100, kept.expires_at)
    gate.shelf.doubt()
    answers.kept[key] = older
    assert await told(gate, cached()) == "m no. 1"
    assert await told(gate, cached(policy=CachePolicy(ttl_s=99))) == "m no. 2"
    await eventually(lambda: answers.kept[key].made_at > older.made_at)
    assert await told(gate, cached()) == "m no. 2", "the younger answer is the one that is kept"


async def test_a_fresh_answer_is_made_and_kept():
    model = Model()
    gate = over(model)
    fresh = CachePolicy(ttl_s=3_600, fresh=True)
    assert [await told(gate, cached(policy=each)) for each in (HOUR, fresh, HOUR, fresh)] == [
        "m no. 1", "m no. 2", "m no. 2", "m no. 3",
    ]  # fmt: skip


async def test_failures_and_bad_answers_are_not_kept():
    empty, unknown = ChatMessage.assistant(" "), ChatMessage.assistant("", ToolCallPart(id="1", name="nope"))
    model = Model(ProviderFailed("no"), empty, unknown)
    gate = over(model)
    with pytest.raises(ProviderFailed):
        await told(gate, cached())
    assert [await told(gate, cached()) for _ in range(4)] == [" ", "", "m no. 4", "m no. 4"]


async def test_what_a_fallback_said_is_not_kept_but_shared():
    first, second = Model(*[ProviderUnavailable("down")] * 3, name="first"), Model(name="second")
    tiers = tuple(Tier((Route(Deployment(model, "m")),)) for model in (first, second))

    class OnePlan:
        async def plan(self, _tenant: str, _request: Complete) -> Plan:
            return Plan("x", tiers, RetryPolicy(attempts=2))

        async def models(self, _tenant: str) -> Any: ...

    gate = over(first, second, catalog=OnePlan())
    second.hold()
    both = [asking(gate, cached()), asking(gate, cached())]
    await eventually(lambda: second.asked == 1)
    second.go.set()
    assert {(await one).message.text for one in both} == {"m no. 1"}
    assert await told(gate, cached()) == "m no. 2"
    assert await told(gate, cached()) == "m no. 3"


async def test_a_budget_that_is_used_up_does_not_hold_back_what_costs_nothing():
    gate = over(Model())
    await told(gate, cached())
    gate.accounts.answers = [BudgetExceeded("used up")]
    assert await told(gate, cached()) == "m no. 1"
    with pytest.raises(BudgetExceeded):
        await told(gate, ask("Something else?"))


async def test_a_cheaper_model_has_answers_of_its_own():
    gate = over(Model())
    dear, cheap = "openai/dear", "openai/cheap"
    over_it = BudgetExceeded("used up", details={"model": cheap})
    gate.accounts.answers = [over_it]
    assert await told(gate, cached(model=dear)) == "cheap no. 1"
    gate.accounts.answers = [over_it]
    assert await told(gate, cached(model=dear)) == "cheap no. 1"
    assert await told(gate, cached(model=dear)) == "dear no. 2"


async def test_what_a_guard_lets_out_for_one_agent_is_not_given_to_another():
    def judge(question: GuardQuestion) -> GuardAnswer:
        return GuardAnswer.passed() if question.agent == "writer" else GuardAnswer.refused("writers alone")

    gate = over(Model())
    gate.asker.answers["rules"] = judge
    rules = (NatsGuard(name="rules", guard="rules", on="output"),)
    assert await told(gate, cached(guards=rules, labels=CallLabels(agent="writer"))) == "m no. 1"
    assert await told(gate, cached(guards=rules, labels=CallLabels(agent="writer"))) == "m no. 1"
    with pytest.raises(ContentRefused):
        await told(gate, cached(guards=rules, labels=CallLabels(agent="reader")))


class TestStreams:
    async def test_a_kept_answer_streams_as_a_whole(self):
        gate = over(Model(THINKING))
        first = await gate.completions.complete(cached(tools=(SEARCH,)), CONTEXT)
        request = cached(tools=(SEARCH,), stream_to=TASK, attempts_before=1_000)
        again = await gate.completions.complete(request, CONTEXT)
        deltas = gate.outbox.deltas
        assert assemble(deltas) == again.message == first.message
        assert [delta.change.type for delta in deltas] == ["reasoning", "text", "tool_call", "end"]
        assert {(delta.call_id, delta.attempt) for delta in deltas} == {(request.call_id, 1_001)}

    async def test_who_joins_streams_to_its_own_subject(self):
        model = Model()
        gate = over(model)
        model.hold()
        lead = asking(gate, cached(stream_to=TASK))
        await eventually(lambda: model.asked == 1)
        other = cached(stream_to=TASK)
        follower = asking(gate, other)
        await asyncio.sleep(0)
        model.go.set()
        answers = [await lead, await follower]
        mine = [delta for delta in gate.outbox.deltas if delta.call_id == other.call_id]
        assert assemble(mine) == answers[0].message == answers[1].message


class TestOneForAll:
    @pytest.fixture
    def model(self) -> Model:
        return Model()

    @pytest.fixture
    def gate(self, model: Model) -> Gateway:
        return over(model)

    async def flying(self, gate: Gateway, model: Model, *others: Complete) -> list[asyncio.Task[Completion]]:
        """Calls, the first of which leads."""
        before = model.asked
        model.hold()
        lead = asking(gate, cached())
        await eventually(lambda: model.asked == before + 1)
        tasks = [lead, *(asking(gate, each) for each in others)]
        await eventually(lambda: gate.calls.in_air == len(tasks))
        await asyncio.sleep(0)
        return tasks

    async def test_identical_calls_share_one(self, gate: Gateway, model: Model):
        tasks = await self.flying(gate, model, *(cached() for _ in range(20)))
        model.go.set()
        lead, *others = await asyncio.gather(*tasks)
        assert model.asked == 1
        assert lead.saved is None
        assert {(one.message, one.saved, one.usage) for one in others} == {(lead.message, lead.usage, NOTHING)}
        assert len(gate.accounts.spared) == 20

    async def test_a_follower_that_goes_does_not_take_the_call_with_it(self, gate: Gateway, model: Model):
        aborted, hasty, patient = cached(), cached(timeout_s=60), cached()
        tasks = await self.flying(gate, model, aborted, hasty, patient)
        await gate.completions.abort("acme", AbortCall(call_id=aborted.call_id, reason="enough"))
        with pytest.raises(Cancelled, match="enough"):
            await tasks[1]
        leap(60)
        with pytest.raises(DeadlineExceeded):
            await tasks[2]
        model.go.set()
        assert (await tasks[0]).message == (await tasks[3]).message
        assert (model.asked, model.gone) == (1, 0)

    async def test_a_leader_that_goes_leaves_the_lead(self, gate: Gateway, model: Model):
        model.hold()
        first = cached()
        lead = asking(gate, first)
        await eventually(lambda: model.asked == 1)
        others = [asking(gate, cached()) for _ in range(3)]
        await eventually(lambda: gate.calls.in_air == 4)
        await gate.completions.abort("acme", AbortCall(call_id=first.call_id))
        with pytest.raises(Cancelled):
            await lead
        await eventually(lambda: model.asked == 2)
        model.go.set()
        assert {(await one).message.text for one in others} == {"m no. 2"}
        assert (model.asked, model.gone) == (2, 1)

    async def test_a_failure_is_the_leaders_alone(self):
        model = Model(ProviderFailed("no"))
        gate = over(model)
        tasks = await self.flying(gate, model, *(cached() for _ in range(3)))
        model.go.set()
        with pytest.raises(ProviderFailed):
            await tasks[0]
        assert {(await one).message.text for one in tasks[1:]} == {"m no. 2"}
        assert model.asked == 2

    async def test_after_two_failures_nobody_waits_for_others(self):
        model = Model(ProviderFailed("no"), ProviderFailed("no"))
        gate = over(model)
        tasks = await self.flying(gate, model, *(cached() for _ in range(3)))
        model.go.set()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(each) for each in found[:2]] == [ProviderFailed, ProviderFailed]
        assert {one.message.text for one in found[2:] if isinstance(one, Completion)} == {"m no. 3", "m no. 4"}

    async def test_what_was_asked_before_answers_were_dropped_is_not_kept(self, gate: Gateway, model: Model):
        tasks = await self.flying(gate, model)
        await gate.shelf.clear("acme")
        model.go.set()
        assert (await tasks[0]).message.text == "m no. 1"
        assert await told(gate, cached()) == "m no. 2"

    async def test_who_wants_a_fresh_answer_takes_one_that_is_being_made(self, gate: Gateway, model: Model):
        tasks = await self.flying(gate, model, cached(policy=CachePolicy(ttl_s=1, fresh=True)))
        model.go.set()
        assert (await tasks[0]).message == (await tasks[1]).message
        assert model.asked == 1

    async def test_a_kept_answer_that_is_too_old_for_a_follower_is_not_its(self, gate: Gateway, model: Model):
        await told(gate, cached())
        tasks = [asking(gate, cached()), asking(gate, cached(policy=CachePolicy(ttl_s=1e-9)))]
        assert [(await one).message.text for one in tasks] == ["m no. 1", "m no. 2"]


class TestOutages:
    async def test_without_the_store_models_are_asked(self):
        model = Model()
        gate = over(model)
        gate.answers.failures = [ConnectionError("away"), ConnectionError("away"), ConnectionError("away")]
        assert await told(gate, cached()) == "m no. 1"
        await eventually(lambda: len(gate.answers.failures) == 1)
        assert await told(gate, cached()) == "m no. 1", "it is in memory"
        gate.shelf.doubt()
        assert await told(gate, cached()) == "m no. 2"

    async def test_what_another_version_kept_is_made_anew(self):
        model = Model()
        gate = over(model)
        await told(gate, cached())
        await eventually(lambda: gate.answers.kept)
        [(key, kept)] = gate.answers.kept.items()
        gate.shelf.doubt()
        gate.answers.kept[key] = type(kept)(b'{"answer": "by a later version"}', kept.made_at, kept.expires_at)
        assert await told(gate, cached()) == "m no. 2"

    async def test_a_limit_that_is_full_is_waited_for_once(self):
        model = Model()
        gate = over(model)
        gate.accounts.answers = [Full("its requests", 0.001)]
        assert {await told(gate, cached()) for _ in range(2)} == {"m no. 1"}
        assert gate.accounts.spared[0].usage.cost_usd == Decimal(0)

    async def test_a_ledger_that_is_away_fails_the_call_and_not_a_kept_answer(self):
        gate = over(Model())
        await told(gate, cached())
        gate.accounts.answers = [Unavailable("away"), Unavailable("away")]
        assert await told(gate, cached()) == "m no. 1"
