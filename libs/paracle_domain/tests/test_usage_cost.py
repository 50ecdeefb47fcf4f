"""An unknown cost is not zero: not in a sum, and not after a journey."""

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paracle_domain.inference.usage import NOTHING, Usage
from paracle_domain.messages import Message
from paracle_domain.run.events import StepCancelled


class Carrier(Message):
    usage: Usage


@pytest.mark.parametrize("cost", [None, Decimal(0), Decimal("0.0000125")])
def test_cost_survives_the_wire(cost: Decimal | None):
    message = Carrier(usage=Usage(input_tokens=3, cost_usd=cost))
    assert Carrier.decode(message.encode()) == message


@given(st.builds(Usage, cost_usd=st.none() | st.decimals(0, 9, places=4)))
def test_what_was_used_says_no_more_than_it_used(usage: Usage):
    event = StepCancelled(step="s", usage=usage)
    said = json.loads(event.encode()).get("usage", {})
    assert said.keys() == {name for name, value in usage if value != getattr(NOTHING, name)}
    assert StepCancelled.decode(event.encode()) == event


def test_a_sum_with_an_unknown_cost_is_unknown():
    assert (Usage(cost_usd=Decimal(1)) + Usage(cost_usd=None)).cost_usd is None


@pytest.mark.parametrize("mode", ["validation", "serialization"])
def test_schema_names_the_fields(mode):
    assert "cost_usd" in Usage.model_json_schema(mode=mode)["properties"]
