"""What a call may use, before it has used anything."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paracle_domain.inference.chat import (
    ChatMessage,
    FilePart,
    ImagePart,
    OutputFormat,
    Part,
    ReasoningPart,
    Role,
    Sampling,
    TextPart,
    Thinking,
    ToolCallPart,
    ToolDefinition,
    ToolResultPart,
)
from paracle_domain.inference.estimate import FILE_TOKENS, IMAGE_TOKENS, TYPICAL_OUTPUT, estimate_input, estimate_output
from paracle_domain.inference.request import Complete


def ask(*parts: Part, **more: Any) -> Complete:
    return Complete(call_id="c", messages=(ChatMessage(role=Role.USER, parts=parts),), **more)


LESS = estimate_input(ask())


@pytest.mark.parametrize(
    ("part", "least"),
    [
        (TextPart(text="x" * 400), 100),
        (TextPart(text="語" * 100), 100),
        (ReasoningPart(text="x" * 400), 100),
        (ToolCallPart(id="1", name="count", arguments={"text": "x" * 400}), 100),
        (ToolCallPart(id="1", name="count", invalid="x" * 400), 100),
        (ToolResultPart(call_id="1", content="x" * 400), 100),
        (ImagePart(url="https://x/y.png"), IMAGE_TOKENS),
        (ImagePart(data="x" * 10**6, media_type="image/png"), IMAGE_TOKENS),
        (FilePart(url="https://x/y.pdf"), FILE_TOKENS),
        (FilePart(data="x" * 4_000, media_type="text/csv"), 1_000),
    ],
)
def test_every_part_counts(part: Part, least: int):
    assert LESS + least <= estimate_input(ask(part)) <= LESS + 4 * least


def test_tools_and_the_shape_of_the_answer_count_too():
    schema = {"type": "object", "properties": {"text": {"description": "x" * 400}}}
    assert estimate_input(ask(tools=(ToolDefinition(name="t", description="y" * 400, input_schema=schema),))) > 200
    assert estimate_input(ask(output=OutputFormat(json_schema=schema))) > 100


@given(st.text(max_size=200), st.text(max_size=200))
def test_more_is_never_less(one: str, other: str):
    assert estimate_input(ask(TextPart(text=one))) <= estimate_input(ask(TextPart(text=one), TextPart(text=other)))


@pytest.mark.parametrize(
    ("asked", "most", "expected"),
    [
        (None, None, TYPICAL_OUTPUT),
        (None, 100, 100),
        (50, None, 50),
        (50, 100, 50),
        (500, 100, 100),
        (10**30, None, 10**9),
    ],
)
def test_output_is_bounded_by_the_request_and_by_the_model(asked: int | None, most: int | None, expected: int):
    assert estimate_output(ask(sampling=Sampling(max_output_tokens=asked)), most) == expected


@pytest.mark.parametrize(
    ("asked", "thinking", "most", "expected"),
    [
        (100, "off", None, 100),
        (100, "low", None, 2_148),
        (100, "high", 8_000, 8_000),
        (None, "medium", None, TYPICAL_OUTPUT + 8_192),
        (None, "medium", 32_000, 32_000),
    ],
)
def test_thoughts_have_room_of_their_own(asked: int | None, thinking: Thinking, most: int | None, expected: int):
    assert estimate_output(ask(sampling=Sampling(max_output_tokens=asked, thinking=thinking)), most) == expected
