"""An unknown cost is not zero: not in a sum, and not after a journey."""

from decimal import Decimal

import pytest

from paracle_domain.inference.usage import Usage
from paracle_domain.messages import Message


class Carrier(Message):
    usage: Usage


@pytest.mark.parametrize("cost", [None, Decimal(0), Decimal("0.0000125")])
def test_cost_survives_the_wire(cost: Decimal | None):
    message = Carrier(usage=Usage(input_tokens=3, cost_usd=cost))
    assert Carrier.decode(message.encode()) == message


def test_a_sum_with_an_unknown_cost_is_unknown():
    assert (Usage(cost_usd=Decimal(1)) + Usage(cost_usd=None)).cost_usd is None


@pytest.mark.parametrize("mode", ["validation", "serialization"])
def test_schema_names_the_fields(mode):
    assert "cost_usd" in Usage.model_json_schema(mode=mode)["properties"]
