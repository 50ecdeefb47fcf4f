"""Which Paracle a command talks to, and how answers are printed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Protocol

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.text import Text

from paracle_client.cli.tables import draw, table
from paracle_client.client import DEFAULT_URL, Client
from paracle_client.plain import safe, safe_json
from paracle_client.stack.state import State, find_root
from paracle_domain.envelope import read_roles

if TYPE_CHECKING:
    from paracle_client.aio import AsyncClient

URL_VARIABLE: Final = "PARACLE_URL"
PRINCIPAL_VARIABLE: Final = "PARACLE_PRINCIPAL"
ROLES_VARIABLE: Final = "PARACLE_ROLES"
_ENDLESS: Final = 100_000


class Page(Protocol):
    """What lists are made of."""

    @property
    def next_cursor(self) -> str | None: ...

    def model_dump_json(self, *, indent: int) -> str: ...


class Output(StrEnum):
    TABLE = "table"
    JSON = "json"


OutputOption = Annotated[Output, typer.Option("--output", "-o", help="table for people, json (or --json) for programs")]
UrlOption = Annotated[
    str | None,
    typer.Option("--url", help="Paracle's address; else $PARACLE_URL, the stack in ./.paracle or above, or port 8080"),
]


def connect(url: str | None) -> Client:
    """A client for `url`, or for what the environment or the nearest stack says; the environment says who asks."""
    return Client(resolve(url, os.environ, Path.cwd()), **_identity())


def connect_async(url: str | None) -> AsyncClient:
    """The same for what does several things at once."""
    from paracle_client.aio import AsyncClient  # noqa: PLC0415 - only that pays for loading it

    return AsyncClient(resolve(url, os.environ, Path.cwd()), **_identity())


def _identity() -> dict[str, Any]:
    """Who asks, as the environment says."""
    return {
        "principal": os.environ.get(PRINCIPAL_VARIABLE) or None,
        "roles": read_roles(os.environ.get(ROLES_VARIABLE)),
    }


def resolve(url: str | None, environment: Mapping[str, str], cwd: Path) -> str:
    """The address to use: as told, as the environment says, of the nearest stack from `cwd` upwards, the default."""
    if told := url or environment.get(URL_VARIABLE):
        return told
    root = find_root(cwd)
    found = None if root is None else State.load(root).url
    return found or DEFAULT_URL


def console(*, aside: bool = False) -> Console:
    """Where tables and texts go: to standard output, or `aside`, to standard error."""
    return Console(highlight=False, stderr=aside)


def print_json(value: BaseModel | Mapping[str, Any]) -> None:
    """`value` as indented JSON on standard output, whatever its encoding."""
    if not isinstance(value, BaseModel):
        import json  # noqa: PLC0415 - rare

        _write(json.dumps(value, indent=2, ensure_ascii=False, default=str))
        return
    _write(value.model_dump_json(indent=2))


def print_json_lines(values: Iterable[BaseModel]) -> None:
    """Each value as one line of JSON, as soon as it is there."""
    for value in values:
        _write(value.model_dump_json())


def _write(text: str) -> None:
    rest = memoryview(safe_json(text).encode() + b"\n")
    while rest:  # unbuffered standard output may take less than it is given
        rest = rest[sys.stdout.buffer.write(rest) :]
    sys.stdout.flush()


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
    """A table; `empty` if it has no rows. Where no terminal has a width, a row is a line."""
    cells = [[safe(str(cell)) for cell in row] for row in rows]
    screen = console()
    if not cells:
        screen.print(Text(empty, style="dim"))
    elif not screen.is_terminal:
        wide = Console(highlight=False, width=None if "COLUMNS" in os.environ else _ENDLESS)
        with wide.capture() as drawn:
            wide.print(table(columns, cells))
        _write("\n".join(line.rstrip() for line in drawn.get().splitlines()))
    else:
        draw(columns, cells, screen)


def print_page(
    page: Page, columns: Sequence[str], rows: Iterable[Sequence[object]], output: Output, *, empty: str
) -> None:
    """A page of a list, and how to see the next one."""
    if output is Output.JSON:
        _write(page.model_dump_json(indent=2))
        return
    print_table(columns, rows, empty=empty)
    print_more("--cursor", page.next_cursor)


def print_more(option: str, value: object) -> None:
    """How to see more; `value` is `None` if there is none."""
    if value is not None:
        console().print(f"more: {option} {value}", style="dim", markup=False, soft_wrap=True)


def print_facts(facts: Iterable[tuple[str, str]], screen: Console | None = None) -> None:
    """What is to be said of one thing, a line each."""
    for name, text in facts:
        (screen or console()).print(f"{name:<9} {safe(text)}", markup=False, soft_wrap=True)


def moment(at: datetime | None) -> str:
    """A time here; nothing for none."""
    return "" if at is None else f"{at.astimezone():%Y-%m-%d %H:%M:%S}"


def brief(at: datetime | None) -> str:
    """The same for lists: of today, only the time."""
    if at is None:
        return ""
    here = at.astimezone()
    return f"{here:%H:%M:%S}" if here.date() == datetime.now().astimezone().date() else f"{here:%Y-%m-%d %H:%M}"
