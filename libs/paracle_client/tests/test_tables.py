"""Tables on terminals of any width."""

from __future__ import annotations

import io

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from paracle_client.cli.tables import draw

COLUMNS = ("LETTER", "CODE", "RUN", "REASON")
ROWS = (("dead_1", "not_found", "", "there is no such thing, nor was there ever one"), ("dead_2", "x", "run_1", "no"))


def drawn(columns: tuple[str, ...], rows: tuple[tuple[str, ...], ...], width: int) -> list[str]:
    out = io.StringIO()
    draw(columns, rows, Console(file=out, width=width, color_system=None))
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_a_wide_terminal_has_everything_in_its_row() -> None:
    assert drawn(COLUMNS, ROWS, 75) == [
        "LETTER  CODE       RUN    REASON",
        "dead_1  not_found         there is no such thing, nor was there ever one",
        "dead_2  x          run_1  no",
    ]


def test_where_much_room_is_left_the_last_column_is_folded() -> None:
    assert drawn(COLUMNS, ROWS, 68)[1:3] == [
        "dead_1  not_found         there is no such thing, nor was there ever",
        f"{'':26}one",
    ]


def test_what_has_no_room_beside_stands_below() -> None:
    assert drawn(COLUMNS, ROWS, 40) == [
        "LETTER  CODE       RUN    REASON",
        "dead_1  not_found",
        "    there is no such thing, nor was",
        "    there ever one",
        "dead_2  x          run_1  no",
    ]


def test_several_columns_below_are_named_unless_they_say_what_they_are() -> None:
    assert drawn(COLUMNS, ROWS[1:], 12) == ["LETTER  CODE", "dead_2  x", "    run_1,", "    reason", "    no"]


@given(
    st.lists(st.tuples(*[st.text(st.characters(categories=["L", "N"]), max_size=30)] * 3), min_size=1, max_size=4),
    st.integers(35, 90),
)
def test_no_line_is_wider_than_the_terminal(rows: list[tuple[str, str, str]], width: int) -> None:
    lines = drawn(("A", "B", "C"), tuple((name[:15], *rest) for name, *rest in rows), width)
    assert all(cell_len(line) <= width for line in lines)
