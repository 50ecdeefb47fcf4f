"""A JSON value as people read it: headings, paragraphs, lists and tables. It knows no workflow in particular."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from pydantic import JsonValue
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from paracle_client.plain import safe

_LONG: Final = 100
_NAME: Final = 24
_TITLES: Final = ("title", "name", "subject")
_MOST_COLUMNS: Final = 7


def print_value(value: JsonValue, console: Console) -> None:
    """Print `value`: a text as it is, anything else laid out."""
    if isinstance(value, str):
        console.print(safe(value, lines=True), markup=False, highlight=False, soft_wrap=True)
        return
    for part in lay_out(value):
        console.print(part)


def lay_out(value: JsonValue, depth: int = 0) -> Iterator[RenderableType]:
    """The parts that show `value`, each indented by its depth."""
    match value:
        case dict():
            yield from _object(value, depth)
        case list():
            yield from _list(value, depth)
        case _:
            yield _indented(Text(cell(value)), depth)


def _object(value: Mapping[str, JsonValue], depth: int) -> Iterator[RenderableType]:
    """Its title, then short fields as a list, then long and nested ones below headings."""
    title = next((key for key in _TITLES if isinstance(value.get(key), str)), None)
    if title is not None:
        yield _indented(Text(cell(value[title]), style="bold underline" if depth == 0 else "bold"), depth)
    rest = {key: item for key, item in value.items() if key != title}
    short = {key: item for key, item in rest.items() if _is_short(item)}
    if short:
        yield _indented(_fields(short), depth)
    for key, item in rest.items():
        if key not in short:
            yield _indented(Text(f"\n{_heading(key)}", style="bold"), depth)
            yield from lay_out(item, depth + 1)


def _list(value: Sequence[JsonValue], depth: int) -> Iterator[RenderableType]:
    records = [item for item in value if isinstance(item, dict)]
    if records and len(records) == len(value) and (table := _table(records)) is not None:
        yield _indented(table, depth)
        return
    for item in value:
        if isinstance(item, dict | list):
            yield from lay_out(item, depth + 1)
        else:
            yield _indented(Text(f"• {cell(item)}"), depth)


def _fields(fields: Mapping[str, JsonValue]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for key, item in fields.items():
        table.add_row(Text(_heading(key)), Text(cell(item)))
    return table


def _table(records: Sequence[Mapping[str, JsonValue]]) -> Table | None:
    """A table of objects that are alike; `None` if they have too many fields for one."""
    columns = list(dict.fromkeys(key for record in records for key in record))
    if not columns or len(columns) > _MOST_COLUMNS:
        return None
    table = Table(header_style="bold", box=None, pad_edge=False)
    cells = {column: [cell(record.get(column)) for record in records] for column in columns}
    for number, column in enumerate(columns):
        table.add_column(_heading(column), overflow="fold", no_wrap=number == 0 and _are_names(cells[column]))
    for row in zip(*cells.values(), strict=True):
        table.add_row(*map(Text, row))
    return table


def _are_names(cells: Sequence[str]) -> bool:
    """Whether a column has names of files and the like, which lose by being broken."""
    return all(len(one) <= _NAME and " " not in one for one in cells)


def cell(value: JsonValue) -> str:
    """`value` as one piece of text."""
    match value:
        case None:
            return "–"
        case bool():
            return "yes" if value else "no"
        case str():
            return safe(value, lines=True)
        case int() | float():
            return f"{value:,}"
        case list() if all(isinstance(item, str) for item in value):
            return ", ".join(cell(item) for item in value) or "–"
        case _:
            return safe(json.dumps(value, ensure_ascii=False))


def _is_short(value: JsonValue) -> bool:
    if isinstance(value, list):
        return len(value) == 0 or (all(isinstance(item, str) for item in value) and len(cell(value)) <= _LONG)
    return not isinstance(value, dict) and len(cell(value)) <= _LONG and "\n" not in cell(value)


def _heading(key: str) -> str:
    words = safe(key).replace("_", " ")
    return words[:1].upper() + words[1:]


def _indented(part: RenderableType, depth: int) -> RenderableType:
    return Padding(part, (0, 0, 0, 2 * depth)) if depth else part
