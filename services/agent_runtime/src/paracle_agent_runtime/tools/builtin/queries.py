"""Builtin functions that pick values out of JSON and CSV with JMESPath, within bounds.

A short expression can double what it is given again and again (`[@, @] | [@, @] | …`), so whatever it makes is weighed
as it is made, and stops the query when it is too much.
"""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import Iterator
from typing import Any, Final, Self, override

import jmespath
import jmespath.exceptions
from jmespath import functions, visitor
from pydantic import Field, JsonValue, model_validator

from paracle_agent_runtime.tools.builtin.arguments import Arguments
from paracle_agent_runtime.tools.builtin.files import read_text
from paracle_agent_runtime.tools.permissions import Grants
from paracle_domain.errors import InputInvalid, LimitExceeded, quote
from paracle_domain.messages import JsonObject
from paracle_domain.strict_json import is_deep, whole_text

_WEIGHT: Final = 8_000_000
_STEPS: Final = 4_000_000
_ROWS: Final = 100_000
_QUERY: Final = "a JMESPath expression, such as items[?price > `10`].name; all if absent"


class _JsonQuery(Arguments):
    value: JsonValue
    query: str = Field(default="@", min_length=1, max_length=1_000, description=_QUERY)


class _CsvQuery(Arguments):
    text: str | None = None
    path: str | None = Field(default=None, min_length=1, max_length=4_096, description="instead of text")
    delimiter: str = Field(default=",", pattern=r'^[^\r\n"]$')
    header: bool = Field(default=True, description="whether the first row names the columns")
    query: str = Field(default="@", min_length=1, max_length=1_000, description=_QUERY)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.text is None) == (self.path is None):
            message = "give either text or path"
            raise ValueError(message)
        return self


async def json_query(arguments: JsonObject, _: Grants) -> JsonValue:
    """What `query` finds in `value`; null if there is nothing."""
    asked = _JsonQuery.take(arguments)
    return {"value": await asyncio.to_thread(_search, asked.query, asked.value)}


async def csv_query(arguments: JsonObject, grants: Grants) -> JsonValue:
    """What `query` finds in the rows of a CSV: objects by column (or lists, without a header), all cells as text."""
    asked = _CsvQuery.take(arguments)
    text = asked.text
    if asked.path is not None:
        file: Any = await read_text({"path": asked.path, "max_chars": 1_000_000}, grants)
        if file["truncated"]:
            raise LimitExceeded(f"{quote(asked.path)} has more than 1,000,000 characters", path="path")
        text = file["text"]
    return {"value": await asyncio.to_thread(_in_rows, text or "", asked)}


def _in_rows(text: str, asked: _CsvQuery) -> JsonValue:
    rows: list[JsonValue] = []
    try:
        for row in _rows(text, asked):
            if len(rows) == _ROWS:
                raise LimitExceeded(f"the CSV has more than {_ROWS:,} rows", path="text")
            rows.append(row)
    except (csv.Error, TypeError, ValueError) as error:
        raise InputInvalid(f"the CSV cannot be read: {error}", path="text") from error
    return _search(asked.query, rows)


def _rows(text: str, asked: _CsvQuery) -> Iterator[JsonValue]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=asked.delimiter, strict=True)
    names: list[str] | None = None
    for cells in reader:
        if not cells:
            continue
        if asked.header and names is None:
            names = cells
        elif names is not None:
            yield dict(zip(names, cells + [""] * (len(names) - len(cells)), strict=False))
        else:
            yield list[JsonValue](cells)


def _search(query: str, value: JsonValue) -> JsonValue:
    """What `query` finds in `value`.

    Raises
    ------
    InputInvalid
        If it is no JMESPath expression, or asks of a value what that cannot give.
    LimitExceeded
        If it makes too much, or takes too long.
    """
    try:
        parsed = jmespath.compile(query).parsed
        found = _Interpreter().visit(parsed, value)
        text = json.dumps(found, allow_nan=False)
    except jmespath.exceptions.JMESPathError as error:
        raise InputInvalid(f"{quote(query)} cannot be asked: {' '.join(str(error).split())}", path="query") from error
    except (RecursionError, ValueError, TypeError, ArithmeticError, AttributeError, IndexError) as error:
        message = f"{quote(query)} cannot be asked: {type(error).__name__}: {error}"
        raise InputInvalid(message, path="query") from error
    if is_deep(found):
        raise LimitExceeded(f"{quote(query)} makes a value that nests too deep", path="query")
    result: JsonValue = json.loads(whole_text(text))
    return result


class _Functions(functions.Functions):
    """JMESPath's, of which one could make a giant in a single step."""

    @functions.signature({"types": ["string"]}, {"types": ["array-string"]})
    def _func_join(self, separator: str, array: list[str]) -> str:
        if len(separator) * len(array) + sum(map(len, array)) > _WEIGHT:
            raise LimitExceeded(_too_much(), path="query")
        return separator.join(array)


class _Interpreter(visitor.TreeInterpreter):
    """Weighs each value that comes into being, shared parts as often as they would be written out."""

    def __init__(self) -> None:
        super().__init__(visitor.Options(custom_functions=_Functions()))
        self._weights: dict[int, int] = {}
        self._held: list[Any] = []
        """What was weighed stays, so that its id stays its own."""
        self._steps = 0

    @override
    def visit(self, node: Any, *args: Any, **kwargs: Any) -> Any:
        found = super().visit(node, *args, **kwargs)
        self._count(1)
        self._weigh(found)
        return found

    def _weigh(self, value: Any) -> int:
        if isinstance(value, str):
            return len(value) + 1
        if not isinstance(value, list | dict):
            return 1
        known = self._weights.get(id(value))
        if known is not None:
            return known
        parts = value if isinstance(value, list) else [*value, *value.values()]
        self._count(len(parts))
        weight = 1 + sum(self._weigh(part) for part in parts)
        if weight > _WEIGHT:
            raise LimitExceeded(_too_much(), path="query")
        self._weights[id(value)] = weight
        self._held.append(value)
        return weight

    def _count(self, steps: int) -> None:
        self._steps += steps
        if self._steps > _STEPS:
            raise LimitExceeded(f"the query takes more than {_STEPS:,} steps", path="query")


def _too_much() -> str:
    return f"the query makes a value of more than {_WEIGHT:,} characters"
