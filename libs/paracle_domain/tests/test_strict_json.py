from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paracle_domain.errors import InvalidInput
from paracle_domain.run.nodes import MOST_LEVELS, require_levels
from paracle_domain.strict_json import MAX_DEPTH, is_deep_in, is_finite, parse_json, whole_text, without_fence
from paracle_domain.task.events import TaskCompleted, dump_event, load_event

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(VALUES)
def test_what_json_can_say_is_taken_as_it_is(value: Any) -> None:
    assert parse_json(json.dumps(value)) == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "Expecting property name"),
        ("[NaN]", "NaN is not JSON"),
        ("-Infinity", "-Infinity is not JSON"),
        ('{"a": 1e999}', "1e999 is too large for a number"),
        ('{"a": "\\ud83d"}', "half of a surrogate pair"),
        ('{"\\udead": 1}', "half of a surrogate pair"),
        ('"\ud83d"', "half of a surrogate pair"),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "more than 100 levels"),
        ('{"a":' * 100_000, "more than 100 levels"),
    ],
)
def test_what_others_could_not_read_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_json(text)


@pytest.mark.parametrize("text", ['{"a": 1}', ' {"a": 1}\n', '```json\n{"a": 1}\n```', '```\n{"a": 1}\n```'])
def test_a_fence_is_not_of_what_is_in_it(text: str) -> None:
    assert parse_json(without_fence(text)) == {"a": 1}


@pytest.mark.parametrize(
    "text",
    [
        '"\\ud83d\\ude00"',
        "[" * MAX_DEPTH + "]" * MAX_DEPTH,
        json.dumps([[{"a": [n]}] for n in range(200)]),
        json.dumps("[" * 500),
    ],
)
def test_what_is_taken_survives_a_journal(text: str) -> None:
    value = parse_json(text)
    assert load_event(dump_event(TaskCompleted(output=value))) == TaskCompleted(output=value)


@pytest.mark.parametrize("innermost", ["", "1", '{"a": "b"}'])
def test_levels_are_those_of_objects_and_arrays(innermost: str) -> None:
    """Whatever is in the innermost one, and however many of them there are."""
    levels = MAX_DEPTH - innermost.startswith("{")
    value = "[" * levels + innermost + "]" * levels
    assert parse_json(f"[{value[1:-1]}, [], []]")
    with pytest.raises(ValueError, match="more than 100 levels"):
        parse_json(f"[{value}]")


@pytest.mark.parametrize(
    ("text", "whole"), [("plain", "plain"), ("grüße", "grüße"), ("caf\udce9", "caf�"), ("😀", "😀")]
)
def test_half_pairs_in_text_are_replaced(text: str, whole: str) -> None:
    assert whole_text(text) == whole


@pytest.mark.parametrize("value", [1.5, "Infinity", None, [], {"a": [1e308, {"b": -0.0}]}])
def test_ordinary_numbers_are_finite(value: Any) -> None:
    assert is_finite(value)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, [1, [math.nan]], {"a": {"b": [math.inf]}}])
def test_infinities_are_found_at_any_depth(value: Any) -> None:
    assert not is_finite(value)


@pytest.mark.parametrize(
    ("body", "deep"), [("[[1, 2], [3]]", False), ("[1, 2, 3]", False), ("[[[1]]]", True), ('{"a": [{}]}', True)]
)
def test_what_came_nests_as_deep_as_it_says(body: str, deep: bool) -> None:
    assert is_deep_in(body.encode(), parse_json(body), 2) is deep


def test_no_run_is_given_what_nests_too_deep_to_be_read_again() -> None:
    fits, deep = ("[" * levels + "]" * levels for levels in (MOST_LEVELS, MOST_LEVELS + 1))
    require_levels(fits.encode(), json.loads(fits), "input")
    with pytest.raises(InvalidInput, match="150 levels deep; pass it flatter") as caught:
        require_levels(deep.encode(), json.loads(deep), "input")
    assert caught.value.path == "input"
