"""In which order deployments are asked."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from provider_gateway_samples import deployment

from paracle_domain.provider.spec import Strategy
from paracle_provider_gateway.latencies import Latencies
from paracle_provider_gateway.plans import Deployment, Plan, Route, Tier
from paracle_provider_gateway.strategies import ordered

NAMES = tuple("abcdefgh")
DEPLOYMENTS = {name: deployment(name) for name in NAMES}

tiers = st.lists(
    st.tuples(
        st.sampled_from(Strategy),
        st.lists(st.tuples(st.sampled_from(NAMES), st.floats(0.001, 1000)), min_size=1, max_size=6),
    ),
    min_size=1,
    max_size=4,
)
measures = st.dictionaries(st.sampled_from(NAMES), st.floats(0, 100))


def plan_of(shape: list[tuple[Strategy, list[tuple[str, float]]]]) -> Plan:
    return Plan(
        "m",
        tuple(Tier(tuple(Route(DEPLOYMENTS[n], w) for n, w in routes), strategy) for strategy, routes in shape),
    )


def order(plan: Plan, seconds: dict[str, float], usd: dict[str, float], seed: int = 0) -> list[str]:
    found = ordered(
        plan,
        latency=lambda one: seconds.get(one.model),
        cost=lambda one: usd.get(one.model),
        draw=random.Random(seed).random,
    )
    return [one.model for one in found]


@given(tiers, measures, measures, st.integers())
def test_everybody_is_asked_once_and_tiers_stay_in_turn(shape, seconds, usd, seed):
    found = order(plan_of(shape), seconds, usd, seed)
    first_tier = {name: number for number, (_, routes) in reversed(list(enumerate(shape))) for name, _ in routes}
    assert sorted(found) == sorted(first_tier)
    places = [first_tier[name] for name in found]
    assert places == sorted(places)


@given(st.lists(st.sampled_from(NAMES), min_size=2, unique=True), measures)
def test_the_measured_ones_come_by_their_measure(names: list[str], known: dict[str, float]):
    quickest = order(plan_of([(Strategy.LOWEST_LATENCY, [(n, 1) for n in names])]), known, {})
    assert [known.get(n, 0.0) for n in quickest] == sorted(known.get(n, 0.0) for n in names)
    cheapest = order(plan_of([(Strategy.LOWEST_COST, [(n, 1) for n in names])]), {}, known)
    prices = [known[n] for n in cheapest if n in known]
    assert prices == sorted(prices)
    assert [n for n in cheapest if n not in known] == [n for n in names if n not in known]
    assert set(cheapest[: len(prices)]) == {n for n in names if n in known}, "unknown prices come last"


def test_priority_is_as_written():
    assert order(plan_of([(Strategy.PRIORITY, [("c", 1), ("a", 9), ("b", 1)])]), {"b": 0}, {"b": 0}) == ["c", "a", "b"]


def test_weights_are_shares():
    plan = plan_of([(Strategy.WEIGHTED, [("a", 1), ("b", 3), ("c", 6)])])
    draw = random.Random(7).random
    firsts = Counter(
        ordered(plan, latency=lambda _: None, cost=lambda _: None, draw=draw)[0].model for _ in range(20_000)
    )
    assert {name: count / 20_000 for name, count in firsts.items()} == pytest.approx(
        {"a": 0.1, "b": 0.3, "c": 0.6}, abs=0.02
    )


@given(st.lists(st.floats(0.001, 100), min_size=1, max_size=30))
def test_an_estimate_stays_within_what_was_seen(seen: list[float]):
    latencies, key = Latencies(), ("", "p/m")
    for at, seconds in enumerate(seen):
        latencies.observe(key, seconds, float(at), streamed=True)
    found = latencies.estimate(key, float(len(seen) - 1), streamed=True)
    assert found is not None
    assert min(seen) * 0.999 <= found <= max(seen) * 1.001
    assert latencies.estimate(key, 0.0, streamed=False) is None


def test_an_old_estimate_fades_so_that_the_slow_are_tried_again():
    latencies, key = Latencies(), ("", "p/m")
    latencies.observe(key, 8.0, 0.0, streamed=False)
    assert latencies.estimate(key, 120.0, streamed=False) == pytest.approx(2.0)


def test_the_number_of_estimates_is_bounded():
    latencies = Latencies()
    for number in range(10_000):
        latencies.observe(("", str(number)), 1.0, 0.0, streamed=False)
    assert latencies.estimate(("", "0"), 0.0, streamed=False) is None


def test_a_plan_with_one_deployment_says_so():
    one = deployment("a")
    assert Plan("m", (Tier((Route(one),)),)).only is one
    assert Plan("m", (Tier((Route(one), Route(deployment("b")))),)).only is None
    assert Plan("m", (Tier((Route(one),)), Tier((Route(one),)))).only is None
    assert isinstance(one, Deployment)
