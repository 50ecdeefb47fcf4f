"""What tokens cost."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import genai_prices
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from paracle_domain.inference.usage import Usage
from paracle_domain.provider.spec import Price
from paracle_provider_gateway.adapters.sandbox import SandboxProvider
from paracle_provider_gateway.plans import Deployment
from paracle_provider_gateway.pricing import ListPrices

MODELS = [
    ("openai", "gpt-4o"), ("openai", "gpt-5"), ("anthropic", "claude-sonnet-4-5"), ("google", "gemini-2.5-pro"),
    ("google", "gemini-2.5-flash"), ("openai", "gpt-4.1"),
]  # fmt: skip


class Named(SandboxProvider):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name


def at(provider: str, model: str, **more: Any) -> Deployment:
    return Deployment(Named(provider), model, **more)


@pytest.fixture(scope="module")
def prices() -> ListPrices:
    return ListPrices("sandbox", {"openai-compatible": "http://127.0.0.1:11434/v1"})


counts = st.integers(0, 400_000)


@given(st.sampled_from(MODELS), counts, counts, st.integers(0, 400_000))
def test_a_known_model_costs_what_the_list_says(
    prices: ListPrices, named: tuple[str, str], given: int, said: int, cached: int
):
    assume(given + said > 0)
    usage = Usage(input_tokens=given, output_tokens=said, cached_tokens=min(given, cached))
    tokens = genai_prices.Usage(input_tokens=given, output_tokens=said, cache_read_tokens=usage.cached_tokens)
    expected = genai_prices.calc_price(tokens, named[1], provider_id=named[0]).total_price
    assert prices.cost(at(*named), named[1], usage) == expected


def test_an_unknown_model_has_an_unknown_price(prices: ListPrices):
    for deployment in (at("openai", "no-such-model"), at("openai-compatible", "gpt-4o"), at("nobody", "x")):
        assert prices.cost(deployment, deployment.model, Usage(input_tokens=9)) is None
        assert prices.estimate(deployment, 9, 9) is None
        assert prices.rates(deployment) is None


def test_list_prices_go_by_the_url_where_the_name_does_not_tell(prices: ListPrices):
    named = at("my-own", "gpt-4o", price_url="https://api.openai.com/v1")
    assert prices.estimate(named, 1_000, 1_000) == prices.estimate(at("openai", "gpt-4o"), 1_000, 1_000)


def test_a_manifest_counts_more_than_the_list(prices: ListPrices):
    price = Price(input=Decimal(1), output=Decimal(2), cached=Decimal("0.5"), reasoning=Decimal(4))
    usage = Usage(input_tokens=10, cached_tokens=4, output_tokens=10, reasoning_tokens=5)
    assert prices.cost(at("openai", "gpt-4o", price=price), "gpt-4o", usage) == Decimal(38) / 1_000_000
    rates = prices.rates(at("openai", "gpt-4o", price=price))
    assert rates is not None
    assert (rates.input, rates.output) == (1, 2)
    plain = Price(input=Decimal(1), output=Decimal(2))
    assert prices.cost(at("openai", "gpt-4o", price=plain), "gpt-4o", usage) == Decimal(30) / 1_000_000


@given(st.sampled_from(MODELS), st.integers(1, 400_000), counts, st.data())
def test_nothing_costs_more_than_was_estimated(
    prices: ListPrices, named: tuple[str, str], given: int, said: int, data: st.DataObject
):
    kinds = st.decimals(0, 100, places=2)
    own = st.builds(Price, input=kinds, output=kinds, cached=kinds, cache_write=kinds, reasoning=kinds)
    deployment = at(*named, price=data.draw(st.none() | own))
    cached = data.draw(st.integers(0, given))
    written, thought = data.draw(st.integers(0, given - cached)), data.draw(st.integers(0, said))
    usage = Usage(
        input_tokens=given,
        output_tokens=said,
        cached_tokens=cached,
        cache_write_tokens=written,
        reasoning_tokens=thought,
    )
    cost, most = prices.cost(deployment, named[1], usage), prices.estimate(deployment, given, said)
    assert cost is not None
    assert most is not None
    assert cost <= most


def test_the_sandbox_charges_its_made_up_price(prices: ListPrices):
    assert prices.estimate(at("sandbox", "rules"), 1_000_000, 1_000_000) == Decimal("0.5")
    rates = prices.rates(at("sandbox", "rules"))
    assert rates is not None
    assert (rates.input, rates.output) == (0.1, 0.4)


def test_prices_are_looked_up_anew_and_not_kept_without_end():
    now = [0.0]
    prices = ListPrices("sandbox", clock=lambda: now[0])
    first = prices.estimate(at("openai", "gpt-4o"), 10, 10)
    now[0] = 61.0
    assert prices.estimate(at("openai", "gpt-4o"), 10, 10) == first
    for number in range(2_100):
        assert prices.estimate(at("openai", f"no-such-{number}"), 1, 1) is None
    assert len(prices._tariffs) <= 2_048
