"""Regular expressions of strangers."""

from __future__ import annotations

import pytest

from paracle_chassis.patterns import pattern
from paracle_domain.errors import InvalidInput


def test_places_are_those_of_characters() -> None:
    assert list(pattern("[0-9]+").spans("ä1 \N{PILE OF POO}22 \ud800 3")) == [(1, 2), (4, 6), (9, 10)]
    assert list(pattern("x*").spans("axxb")) == [(1, 3)]
    assert list(pattern("é", ignore_case=True).spans("É")) == [(0, 1)]
    assert pattern("b").matches("abc")
    assert not pattern("B").matches("abc")


def test_each_is_compiled_once() -> None:
    assert pattern("a+") is pattern("a+")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("(a", "missing"),
        (r"(a)\1", "invalid escape sequence"),
        ("(?<!a)b", "invalid perl operator"),
        ("(a{1000}){1000}", "invalid repetition size"),
    ],
)
def test_what_is_none_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(InvalidInput, match=f"is no regular expression of RE2: {why}"):
        pattern(text)


@pytest.mark.parametrize("text", ["(a+)+$", "(a|a)+$", "(a|aa)+$", "(.*a){20}$", "([a-z]+)*=$"])
def test_no_expression_makes_it_hang(text: str) -> None:
    assert not pattern(text).matches("a" * 50_000 + "!")
