"""What Anthropic's API is told besides: how much to think, and what of a prompt to keep."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from provider_gateway_samples import SEARCH, ask

from paracle_domain.inference.chat import ChatMessage, Sampling, Thinking, ToolDefinition
from paracle_domain.inference.request import Complete
from paracle_domain.inference.usage import Usage
from paracle_domain.provider.spec import Price
from paracle_provider_gateway.adapters.anthropic_wire import WireUsage, request_body
from paracle_provider_gateway.pricing import cost_by_kind

LONG = "Be brief and kind. " * 300
KEEP = {"type": "ephemeral"}
ONCE = (ChatMessage.user("?"),)
GOES_ON = (ChatMessage.user("?"), ChatMessage.assistant("A cat."), ChatMessage.user("Why?"))


def body_of(request: Complete, model: str = "claude-sonnet-5") -> dict[str, Any]:
    return request_body(model, request, provider="p", max_output_tokens=1_000, schema_format=None, stream=False)


def marks(body: dict[str, Any]) -> int:
    return json.dumps(body).count("cache_control")


def test_a_long_beginning_is_kept_after_its_end():
    body = body_of(ask(messages=(ChatMessage.system(LONG), *ONCE), tools=(SEARCH,)))
    assert body["system"] == [{"type": "text", "text": LONG, "cache_control": KEEP}]
    assert body["messages"][-1]["content"][-1]["cache_control"] == KEEP
    assert marks(body) == 2


def test_long_tools_are_kept_without_a_system_prompt():
    many = tuple(ToolDefinition(name=f"tool_{n}", description=LONG) for n in range(3))
    body = body_of(ask(messages=ONCE, tools=many))
    assert [tool.get("cache_control") for tool in body["tools"]] == [None, None, KEEP]


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        (ONCE, 0),
        (GOES_ON, 0),
        ((ChatMessage.system(LONG), *ONCE), 1),
        ((ChatMessage.system(LONG), *GOES_ON), 2),
        ((ChatMessage.user(LONG),), 0),
        ((ChatMessage.user(LONG), ChatMessage.assistant("A cat."), ChatMessage.user("Why?")), 1),
    ],
    ids=["short", "short, goes on", "long start", "long start, goes on", "asked once", "long question, goes on"],
)
def test_what_is_marked(messages: tuple[ChatMessage, ...], expected: int):
    assert marks(body_of(ask(messages=messages))) == expected
    assert marks(body_of(ask(messages=messages, sampling=Sampling(prompt_cache="off")))) == 0


def test_only_the_last_of_a_conversation_is_marked_and_the_rest_stays_the_same():
    first = body_of(ask(messages=(ChatMessage.user(LONG), *GOES_ON[1:])))
    plain = body_of(ask(messages=(ChatMessage.user(LONG), *GOES_ON[1:]), sampling=Sampling(prompt_cache="off")))
    assert first["messages"][:-1] == plain["messages"][:-1]
    [block] = first["messages"][-1]["content"]
    assert block == plain["messages"][-1]["content"][0] | {"cache_control": KEEP}


@pytest.mark.parametrize(
    ("model", "thinking", "expected"),
    [
        ("claude-sonnet-5", None, {"max_tokens": 1_000}),
        ("claude-sonnet-5", "off", {"max_tokens": 1_000, "thinking": {"type": "disabled"}}),
        (
            "claude-sonnet-5",
            "high",
            {"max_tokens": 1_000, "thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}},
        ),
        (
            "claude-opus-4-6",
            "low",
            {"max_tokens": 1_000, "thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}},
        ),
        (
            "claude-sonnet-4-5-20250929",
            "medium",
            {"max_tokens": 9_192, "thinking": {"type": "enabled", "budget_tokens": 8_192}},
        ),
        (
            "claude-3-7-sonnet-latest",
            "low",
            {"max_tokens": 3_048, "thinking": {"type": "enabled", "budget_tokens": 2_048}},
        ),
    ],
)
def test_thinking(model: str, thinking: Thinking | None, expected: dict[str, Any]):
    body = body_of(ask(sampling=Sampling(thinking=thinking)), model)
    assert {name: body[name] for name in ("max_tokens", "thinking", "output_config") if name in body} == expected


def test_what_is_written_to_the_cache_is_counted_and_costs_what_it_costs():
    usage = WireUsage(
        input_tokens=10, output_tokens=5, cache_read_input_tokens=20, cache_creation_input_tokens=100
    ).to_usage()
    assert (usage.input_tokens, usage.cached_tokens, usage.cache_write_tokens) == (130, 20, 100)
    price = Price(input=Decimal(4), output=Decimal(10), cached=Decimal(1), cache_write=Decimal(5))
    assert cost_by_kind(price, usage) == Decimal(10 * 4 + 20 * 1 + 100 * 5 + 5 * 10) / 1_000_000
    assert cost_by_kind(Price(input=Decimal(4), output=Decimal(10)), usage) == Decimal(130 * 4 + 50) / 1_000_000
    assert (usage + Usage(cache_write_tokens=1)).cache_write_tokens == 101
