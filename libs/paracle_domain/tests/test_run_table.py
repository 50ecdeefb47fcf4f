"""The table of steps: what it counts and finds, and that a copy never shows to others."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from paracle_domain.run.table import BLOCKED, READY, Table


@dataclass(frozen=True)
class Thing:
    name: str
    ended: bool


values = st.one_of(st.integers(0, 3), st.builds(Thing, st.sampled_from("ab"), st.booleans()))


@given(
    size=st.integers(1, 300),
    writes=st.lists(st.tuples(st.integers(0, 299), values, st.integers(0, 3)), max_size=60),
)
def test_a_table_is_a_list_that_can_be_kept(size: int, writes: list[tuple[int, int | Thing, int]]) -> None:
    """Each group of writes has a token of its own; what was before it stays as it was."""
    plain: list[int | Thing] = [READY] * size
    table: Table[Thing] = Table.of([READY] * size)
    kept = [(table, list(plain))]
    token = object()
    group = 0
    for place, value, number in writes:
        if number != group:
            group, token = number, object()
            kept.append((table, list(plain)))
        plain[place % size] = value
        table = table.put(place % size, value, token)
    for one, expected in [*kept, (table, plain)]:
        check(one, expected)


def check(table: Table[Thing], expected: list[int | Thing]) -> None:
    assert list(table) == expected
    assert table.count == len(expected)
    assert list(table.ready_places()) == [n for n, value in enumerate(expected) if value == READY]
    assert list(table.open_entries()) == [
        (place, value) for place, value in enumerate(expected) if isinstance(value, Thing) and not value.ended
    ]
    assert table.ready == sum(value == READY for value in expected)
    assert table.open == len(list(table.open_entries()))
    assert table.ended == sum(isinstance(value, Thing) and value.ended for value in expected)
    assert [table[n] for n in range(len(expected))] == expected
    assert [table.entry(n) for n in range(len(expected))] == [None if isinstance(v, int) else v for v in expected]


def test_a_table_of_blocked_places_is_filled_one_by_one() -> None:
    table: Table[Thing] = Table.blocked(300)
    for count in (0, 1, 127, 128, 129, 300):
        table = Table.blocked(count)
        assert list(table) == [BLOCKED] * count
        assert table == Table.of([BLOCKED] * count)
    filled = table.put(299, Thing("x", ended=False), object()).put(5, Thing("y", ended=True), object())
    assert list(filled.open_entries()) == [(299, Thing("x", ended=False))]
    assert filled != table
    assert table != []
