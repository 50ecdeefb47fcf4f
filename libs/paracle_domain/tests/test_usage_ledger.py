"""What can be asked of the usage ledger."""

from __future__ import annotations

import pytest

from paracle_domain.errors import MalformedMessage
from paracle_domain.inference.ledger import ListAttempts, QueryUsage, Spend, UsageBy


def test_usage_is_added_up_by_each_kind_once() -> None:
    asked = QueryUsage(by=(UsageBy.MODEL, UsageBy.DAY), project="atlas")
    assert QueryUsage.decode(asked.encode()) == asked
    with pytest.raises(MalformedMessage, match="names something twice: model, model"):
        QueryUsage.decode(b'{"by": ["model", "model"]}')


@pytest.mark.parametrize("body", [b'{"since": "2026-01-01T00:00:00"}', b'{"run_id": "x"}', b'{"limit": 0}'])
def test_what_cannot_be_meant_is_refused(body: bytes) -> None:
    for kind in (QueryUsage, ListAttempts):
        with pytest.raises(MalformedMessage):
            kind.decode(body)


def test_times_are_told_to_the_millisecond() -> None:
    spend = Spend(latency_s=0.1 + 0.2, first_token_s=None)
    assert Spend.model_validate_json(spend.model_dump_json()) == spend
    assert (spend.latency_s, spend.first_token_s) == (0.3, None)
