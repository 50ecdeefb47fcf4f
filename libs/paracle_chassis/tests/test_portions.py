"""Some at a time: all of them, in order, and never more than were asked for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from paracle_chassis.portions import portions


@given(st.lists(st.integers(), max_size=40), st.integers(1, 50))
def test_all_come_in_order_and_as_many_at_a_time_as_fit(items: list[int], most: int) -> None:
    found = list(portions(items, most))
    assert [item for some in found for item in some] == items
    assert all(len(some) == most for some in found[:-1])
    assert all(0 < len(some) <= most for some in found)
