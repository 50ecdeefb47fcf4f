"""`paracle models`, `paracle embed`: which models there are, and how near texts are to each other for one."""

from __future__ import annotations

from decimal import Decimal
from itertools import batched  # noqa: TID251  # this process ends at once
from math import sqrt
from pathlib import Path
from typing import Annotated, Final

import typer
from pydantic import BaseModel

from paracle_client.cli.inputs import read_text
from paracle_client.cli.target import (
    Output,
    OutputOption,
    UrlOption,
    connect,
    console,
    print_json,
    print_json_lines,
    print_table,
)
from paracle_client.cli.usage_commands import money
from paracle_domain.errors import InvalidInput
from paracle_domain.inference.embedding import MOST_TEXTS, EmbeddingList
from paracle_domain.inference.response import ModelInfo

app = typer.Typer()

TextsArgument = Annotated[list[str] | None, typer.Argument(metavar="TEXT", help="texts to make vectors of")]
FileOption = Annotated[Path | None, typer.Option("--file", "-f", help="a file with a text in each line")]
ModelOption = Annotated[str, typer.Option("--model", "-m", help="provider/model, or a model of your own")]
DimensionsOption = Annotated[int | None, typer.Option(min=1, help="shorter vectors, where the model can")]
_SHOWN: Final = 60


class Embedded(BaseModel):
    """A text with its embedding, as a line of JSON."""

    text: str
    model: str
    embedding: tuple[float, ...]


@app.command(epilog="Example: paracle models")
def models(output: OutputOption = Output.TABLE, url: UrlOption = None) -> None:
    """List models: what they can do, and what they cost."""
    with connect(url) as client:
        found = client.models()
    if output is Output.JSON:
        print_json(found)
        return
    columns = ["MODEL", "CAN", "READS", "USD/MTOK IN", "OUT", "LEADS TO"]
    print_table(columns, (_row(one) for one in found.models), empty="no models")
    told = f"default is {found.default}; for embeddings {found.default_embedding or 'there is none'}"
    console().print(told, style="dim", markup=False, soft_wrap=True)


def _row(one: ModelInfo) -> tuple[object, ...]:
    reads = "" if one.context_tokens is None else f"{one.context_tokens:,}"
    can = ", ".join(one.capabilities)
    return one.name, can, reads, _rate(one.input_usd_per_mtok), _rate(one.output_usd_per_mtok), ", ".join(one.routes)


def _rate(usd: Decimal | None) -> str:
    return "?" if usd is None else f"{usd.normalize():f}"


@app.command(epilog='Example: paracle embed "I forgot my password" "How do I log in?" "The soup is cold"')
def embed(
    texts: TextsArgument = None,
    file: FileOption = None,
    model: ModelOption = "default",
    dimensions: DimensionsOption = None,
    output: OutputOption = Output.TABLE,
    url: UrlOption = None,
) -> None:
    """Make vectors of texts, and show how near they are to the first; -o json prints a line for each, with its vector.

    Texts that mean something alike are near 1, those that have nothing in common near 0.
    """
    given = [*(texts or ()), *(_lines(file) if file is not None else ())]
    if not given:
        raise InvalidInput("there is no text; give some, or a file with --file", path="TEXT")
    with connect(url) as client:
        parts = [client.embed(part, model=model, dimensions=dimensions) for part in batched(given, MOST_TEXTS)]
    vectors = [vector for part in parts for vector in part.numbers]
    if output is Output.JSON:
        each = zip(given, vectors, strict=True)
        print_json_lines(Embedded(text=text, model=parts[0].model, embedding=vector) for text, vector in each)
        return
    _show(given, vectors, parts)


def _lines(file: Path) -> list[str]:
    return [line for line in read_text(file).splitlines() if line.strip()]


def _show(texts: list[str], vectors: list[tuple[float, ...]], parts: list[EmbeddingList]) -> None:
    rows = ((f"{_nearness(vectors[0], vector):.3f}", _short(text)) for text, vector in zip(texts, vectors, strict=True))
    print_table(["NEARNESS", "TEXT"], rows, empty="no texts")
    tokens = sum(part.usage.total_tokens for part in parts)
    costs = [part.cost_usd for part in parts]
    cost = "at an unknown price" if None in costs else money(sum(filter(None, costs), Decimal(0)))
    told = f"{parts[0].dimensions} dimensions of {parts[0].deployment}; {tokens:,} tokens, {cost}"
    console().print(told, style="dim", markup=False, soft_wrap=True)


def _nearness(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """The cosine between two vectors."""
    lengths = sqrt(sum(a * a for a in one) * sum(b * b for b in other))
    return sum(a * b for a, b in zip(one, other, strict=True)) / lengths if lengths else 0.0


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else f"{line[: _SHOWN - 1]}…"
