"""Breakers: against a naive model that keeps everything, and within what a replica knows of deployments."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from provider_gateway_samples import deployment

from paracle_domain.errors import InvalidInput, ProviderUnavailable, RateLimited
from paracle_domain.inference.response import BreakerState
from paracle_provider_gateway.breaker import Breaker, BreakerRules
from paracle_provider_gateway.faults import DeploymentFailed
from paracle_provider_gateway.health import LEAVE, Health, Leave, Resting

RULES = BreakerRules(failures=3, window_s=10, cooldown_s=4, longest_s=20)
DOWN = ProviderUnavailable("HTTP 503")
A, B = deployment("a"), deployment("b")


class Naive:
    """Keeps all outcomes since it closed, and looks through them each time."""

    def __init__(self) -> None:
        self.outcomes: list[tuple[float, bool]] = []
        self.trips = 0
        self.till = 0.0
        self.probing = False

    def may_go(self, now: float) -> bool:
        return self.trips == 0 or (now >= self.till and not self.probing)

    def ended(self, now: float, good: bool | None, probe: bool) -> None:
        if probe:
            self.probing = False
            if good:
                self.__init__()  # type: ignore[misc]
            elif good is False:
                self._open(now)
        elif self.trips == 0 and good is not None:
            self.outcomes.append((now, good))
            if good is False:
                self._judge(now)

    def _judge(self, now: float) -> None:
        failures = [place for place, (_, good) in enumerate(self.outcomes) if not good][-RULES.failures :]
        since = self.outcomes[failures[0] :]
        successes = sum(good for _, good in since)
        if len(failures) == RULES.failures and now - since[0][0] <= RULES.window_s and successes <= RULES.failures:
            self._open(now)

    def _open(self, now: float) -> None:
        self.trips += 1
        self.till = now + min(RULES.longest_s, RULES.cooldown_s * 2 ** (self.trips - 1))
        self.outcomes = []


calls = st.lists(st.tuples(st.sampled_from((True, False, False, None)), st.floats(0, 6)), max_size=80)


@given(calls)
def test_a_breaker_is_what_the_naive_model_is(happening: list[tuple[bool | None, float]]):
    breaker, naive, now = Breaker(RULES), Naive(), 0.0
    for good, passed in happening:
        now += passed
        assert breaker.may_go(now) == naive.may_go(now)
        probe = breaker.trips > 0 and breaker.may_go(now)
        if probe:
            breaker, naive.probing = breaker.probe(), True
            assert not breaker.may_go(now), "one probe at a time"
        match good:
            case True:
                breaker = breaker.succeeded(probe=probe)
            case False:
                breaker = breaker.failed(now, probe=probe)
            case None:
                breaker = breaker.gave_up(probe=probe)
        naive.ended(now, good, probe)
        assert (breaker.trips, breaker.may_go(now)) == (naive.trips, naive.may_go(now))
        assert len(breaker.recent) <= RULES.failures


@given(st.integers(1, 9), st.integers(0, 50))
def test_failures_alone_open_it_within_so_many(failures: int, before: int):
    breaker = Breaker(BreakerRules(failures=failures))
    for _ in range(before):
        breaker = breaker.succeeded(probe=False)
    for number in range(failures):
        assert breaker.state(0.0) is BreakerState.CLOSED
        assert breaker.may_go(float(number))
        breaker = breaker.failed(0.0, probe=False)
    assert breaker.state(0.0) is BreakerState.OPEN
    assert not breaker.may_go(0.0)


def test_rests_double_up_to_the_longest_and_start_anew_after_healing():
    breaker, now, rests = Breaker(RULES), 0.0, []
    for _ in range(RULES.failures):
        breaker = breaker.failed(now, probe=False)
    for _ in range(5):
        rests.append(breaker.rests_till - now)
        now = breaker.rests_till
        assert breaker.state(now) is BreakerState.HALF_OPEN
        breaker = breaker.probe().failed(now, probe=True)
    assert rests == [4, 8, 16, 20, 20]
    assert breaker.probe().succeeded(probe=True) == Breaker(RULES)


class Watched:
    """A replica's health with a clock that is set."""

    def __init__(self) -> None:
        self.now = 0.0
        self.told: list[tuple[str, BreakerState]] = []
        self.health = Health(RULES, lambda one, state, _: self.told.append((one.model, state)), lambda: self.now)

    def fail(self, times: int, error: Exception = DOWN) -> None:
        for _ in range(times):
            leave = self.health.ask_leave(A)
            assert isinstance(leave, Leave)
            self.health.failed(A, leave, error)


class TestHealth:
    def test_a_deployment_that_fails_is_left_in_peace_and_others_are_not(self):
        over = Watched()
        over.fail(3)
        rests = over.health.ask_leave(A)
        assert isinstance(rests, Resting)
        assert (rests.error.code, rests.error.retry_after_s) == ("provider_unavailable", 4)
        assert over.health.ask_leave(B) is LEAVE
        assert over.health.state(A)[:2] == (BreakerState.OPEN, 4.0)

    @pytest.mark.parametrize(("owner", "said"), [("acme", "HTTP 503"), (None, "sandbox/a: provider_unavailable")])
    def test_what_the_provider_said_is_told_to_none_but_the_tenant_whose_it_is(self, owner: str | None, said: str):
        """The operator's deployments answer everybody, and an error may quote what one of them asked."""
        over = Watched()
        mine = deployment("a", tenant=owner)
        for _ in range(3):
            over.health.failed(mine, LEAVE, DOWN)
        rests = over.health.ask_leave(mine)
        trouble = over.health.state(mine)[2]
        assert isinstance(rests, Resting)
        assert rests.error.message.endswith(f"the last failure: {said}")
        assert trouble is not None
        assert (trouble.message, trouble.code) == (said, "provider_unavailable")

    def test_one_probe_finds_it_again(self):
        over = Watched()
        over.fail(3)
        over.now = 4.0
        leave = over.health.ask_leave(A)
        assert leave == Leave(probe=True)
        waits = over.health.ask_leave(A)
        assert isinstance(waits, Resting)
        assert waits.error.retry_after_s == 1.0
        over.health.answered(A, leave)
        assert over.health.ask_leave(A) is LEAVE
        assert over.told == [("a", BreakerState.OPEN), ("a", BreakerState.HALF_OPEN), ("a", BreakerState.CLOSED)]
        assert over.health.state(A) == (BreakerState.CLOSED, 0.0, None)

    def test_a_probe_that_says_nothing_lets_another_go(self):
        over = Watched()
        over.fail(3)
        over.now = 4.0
        leave = over.health.ask_leave(A)
        assert isinstance(leave, Leave)
        over.health.unused(A, leave)
        leave = over.health.ask_leave(A)
        assert leave == Leave(probe=True)
        over.health.failed(A, leave, InvalidInput("nonsense"))
        assert over.health.ask_leave(A) == Leave(probe=True)

    def test_what_the_request_did_wrong_does_not_count(self):
        over = Watched()
        over.fail(50, InvalidInput("nonsense"))
        over.fail(50, RateLimited("busy"))
        over.fail(50, ValueError("bug"))
        assert over.health.ask_leave(A) is LEAVE

    def test_a_rest_that_is_asked_for_is_given(self):
        over = Watched()
        over.fail(1, RateLimited("busy", retry_after_s=30))
        rests = over.health.ask_leave(A)
        assert isinstance(rests, Resting)
        assert (type(rests.error), rests.error.retry_after_s) == (RateLimited, 30)
        over.now = 30.0
        assert over.health.ask_leave(A) is LEAVE

    def test_a_provider_that_took_the_place_of_another_begins_well(self):
        over = Watched()
        old, new = deployment("a", tenant="acme"), deployment("a", tenant="acme")
        for _ in range(3):
            over.health.failed(old, LEAVE, DOWN)
        over.now = 4.0
        probe = over.health.ask_leave(old)
        assert probe == Leave(probe=True)
        over.health.retire(old.provider)
        assert over.told[-1] == ("a", BreakerState.CLOSED)
        assert over.health.ask_leave(new) is LEAVE
        for _ in range(3):
            over.health.failed(new, LEAVE, DOWN)
        over.health.unused(old, probe)
        over.health.answered(old, probe)
        assert isinstance(over.health.ask_leave(new), Resting), "what the old one comes to says nothing about the new"
        over.health.retire(new.provider)
        for _ in range(9):
            over.health.failed(new, LEAVE, DOWN)
        assert over.told[-1] == ("a", BreakerState.CLOSED)

    def test_a_bad_key_is_told_as_what_it_is(self):
        over = Watched()
        over.fail(3, DeploymentFailed("HTTP 401"))
        rests = over.health.ask_leave(A)
        assert isinstance(rests, Resting)
        assert (rests.error.code, rests.error.retryable) == ("provider_failed", False)

    @pytest.mark.parametrize("passed", [10.5, 100])
    def test_old_failures_are_forgotten(self, passed: float):
        over = Watched()
        over.fail(2)
        over.now = passed
        assert over.health.state(A) == (BreakerState.CLOSED, 0.0, None)
        over.health.answered(A, LEAVE)
        over.fail(2)
        assert over.health.ask_leave(A) is LEAVE

    def test_what_is_over_makes_room(self):
        over = Watched()
        for number in range(3_000):
            over.now = float(number)
            over.health.failed(deployment(f"m{number}"), LEAVE, DOWN)
        assert len(over.health._troubles) <= 1_024
