"""What dead letters are called, and what chooses among them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from paracle_domain.dead_letters import DeadLetterFilter, DropDeadLetter, dead_letter_id
from paracle_domain.ids import is_id, ulid_time_ms


@given(st.text(), st.integers(0, 2**48 - 1))
def test_the_same_death_has_one_name(key: str, time_ms: int) -> None:
    name = dead_letter_id(key, time_ms)
    assert name == dead_letter_id(key, time_ms)
    assert is_id(name, "dead")
    assert ulid_time_ms(name) == time_ms
    assert name != dead_letter_id(f"{key}x", time_ms)


def test_nothing_is_given_up_without_a_reason() -> None:
    with pytest.raises(ValidationError):
        DropDeadLetter(id=dead_letter_id("x"), reason="")


def test_times_have_a_zone() -> None:
    with pytest.raises(ValidationError):
        DeadLetterFilter.model_validate({"since": "2026-01-01T00:00:00"})
