"""Slots and gates: who goes on, in fair turns, whoever gives up waiting."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from provider_gateway_samples import CONTEXT, ask, deployment, gateway

from paracle_chassis.testing.eventually import eventually
from paracle_domain.envelope import Context
from paracle_domain.errors import Cancelled, RateLimited
from paracle_domain.inference.request import AbortCall
from paracle_domain.provider.spec import DeploymentLimits
from paracle_provider_gateway.accounts import GRANTED, Attempt, Full, Opening, Outcome
from paracle_provider_gateway.adapters.sandbox import SandboxProvider
from paracle_provider_gateway.admission import Admission
from paracle_provider_gateway.gates import Gates
from paracle_provider_gateway.plans import Deployment

NEVER = 1_000.0


async def test_slots_go_round_fairly():
    admission, served = Admission(1), list[str]()
    await admission.enter("first", "normal")

    async def work(tenant: str) -> None:
        await admission.enter(tenant, "normal")
        served.append(tenant)
        admission.leave(tenant)

    waiting = [asyncio.create_task(work(tenant)) for tenant in ("noisy",) * 50 + ("quiet",)]
    await asyncio.sleep(0)
    admission.leave("first")
    await asyncio.gather(*waiting)
    assert served.index("quiet") <= 1
    assert Counter(served) == {"noisy": 50, "quiet": 1}
    assert admission.idle


async def test_who_gives_up_waiting_takes_no_slot_with_him():
    admission = Admission(1)
    await admission.enter("a", "normal")
    before, during = (asyncio.create_task(admission.enter("a", "normal")) for _ in range(2))
    await asyncio.sleep(0)
    before.cancel()
    with pytest.raises(asyncio.CancelledError):
        await before
    admission.leave("a")
    during.cancel()  # it has just been given the slot, and does not know it yet
    with pytest.raises(asyncio.CancelledError):
        await during
    assert admission.idle


@given(st.integers(1, 4), st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9)), max_size=40))
@settings(deadline=None)
def test_slots_are_never_lost_nor_given_twice(slots: int, happening: list[tuple[str, int]]):
    async def story() -> None:
        admission, held, most = Admission(slots), [0], [0]

        async def work(tenant: str) -> None:
            await admission.enter(tenant, "normal")
            held[0] += 1
            most[0] = max(most[0], held[0])
            try:
                await asyncio.sleep(0)
            finally:
                held[0] -= 1
                admission.leave(tenant)

        tasks = list[asyncio.Task[None]]()
        for tenant, action in happening:
            tasks.append(asyncio.create_task(work(tenant)))
            if action < 5:
                await asyncio.sleep(0)
            if action < 3:
                tasks[len(tasks) * action // 3].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert admission.idle
        assert most[0] <= slots

    asyncio.run(story())


class Slots:
    """Slots with tenants that wait for them; `held` counts what each has."""

    def __init__(self, number: int) -> None:
        self.now = 0.0
        self.admission = Admission(number, lambda: self.now)
        self.held = Counter[str]()
        self.waiting = list[asyncio.Task[None]]()

    async def ask(self, tenant: str, times: int = 1) -> None:
        """Let it ask; whatever it gets, it keeps."""
        self.waiting += [asyncio.create_task(self._enter(tenant)) for _ in range(times)]
        await _settle()

    async def end(self, tenant: str, times: int = 1) -> None:
        for _ in range(times):
            self.held[tenant] -= 1
            self.admission.leave(tenant)
            await _settle()

    async def close(self) -> None:
        for task in self.waiting:
            task.cancel()
        await asyncio.gather(*self.waiting, return_exceptions=True)

    async def _enter(self, tenant: str) -> None:
        await self.admission.enter(tenant, "normal")
        self.held[tenant] += 1


async def _settle() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_a_tenant_alone_has_every_slot():
    slots = Slots(16)
    await slots.ask("noisy", 100)
    assert slots.held == {"noisy": 16}
    await slots.close()


async def test_whoever_comes_into_a_flood_waits_for_one_call_to_end_and_then_for_none():
    slots = Slots(16)
    await slots.ask("noisy", 200)
    await slots.ask("quiet")
    assert slots.held == {"noisy": 16}
    await slots.end("noisy")
    assert slots.held == {"noisy": 15, "quiet": 1}
    await slots.end("noisy", 4)
    assert slots.held == {"noisy": 12, "quiet": 1}
    await slots.end("quiet")
    assert +slots.held == {"noisy": 12}
    for tenant in "abcd":
        await slots.ask(tenant)
    assert +slots.held == {"noisy": 12, "a": 1, "b": 1, "c": 1, "d": 1}, "whoever comes finds a slot"
    await slots.close()


async def test_what_is_left_free_is_used_when_the_others_have_gone():
    slots = Slots(8)
    await slots.ask("quiet")
    await slots.end("quiet")
    await slots.ask("noisy", 100)
    assert +slots.held == {"noisy": 6}
    slots.now = 61.0
    await slots.end("noisy")
    assert +slots.held == {"noisy": 8}
    await slots.close()


@given(st.integers(1, 40), st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), max_size=120))
@settings(deadline=None)
def test_a_slot_is_free_only_if_nobody_who_waits_may_have_it(number: int, happening: list[tuple[str, bool]]):
    async def story() -> None:
        slots, asked = Slots(number), Counter[str]()
        for tenant, asks in happening:
            if asks:
                asked[tenant] += 1
                await slots.ask(tenant)
            elif slots.held[tenant]:
                asked[tenant] -= 1
                await slots.end(tenant)
            free = number - slots.held.total()
            assert free >= 0
            for other, wanted in asked.items():
                if wanted > slots.held[other] and free:
                    assert slots.held[other] >= max(3 * free, number / 8)
        await slots.close()

    asyncio.run(story())


class Limited:
    """Accounts of which one deployment may be asked `size` times at once, by all together."""

    def __init__(self, size: int, after_s: float = 0.01) -> None:
        self.size = size
        self.after_s = after_s
        self.taken = 0
        self.most = 0
        self.order: list[str] = []
        self.asked = 0

    async def open(self, attempt: Attempt) -> Opening:
        self.asked += 1
        await asyncio.sleep(0)
        if self.taken >= self.size:
            return Full("concurrency", self.after_s)
        self.taken += 1
        self.most = max(self.most, self.taken)
        self.order.append(attempt.context.tenant)
        return GRANTED

    def settle(self, attempt: Attempt, outcome: Outcome) -> None:
        self.taken -= 1

    async def take_over(self, tenant: str, call_id: str, replica: str) -> None:
        raise AssertionError("there are no other replicas here")

    def done(self, tenant: str, call_id: str) -> None:
        """Nothing is kept of a call."""


class Gated(SandboxProvider):
    """The sandbox, once its gate is open."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()

    async def ask(self, model, request):
        await self.gate.wait()
        return await super().ask(model, request)


async def test_a_shared_limit_is_waited_for_in_fair_turns():
    provider, accounts = Gated(), Limited(2)
    over = gateway(provider, accounts=accounts)
    calls = [(f"noisy{i}", Context("noisy")) for i in range(30)] + [("quiet", Context("quiet"))]
    asking = [asyncio.create_task(over.completions.complete(ask(text), context)) for text, context in calls]
    await eventually(lambda: accounts.asked > 2)
    provider.gate.set()
    await asyncio.gather(*asking)
    assert accounts.most == 2
    assert accounts.order.index("quiet") <= 4
    assert over.attempts._gates._gates == {}, "no gate is left standing"


async def test_one_asks_for_all_while_a_limit_is_full():
    provider, accounts = SandboxProvider(), Limited(0, after_s=NEVER)
    over = gateway(provider, accounts=accounts)
    asking = [asyncio.create_task(over.completions.complete(ask(timeout_s=2_000), CONTEXT)) for _ in range(20)]
    await eventually(lambda: accounts.asked == 20)
    late = asyncio.create_task(over.completions.complete(ask(timeout_s=2_000), CONTEXT))
    await asyncio.sleep(0)
    assert accounts.asked == 20
    accounts.size = 100
    gate = over.attempts._gates.at(deployment("rules").key)
    assert gate is not None
    gate.freed()
    await asyncio.gather(*asking, late)


async def test_a_limit_that_is_full_till_after_the_deadline_is_told_at_once():
    over = gateway(SandboxProvider(), accounts=Limited(0, after_s=60))
    with pytest.raises(RateLimited, match="sandbox/rules: concurrency") as caught:
        await over.completions.complete(ask(timeout_s=20), CONTEXT)
    assert caught.value.retry_after_s == pytest.approx(60, abs=20)
    assert over.waits == []


async def test_who_gives_up_at_a_gate_lets_the_next_ask():
    accounts = Limited(0, after_s=NEVER)
    over = gateway(SandboxProvider(), accounts=accounts)
    first, second = ask(timeout_s=2_000), ask(timeout_s=2_000)
    asking = [asyncio.create_task(over.completions.complete(request, CONTEXT)) for request in (first, second)]
    await eventually(lambda: accounts.asked == 2)
    await over.completions.abort(CONTEXT.tenant, AbortCall(call_id=first.call_id))
    with pytest.raises(Cancelled):
        await asking[0]
    accounts.size = 1
    gate = over.attempts._gates.at(deployment("rules").key)
    assert gate is not None
    gate.freed()
    assert (await asking[1]).sandbox
    assert over.attempts._gates._gates == {}


class ByManifest(Limited):
    """Accounts that go by the limits which a call was begun with."""

    async def open(self, attempt: Attempt) -> Opening:
        self.size = attempt.deployment.limits.concurrency or 0
        return await super().open(attempt)


async def test_who_comes_after_a_limit_was_raised_does_not_wait_for_the_old_one():
    provider, accounts = Gated(), ByManifest(0, after_s=NEVER)
    over = gateway(SandboxProvider(), accounts=accounts)

    def make(limit: int) -> asyncio.Task[Any]:
        one = Deployment(provider, "rules", limits=DeploymentLimits(concurrency=limit))
        return asyncio.create_task(over.attempts.make(Attempt(1, one, ask(), CONTEXT), math.inf, patient=True))

    before = [make(1), make(1)]
    await eventually(lambda: accounts.asked == 2)
    after = make(2)
    await eventually(lambda: accounts.taken == 2)
    provider.gate.set()
    await asyncio.gather(*before, after)
    assert over.attempts._gates._gates == {}


async def test_who_comes_after_a_limit_was_changed_lines_up_behind_those_who_wait_for_the_new_one():
    provider, accounts = Gated(), ByManifest(0, after_s=NEVER)
    over = gateway(SandboxProvider(), accounts=accounts)

    async def make(limit: int, *, asked: int) -> asyncio.Task[Any]:
        one = Deployment(provider, "rules", limits=DeploymentLimits(concurrency=limit))
        attempt = Attempt(1, one, ask(), CONTEXT)
        making = asyncio.create_task(over.attempts.make(attempt, math.inf, patient=True))
        await eventually(lambda: accounts.asked >= asked)
        for _ in range(10):
            await asyncio.sleep(0)
        assert accounts.asked == asked
        return making

    calls = [await make(1, asked=1), await make(1, asked=2), await make(2, asked=3), await make(2, asked=4)]
    calls.append(await make(2, asked=4))
    calls.append(await make(1, asked=4))
    provider.gate.set()
    await asyncio.gather(*calls)
    assert over.attempts._gates._gates == {}


async def test_a_gate_stands_while_somebody_waits_at_it():
    gates, key = Gates(), ("", "p/m")
    assert gates.at(key) is None
    first, second = gates.turn(key, Full("x", 1)), gates.turn(key, Full("x", 1))
    assert first.gate is second.gate is gates.at(key)
    await first.enter("a", "normal")
    waiting = asyncio.create_task(second.enter("b", "normal"))
    await asyncio.sleep(0)
    first.leave()
    await waiting
    first.leave()
    assert gates.at(key) is second.gate
    second.leave()
    assert gates.at(key) is None


class Tight(Limited):
    """Accounts with a budget of the tenant `tight` of which the rest is reserved, until it is not."""

    reserved = True

    async def open(self, attempt: Attempt) -> Opening:
        self.asked += 1
        if self.reserved and attempt.context.tenant == "tight":
            return Full("the budget", self.after_s, ("tight", "b"))
        return await super().open(attempt)


async def test_a_budget_that_is_reserved_holds_up_its_own_calls_alone():
    accounts = Tight(9)
    over = gateway(SandboxProvider(), accounts=accounts)
    waiting = asyncio.create_task(over.completions.complete(ask(), Context("tight")))
    await eventually(lambda: accounts.asked > 1)
    assert (await over.completions.complete(ask(), Context("other"))).sandbox
    assert not waiting.done()
    accounts.reserved = False
    assert (await waiting).sandbox
    assert over.attempts._gates._gates == {}
