"""The way of a call over its plan: who is asked next, what is waited for, what ends it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from provider_gateway_samples import deployment

from paracle_domain.errors import (
    Cancelled,
    ContentRefused,
    ContextExceeded,
    Forbidden,
    InternalError,
    InvalidInput,
    LimitExceeded,
    NotFound,
    ParacleError,
    ProviderFailed,
    ProviderUnavailable,
    RateLimited,
    Unavailable,
)
from paracle_domain.provider.spec import Capabilities
from paracle_provider_gateway.faults import DeploymentFailed
from paracle_provider_gateway.plans import Deployment
from paracle_provider_gateway.retries import RetryPolicy
from paracle_provider_gateway.walk import Ask, GiveUp, Verdict, Wait, Walk, verdict

A, B, C = (deployment(name) for name in "abc")
DOWN = ProviderUnavailable("down")
POLICY = RetryPolicy(attempts=4, base_s=1.0)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ProviderUnavailable("503"), Verdict.AGAIN),
        (RateLimited("429"), Verdict.AGAIN),
        (Unavailable("no database"), Verdict.AGAIN),
        (DeploymentFailed("401"), Verdict.ELSEWHERE),
        (NotFound("no such model"), Verdict.ELSEWHERE),
        (Forbidden("its name leads to a private address"), Verdict.ELSEWHERE),
        (InvalidInput("takes no files by url"), Verdict.ELSEWHERE),
        (ContextExceeded("too long"), Verdict.LONGER),
        (ProviderFailed("400"), Verdict.END),
        (ContentRefused("no"), Verdict.END),
        (LimitExceeded("budget"), Verdict.END),
        (Cancelled("stop"), Verdict.END),
        (InternalError("bug"), Verdict.END),
    ],
)
def test_what_errors_mean(error: ParacleError, expected: Verdict):
    assert verdict(error) is expected


def test_a_failure_that_may_pass_sends_the_call_on_at_once_and_back_after_a_wait():
    walk = Walk((A, B), POLICY)
    assert walk.step(0) == Ask(A)
    walk.failed(A, DOWN, 0, 0.5)
    assert walk.step(0) == Ask(B)
    walk.failed(B, DOWN, 0.1, 0.5)
    assert walk.step(0.1) == Wait(0.5, DOWN)
    assert walk.step(0.5) == Ask(A)
    walk.failed(A, DOWN, 0.5, 0.5)
    assert walk.step(0.6) == Ask(B)
    walk.failed(B, DOWN, 0.6, 0.5)
    assert walk.step(99) == GiveUp(DOWN), "four requests in all"


def test_retry_after_holds_for_the_one_that_asked():
    walk = Walk((A, B), POLICY)
    walk.failed(A, RateLimited("slow down", retry_after_s=30), 0, 0)
    assert walk.step(0) == Ask(B)
    walk.failed(B, DOWN, 0, 0.5)
    assert walk.step(0.5) == Ask(B)


def test_every_route_is_asked_though_attempts_are_fewer():
    walk = Walk((A, B, C), RetryPolicy(attempts=1))
    for one in (A, B, C):
        assert walk.step(0) == Ask(one)
        walk.failed(one, DOWN, 0, 0.5)
    assert walk.step(99) == GiveUp(DOWN)


def test_what_is_wrong_with_the_request_is_tried_nowhere_else():
    walk, bad = Walk((A, B), POLICY), ProviderFailed("HTTP 400")
    walk.failed(A, bad, 0, 0.5)
    assert walk.step(0) == GiveUp(bad)


def test_what_is_wrong_with_the_deployment_is_tried_elsewhere_only():
    walk, key = Walk((A, B), POLICY), DeploymentFailed("HTTP 401")
    walk.failed(A, key, 0, 0.5)
    assert walk.step(0) == Ask(B)
    walk.failed(B, DOWN, 0, 0.5)
    assert walk.step(0.5) == Ask(B)


def test_the_error_that_may_pass_is_told():
    walk = Walk((A, B), RetryPolicy(attempts=1))
    walk.failed(A, DOWN, 0, 0.5)
    walk.failed(B, DeploymentFailed("HTTP 401"), 0, 0.5)
    assert walk.step(0) == GiveUp(DOWN)


def test_what_does_not_fit_goes_to_those_that_read_more():
    def reading(name: str, tokens: int | None) -> Deployment:
        return deployment(name, capabilities=Capabilities(context_tokens=tokens))

    small, same, large, unknown = reading("s", 8), reading("t", 8), reading("l", 32), reading("u", None)
    too_long = ContextExceeded("too long")
    walk = Walk((small, same, unknown, large), POLICY)
    walk.failed(small, too_long, 0, 0.5)
    assert walk.step(0) == Ask(large)
    walk.failed(large, too_long, 0, 0.5)
    assert walk.step(0) == GiveUp(too_long)
    walk = Walk((unknown, small), POLICY)
    walk.failed(unknown, too_long, 0, 0.5)
    assert walk.step(0) == Ask(small)


def test_a_full_limit_is_waited_for_without_counting():
    walk, full = Walk((A,), RetryPolicy(attempts=1)), RateLimited("full", retry_after_s=2)
    for at in (0, 10, 20, 30):
        assert walk.step(at) == Ask(A)
        walk.full(A, full, at, 0)
        assert walk.step(at) == Wait(at + 2, full)


def test_a_rest_is_not_waited_for_without_end():
    walk, rests = Walk((A,), RetryPolicy(attempts=2)), ProviderUnavailable("rests", retry_after_s=5)
    walk.resting(A, rests, 0, 0)
    assert walk.step(0) == Wait(5, rests)
    walk.resting(A, rests, 5, 0)
    assert walk.step(99) == GiveUp(rests)


def test_a_rest_that_will_not_help_is_not_waited_for():
    walk, rests = Walk((A, B), POLICY), DeploymentFailed("bad key")
    walk.resting(A, rests, 0, 0)
    assert walk.step(0) == Ask(B)
    walk.resting(B, rests, 0, 0)
    assert walk.step(0) == GiveUp(rests)


def test_somebody_else_can_be_asked_besides():
    walk = Walk((A, B), RetryPolicy(attempts=4))
    assert walk.besides(A, 0) is B
    assert Walk((A,), POLICY).besides(A, 0) is None
    walk.failed(B, RateLimited("busy", retry_after_s=60), 0, 0)
    assert walk.besides(A, 0) is None


ERRORS = (
    DOWN,
    RateLimited("429", retry_after_s=3),
    DeploymentFailed("401"),
    ContextExceeded("long"),
    ProviderFailed("400"),
)
happenings = st.lists(
    st.tuples(st.sampled_from(("failed", "full", "resting")), st.sampled_from(ERRORS), st.floats(0, 0.99)), max_size=60
)


@given(st.integers(1, 5), st.integers(1, 6), happenings)
def test_no_call_is_without_end_and_each_asks_everybody_before_it_asks_again(count, attempts, happening):
    order = tuple(deployment(str(number)) for number in range(count))
    walk, now, sent, asked = Walk(order, RetryPolicy(attempts=attempts)), 0.0, 0, []
    for kind, error, draw in happening:
        match walk.step(now):
            case Wait(until, _):
                assert until > now
                now = until
            case GiveUp(reason):
                assert isinstance(reason, ParacleError)
                break
            case Ask(one):
                asked.append(one)
                if kind == "failed":
                    sent += 1
                getattr(walk, kind)(one, error, now, draw)
    assert sent <= max(attempts, count)
    firsts = asked[: len(set(asked))]
    if all((kind, error) == ("failed", DOWN) for kind, error, _ in happening):
        assert len(set(firsts)) == len(firsts), "nobody twice before everybody once"
