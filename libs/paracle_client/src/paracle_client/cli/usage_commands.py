"""`paracle usage`: what model calls used, by whatever somebody wants to know."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Annotated, Final

import typer

from paracle_client.cli.filters import chosen, moments
from paracle_client.cli.target import (
    Output,
    OutputOption,
    UrlOption,
    brief,
    connect,
    print_json,
    print_page,
    print_table,
)
from paracle_domain.errors import InvalidInput, quote
from paracle_domain.inference.ledger import (
    MOST_ROWS,
    Outcome,
    Spend,
    UsageBy,
    UsageFilter,
    UsageRecord,
    UsageTable,
)
from paracle_domain.names import suggest

app = typer.Typer()

_NONE: Final = "–"
_NUMBERS: Final = (
    "attempts",
    "failed",
    "open",
    "cached",
    "input_tokens",
    "output_tokens",
    "cached_tokens",
    "reasoning_tokens",
    "cost_usd",
    "unpriced",
    "reserved_usd",
    "saved_usd",
    "saved_tokens",
    "latency_s",
    "first_token_s",
)


def _kinds(incomplete: str) -> list[str]:
    """What may follow in a list with commas, for completion."""
    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{kind}" for kind in UsageBy if kind.startswith(last)]


ByOption = Annotated[
    str,
    typer.Option(
        metavar="KIND,…", help=f"what to add up by: {', '.join(UsageBy)}; several by commas", autocompletion=_kinds
    ),
]
SinceOption = Annotated[str, typer.Option(help="only what ended then or later: 90s, 30m, 2h, 7d ago, or an ISO time")]
UntilOption = Annotated[str | None, typer.Option(help="only what ended earlier than that; as --since")]
ModelOption = Annotated[str | None, typer.Option(help="only of this model, as its provider calls it")]
ProviderOption = Annotated[str | None, typer.Option(help="only of this provider")]
AgentOption = Annotated[str | None, typer.Option(help="only of this agent")]
UserOption = Annotated[str | None, typer.Option(help="only of runs that this principal started")]
ProjectOption = Annotated[str | None, typer.Option(help="only of runs with this label project")]
RunOption = Annotated[str | None, typer.Option("--run", help="only of this run")]
TaskOption = Annotated[str | None, typer.Option("--task", help="only of this task")]
OutcomeOption = Annotated[Outcome | None, typer.Option(help="only attempts that ended so")]
AttemptsOption = Annotated[bool, typer.Option("--attempts", help="each attempt by itself, newest first")]
CsvOption = Annotated[bool, typer.Option("--csv", help="print comma-separated values, with all numbers")]
LimitOption = Annotated[int, typer.Option(min=1, max=MOST_ROWS, help="most rows")]
CursorOption = Annotated[str | None, typer.Option(help="with --attempts: `next_cursor` of the page before")]


@app.command(epilog="Example: paracle usage --by model,agent,day --since 30d")
def usage(
    by: ByOption = "model",
    since: SinceOption = "7d",
    until: UntilOption = None,
    model: ModelOption = None,
    provider: ProviderOption = None,
    agent: AgentOption = None,
    user: UserOption = None,
    project: ProjectOption = None,
    run: RunOption = None,
    task: TaskOption = None,
    outcome: OutcomeOption = None,
    attempts: AttemptsOption = False,
    as_csv: CsvOption = False,
    limit: LimitOption = 100,
    cursor: CursorOption = None,
    output: OutputOption = Output.TABLE,
    url: UrlOption = None,
) -> None:
    """Show what model calls used, in tokens and money: by model, agent, user, project, run, day and more."""
    after, before = moments(since, until)
    which = chosen(
        UsageFilter,
        since=after,
        until=before,
        model=model,
        provider=provider,
        agent=agent,
        user=user,
        project=project,
        run_id=run,
        task_id=task,
        outcome=outcome,
    )
    if attempts:
        _attempts(which, limit, cursor, output, url, as_csv=as_csv)
        return
    kinds = parse_by(by)
    with connect(url) as client:
        table = client.query_usage(kinds, which, limit=limit)
    if output is Output.JSON:
        print_json(table)
    elif as_csv:
        _print_csv([*kinds, *_NUMBERS], ([*_names(kinds, row.by, ""), *_all(row.spend)] for row in table.rows))
    else:
        _print(kinds, table)


def parse_by(text: str) -> tuple[UsageBy, ...]:
    """What `--by` names.

    Raises
    ------
    InvalidInput
        If one of it is no kind; it says what is near.
    """
    found = []
    for name in filter(None, (part.strip() for part in text.split(","))):
        try:
            found.append(UsageBy(name))
        except ValueError:
            kinds = [kind.value for kind in UsageBy]
            near = suggest(name, kinds)
            way_out = near if near.endswith("?") else f"; it is by {', '.join(kinds)}"
            raise InvalidInput(f"usage is not counted by {quote(name)}{way_out}", path="--by") from None
    return tuple(dict.fromkeys(found))


def money(amount: Decimal | None) -> str:
    """An amount for people: in cents, finer where it is little, so that nothing looks like nothing."""
    if amount is None:
        return "unknown"
    if not amount or amount >= 1:
        return f"${amount:,.2f}"
    fine = f"{amount:.4f}" if amount >= Decimal("0.01") else f"{amount.normalize():f}"
    return f"${fine.rstrip('0'):0<4}"


def _print(kinds: Sequence[UsageBy], table: UsageTable) -> None:
    columns = [*(kind.upper().replace("_", " ") for kind in kinds), "ATTEMPTS", "FAILED", "IN", "OUT", "CACHED", "COST"]
    rows = [(*_names(kinds, row.by, _NONE), *_cells(row.spend)) for row in table.rows]
    if len(rows) != 1 or not kinds:
        rows.append((*(["total", *[""] * (len(kinds) - 1)] if kinds else []), *_cells(table.total)))
    print_table(columns, rows if table.total.attempts else [], empty="no model calls in that time")
    if table.more:
        typer.echo(f"there are more rows than {len(table.rows)}: --limit shows more")


def _names(kinds: Sequence[UsageBy], by: dict[UsageBy, str], none: str) -> list[str]:
    return [by.get(kind, none) for kind in kinds]


def _cells(spend: Spend) -> tuple[object, ...]:
    tokens = (spend.input_tokens, spend.output_tokens, spend.cached_tokens)
    failed = f"{spend.failed:,}" if spend.failed else ""
    return f"{spend.attempts:,}", failed, *(f"{number:,}" for number in tokens), "; ".join(_cost(spend))


def _cost(spend: Spend) -> Iterator[str]:
    yield money(spend.cost_usd)
    if spend.unpriced:
        yield f"{spend.unpriced:,} at a cost that is unknown"
    if spend.cached:
        yield f"{spend.cached:,} from the cache, which saved {money(spend.saved_usd)}"
    if spend.open:
        yield f"{spend.open:,} under way, for up to {money(spend.reserved_usd)}"


def _all(spend: Spend) -> Iterator[object]:
    """Every number, as programs read it."""
    for name in _NUMBERS:
        value = getattr(spend, name)
        yield "" if value is None else f"{value:f}" if isinstance(value, Decimal) else value


def _attempts(
    which: UsageFilter, limit: int, cursor: str | None, output: Output, url: str | None, *, as_csv: bool
) -> None:
    with connect(url) as client:
        page = client.attempts(which, limit=min(limit, 1_000), cursor=cursor)
    if as_csv and output is not Output.JSON:
        fields = list(UsageRecord.model_fields)
        shown = (one.model_dump(mode="json") for one in page.records)
        _print_csv(fields, ([each[name] if each[name] is not None else "" for name in fields] for each in shown))
        return
    rows = [_attempt(one) for one in page.records]
    columns = ["AT", "MODEL", "AGENT", "OUTCOME", "IN", "OUT", "COST", "TOOK", "RUN"]
    print_page(page, columns, rows, output, empty="no model calls in that time")


def _attempt(one: UsageRecord) -> tuple[object, ...]:
    outcome = one.outcome if one.error is None else f"{one.outcome}: {one.error}"
    again = f" (try {one.number})" if one.number > 1 else ""
    took = "" if one.latency_s is None else f"{one.latency_s:.2f}s"
    model = f"{one.provider}/{one.model}"
    return (
        brief(one.at), model, one.agent or _NONE, f"{outcome}{again}",
        f"{one.input_tokens:,}", f"{one.output_tokens:,}", _price(one), took, one.run_id or _NONE,
    )  # fmt: skip


def _price(one: UsageRecord) -> str:
    match one.outcome:
        case Outcome.OPEN:
            return f"up to {money(one.reserved_usd)}"
        case Outcome.CACHED:
            return f"saved {money(one.saved_usd)}"
        case _:
            return money(one.cost_usd)


def _print_csv(columns: Sequence[str], rows: Iterator[Sequence[object]]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_harmless(cell) for cell in row] for row in rows)


def _harmless(cell: object) -> object:
    """Names are other people's: what a spreadsheet would take for a formula is marked as text."""
    return f"'{cell}" if isinstance(cell, str) and cell[:1] in {"=", "+", "-", "@", "\t", "\r"} else cell
