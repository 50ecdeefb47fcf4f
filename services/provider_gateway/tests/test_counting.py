"""What is believed of a provider's own words about its reply."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paracle_domain.inference.chat import ChatMessage
from paracle_domain.inference.response import FinishReason
from paracle_domain.inference.usage import Usage
from paracle_domain.provider.spec import Price
from paracle_provider_gateway.counting import credible
from paracle_provider_gateway.ports import Reply
from paracle_provider_gateway.pricing import cost_by_kind

CHEAP_PARTS = Price(
    input=Decimal(3), output=Decimal(15), cached=Decimal("0.3"), cache_write=Decimal("3.75"), reasoning=Decimal(1)
)
COUNTS = ("input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens")


def reply(model: str = "big-1", **counts: Any) -> Reply:
    return Reply(ChatMessage.assistant("Hi"), FinishReason.STOP, Usage(model_calls=1, **counts), model)


def test_what_adds_up_is_believed():
    whole = reply(input_tokens=10, output_tokens=5, cached_tokens=6, cache_write_tokens=4, reasoning_tokens=5)
    assert credible(whole) is whole


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ({"input_tokens": 10, "cached_tokens": 90}, {"input_tokens": 100, "cached_tokens": 90}),
        ({"output_tokens": 10, "reasoning_tokens": 90}, {"output_tokens": 100, "reasoning_tokens": 90}),
        ({"input_tokens": -10, "output_tokens": 5}, {}),
        ({"input_tokens": 10, "output_tokens": 2**63}, {}),
    ],
    ids=["cached besides", "thought besides", "negative", "more than can be"],
)
def test_what_does_not_is_taken_as_it_may_be_meant(said: dict[str, Any], meant: dict[str, Any]):
    assert credible(reply(**said)) == reply(**meant)


@pytest.mark.parametrize("name", ["big\x00", "x" * 201])
def test_a_name_that_cannot_be_kept_is_none(name: str):
    assert credible(reply(name, output_tokens=5)) == reply("", output_tokens=5)


@given(st.fixed_dictionaries(dict.fromkeys(COUNTS, st.integers(-(2**70), 2**70) | st.integers(0, 100))))
def test_no_provider_gives_money_back(counts: dict[str, Any]):
    usage = credible(reply(**counts)).usage
    assert cost_by_kind(CHEAP_PARTS, usage) >= 0
    assert all(getattr(usage, name) >= 0 for name in COUNTS)
