"""Regular expressions of strangers."""

from __future__ import annotations

import subprocess
import sys

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


def test_each_gets_as_much_memory_as_it_needs_and_no_more() -> None:
    assert [pattern(text).size >> 10 for text in (r"\d+", r"[\p{L}]{2,40}\d", r"[\p{L}]{2,99}\d")] == [256, 1024, 4096]


_MANY = r"""
import random, resource
from paracle_chassis.patterns import MOST_BYTES, pattern

def most() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10

random.seed(1)
text = "".join(random.choices("abcxyz0123 é", k=50_000))
before = most()
for n in range(30):
    for large in (r"(?:[a-z]{1,3}[0-9 ]?x.{0,20}){2}@%d", r"[\p{L}]{2,40}.{0,9}@%d", r"[\p{L}]{2,99}.{0,9}@%d"):
        assert not pattern(large % n).matches(text)
print((most() - before) / MOST_BYTES)
"""


def test_all_of_them_together_take_no_more_than_they_may() -> None:
    ended = subprocess.run([sys.executable, "-c", _MANY], capture_output=True, text=True, check=True, timeout=110)
    assert float(ended.stdout) < 2, "what they may take, and what the allocator needs besides"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("(a", "missing"),
        (r"(a)\1", "invalid escape sequence"),
        ("(?<!a)b", "invalid perl operator"),
        ("(a{1000}){1000}", "invalid repetition size"),
        (r"[\p{L}]{1,900}", "pattern too large"),
    ],
)
def test_what_is_none_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(InvalidInput, match=f"is no regular expression of RE2: {why}"):
        pattern(text)


@pytest.mark.parametrize("text", ["(a+)+$", "(a|a)+$", "(a|aa)+$", "(.*a){20}$", "([a-z]+)*=$"])
def test_no_expression_makes_it_hang(text: str) -> None:
    assert not pattern(text).matches("a" * 50_000 + "!")
