"""What providers write about a reply besides it: how many tokens, which model, which part. It may be anything."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from provider_gateway_samples import ask

from paracle_domain.errors import ProviderFailed
from paracle_domain.inference.usage import Usage
from paracle_domain.provider.spec import Price
from paracle_provider_gateway.adapters import anthropic_wire, openai_wire, responses_wire
from paracle_provider_gateway.adapters.anthropic_wire import MessageReader
from paracle_provider_gateway.adapters.openai_wire import ChunkReader
from paracle_provider_gateway.adapters.responses_events import ResponseReader
from paracle_provider_gateway.adapters.wire import EventReader
from paracle_provider_gateway.faults import Origin
from paracle_provider_gateway.pricing import cost_by_kind

ORIGIN = Origin("somewhere", "SOME_KEY")
PRICE = Price(input=Decimal(3), output=Decimal(15), cached=Decimal("0.3"), reasoning=Decimal(1))
COUNTS = st.none() | st.integers(-(10**30), 10**30) | st.integers(-5, 50)


def chat(read: int, said: int, cached: int | None, thought: int | None) -> Usage:
    return openai_wire.WireUsage(
        prompt_tokens=read,
        completion_tokens=said,
        prompt_tokens_details=openai_wire.WireInputDetails(cached_tokens=cached),
        completion_tokens_details=openai_wire.WireOutputDetails(reasoning_tokens=thought),
    ).to_usage()


def responses(read: int, said: int, cached: int | None, thought: int | None) -> Usage:
    return responses_wire.WireUsage(
        input_tokens=read,
        output_tokens=said,
        input_tokens_details=responses_wire.WireInputDetails(cached_tokens=cached),
        output_tokens_details=responses_wire.WireOutputDetails(reasoning_tokens=thought),
    ).to_usage()


def anthropic(read: int, said: int, cached: int | None, written: int | None) -> Usage:
    return anthropic_wire.WireUsage(
        input_tokens=read, output_tokens=said, cache_read_input_tokens=cached, cache_creation_input_tokens=written
    ).to_usage()


@pytest.mark.parametrize("counted", [chat, responses, anthropic])
@given(read=COUNTS, said=COUNTS, one=COUNTS, other=COUNTS)
def test_no_count_gives_a_budget_money_back_or_is_too_large_to_keep(
    counted: Callable[..., Usage], read: int | None, said: int | None, one: int | None, other: int | None
) -> None:
    usage = counted(read or 0, said or 0, one, other)
    assert cost_by_kind(PRICE, usage) >= 0
    assert all(0 <= each < 2**62 for each in (usage.input_tokens, usage.output_tokens, usage.total_tokens))
    assert usage.cached_tokens + usage.cache_write_tokens <= usage.input_tokens
    assert usage.reasoning_tokens <= usage.output_tokens


@pytest.mark.parametrize("kind", [openai_wire.WireReply, responses_wire.WireState, anthropic_wire.WireReply])
def test_the_name_of_a_model_can_be_kept(kind: Any) -> None:
    empty: dict[str, Any] = {"choices": [], "content": []}
    assert kind.model_validate(empty | {"model": "m\x00\n1" + "x" * 500}).model == "m1" + "x" * 196


CALL = {"function": {"name": "f", "arguments": ""}}
PIECES: list[tuple[Callable[[], EventReader], dict[str, Any]]] = [
    (lambda: ChunkReader(ask(), ORIGIN), {"choices": [{"delta": {"tool_calls": [CALL | {"index": -3}]}}]}),
    (lambda: ResponseReader(ask(), ORIGIN), {"type": "response.output_text.delta", "output_index": -1, "delta": "a"}),
    (
        lambda: MessageReader(ORIGIN),
        {"type": "content_block_delta", "index": -1, "delta": {"type": "text_delta", "text": "a"}},
    ),
]


@pytest.mark.parametrize(("reader", "event"), PIECES, ids=["chat", "responses", "anthropic"])
def test_a_part_that_cannot_be_is_the_providers_fault(reader: Callable[[], EventReader], event: dict[str, Any]) -> None:
    with pytest.raises(ProviderFailed, match="does not follow the protocol at"):
        list(reader().read(json.dumps(event).encode()))
