"""Cursors come back as they were given, and anything else is refused at the field that it came in."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paracle_domain.cursors import read_cursor, write_cursor
from paracle_domain.errors import InvalidInput

WORDS = st.lists(st.text(st.characters(codec="utf-8", exclude_characters=" "), min_size=1), max_size=4)


def both(at: datetime, words: Sequence[str]) -> tuple[datetime, list[str]]:
    return at, list(words)


@given(st.datetimes(min_value=datetime(2, 1, 1), max_value=datetime(9998, 1, 1), timezones=st.timezones()), WORDS)  # noqa: DTZ001  # as Hypothesis wants it
def test_a_cursor_says_what_it_was_made_of(at: datetime, words: list[str]):
    assert read_cursor(write_cursor(at, *words), both) == (at.astimezone(UTC), words)
    assert read_cursor(write_cursor(at, *words), both)[0].tzinfo is UTC


@pytest.mark.parametrize("text", ["x", "yesterday a", "2026-01-01T00:00:00 a", "0001-01-01T00:00:00+14:00 a"])
def test_what_is_no_cursor_is_refused(text: str):
    with pytest.raises(InvalidInput, match="is no cursor") as caught:
        read_cursor(base64.urlsafe_b64encode(text.encode()).decode(), both, path="query.cursor")
    assert caught.value.path == "query.cursor"


@given(st.text(max_size=30))
def test_anything_is_a_cursor_or_refused(text: str):
    with suppress(InvalidInput):
        assert read_cursor(text, both)[0].tzinfo is UTC


def test_words_that_are_no_place_are_refused():
    def number(_at: datetime, words: Sequence[str]) -> int:
        (one,) = words
        return int(one)

    assert read_cursor(write_cursor(datetime.now(UTC), "7"), number) == 7
    for words in (["seven"], [], ["7", "8"]):
        with pytest.raises(InvalidInput):
            read_cursor(write_cursor(datetime.now(UTC), *words), number)
