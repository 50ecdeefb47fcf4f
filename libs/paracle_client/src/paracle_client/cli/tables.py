"""Tables on a terminal, however narrow: what has no place in a row stands below it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.table import Table
from rich.text import Text

_TIMES: Final = frozenset({"STARTED", "TOOK", "LAST", "EXPIRES", "GIVEN UP", "SINCE", "AT", "CHANGED"})
_WHOLE: Final = _TIMES | {"STATUS", "CODE"}
_GAP: Final = "  "
_INDENT: Final = "    "
_ROOM: Final = 40
"""Where the last column has so much, what it says is folded within it."""

type Cells = Sequence[Sequence[str]]


def table(columns: Sequence[str], cells: Iterable[Sequence[str]]) -> Table:
    """A table whose first column, a name or an id to copy, is not broken, nor is a status."""
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        drawn.add_column(column, overflow="fold", no_wrap=number == 0 or column in _WHOLE)
    for row in cells:
        drawn.add_row(*map(Text, row))
    return drawn


def draw(columns: Sequence[str], cells: Cells, screen: Console) -> None:
    """Print a table as wide as `screen` is: columns for which there is no room are told below each row."""
    widths = [max(map(cell_len, column)) for column in zip(columns, *cells, strict=True)]
    room = screen.width - _width(widths[:-1]) - len(_GAP)
    if room >= min(widths[-1], _ROOM):
        screen.print(table(columns, cells))
        return
    kept = _kept(widths, screen.width)
    whole = [*kept, len(widths) - 1] if len(kept) == len(widths) - 1 else kept
    for number, row in enumerate((columns, *cells)):
        shown = whole if cell_len(_line(row, widths, whole)) <= screen.width else kept
        screen.print(Text(_line(row, widths, shown), style="" if number else "bold"), soft_wrap=True)
        left = [at for at in range(len(row)) if number and row[at] and at not in shown]
        _draw_below(", ".join(_named(columns, row, left)), screen)


def _draw_below(text: str, screen: Console) -> None:
    for line in Text(text).wrap(screen, max(1, screen.width - len(_INDENT))) if text else ():
        screen.print(Text(_INDENT) + line, soft_wrap=True)


def _named(columns: Sequence[str], row: Sequence[str], left: Sequence[int]) -> Iterator[str]:
    """What is left of a row, with the names of columns where there are several; ids (`run_…`) say what they are."""
    for at in left:
        name = columns[at].lower()
        yield row[at] if len(left) == 1 or row[at].startswith(f"{name}_") else f"{name} {row[at]}"


def _kept(widths: Sequence[int], width: int) -> list[int]:
    """The columns that have a place in rows: the first, and of the others, in their order, what fits besides."""
    kept = [0]
    for at in range(1, len(widths)):
        if _width([widths[one] for one in (*kept, at)]) <= width:
            kept.append(at)
    return kept


def _width(widths: Sequence[int]) -> int:
    return sum(widths) + len(_GAP) * (len(widths) - 1)


def _line(row: Sequence[str], widths: Sequence[int], shown: Sequence[int]) -> str:
    *start, last = shown
    return _GAP.join((*(set_cell_size(row[at], widths[at]) for at in start), row[last])).rstrip()
