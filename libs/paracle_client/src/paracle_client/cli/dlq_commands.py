"""Commands about messages that could not be handled: `paracle dlq …`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from paracle_client.cli.app import EXIT_FAILED, say_error
from paracle_client.cli.filters import chosen, moments
from paracle_client.cli.groups import ListGroup
from paracle_client.cli.target import (
    Output,
    OutputOption,
    UrlOption,
    brief,
    connect,
    console,
    print_json,
    print_page,
)
from paracle_client.plain import safe
from paracle_domain.dead_letters import DeadLetter, DeadLetterFilter, DeadLettersSettled, DeadLetterView
from paracle_domain.errors import InvalidInput

app = typer.Typer()
dlq = typer.Typer(
    cls=ListGroup,
    help="List dead letters (as `ls`), messages that could not be handled, and redrive or drop them.",
    epilog="Example: paracle dlq ls   |   paracle dlq redrive --code internal",
)
app.add_typer(dlq, name="dlq")

LetterArgument = Annotated[str, typer.Argument(metavar="LETTER", help="id of a dead letter")]
MaybeLetter = Annotated[str | None, typer.Argument(metavar="LETTER", help="id of a dead letter; or choose by options")]
ServiceOption = Annotated[str | None, typer.Option(help="only those that this service gave up")]
CodeOption = Annotated[str | None, typer.Option(help="only those with this error code")]
RunOption = Annotated[str | None, typer.Option("--run", help="only those of this run")]
SinceOption = Annotated[
    str | None, typer.Option(help="only those given up then or later: 90s, 30m, 2h, 7d ago, or an ISO time")
]
UntilOption = Annotated[str | None, typer.Option(help="only those given up earlier than that; as --since")]
AllOption = Annotated[bool, typer.Option("--all", help="every one that there is now")]


@dlq.command(epilog="Example: paracle dlq ls --service orchestrator --code malformed_message")
def ls(
    service: ServiceOption = None,
    code: CodeOption = None,
    run: RunOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="at most so many")] = 20,
    cursor: Annotated[str | None, typer.Option(help="`next_cursor` of the page before")] = None,
    output: OutputOption = Output.TABLE,
    url: UrlOption = None,
) -> None:
    """List dead letters, newest first."""
    with connect(url) as client:
        page = client.dead_letters(_which(service, code, run, since, until), limit=limit, cursor=cursor)
    rows = [_row(one) for one in page.letters]
    print_page(page, ["LETTER", "GIVEN UP", "CODE", "RUN", "REASON"], rows, output, empty="no dead letters")


def _row(one: DeadLetter) -> tuple[object, ...]:
    return one.id, brief(one.at), one.code, one.run_id or "", one.reason


@dlq.command(epilog="Example: paracle dlq show dead_01J…")
def show(letter: LetterArgument, output: OutputOption = Output.TABLE, url: UrlOption = None) -> None:
    """Show one dead letter: why it was given up, where it came from, its headers and its body."""
    with connect(url) as client:
        view = client.dead_letter(letter)
    if output is Output.JSON:
        print_json(view)
        return
    about = {name: value for name, value in view.letter.model_dump(mode="json").items() if value is not None}
    for name, value in about.items():
        console().print(f"{name:<14} {safe(str(value))}", markup=False, soft_wrap=True)
    for name, value in view.headers.items():
        console().print(f"  {safe(name)}: {safe(value)}", style="dim", markup=False, soft_wrap=True)
    console().print(safe(_body(view), lines=True), markup=False, soft_wrap=True)


def _body(view: DeadLetterView) -> str:
    """The body as one reads it: JSON laid out, text as it is, anything else in base64."""
    note = f"\n… ({view.letter.size:,} bytes in all)" if view.truncated else ""
    if view.text is None:
        return f"base64: {view.base64}{note}"
    try:
        return json.dumps(json.loads(view.text), indent=2, ensure_ascii=False)
    except ValueError:
        return f"{view.text}{note}"


@dlq.command(epilog="Example: paracle dlq redrive dead_01J…   |   paracle dlq redrive --code internal")
def redrive(
    letter: MaybeLetter = None,
    service: ServiceOption = None,
    code: CodeOption = None,
    run: RunOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    every: AllOption = False,
    output: OutputOption = Output.TABLE,
    url: UrlOption = None,
) -> None:
    """Publish dead letters again, where they were published first: once what was wrong has been mended."""
    which = _chosen(letter, _which(service, code, run, since, until), every)
    with connect(url) as client:
        done = client.redrive(letter) if letter is not None else client.redrive_all(which)
    _report(done, "redriven", output)


@dlq.command(epilog='Example: paracle dlq drop dead_01J… --reason "from a client that is gone"')
def drop(
    reason: Annotated[str, typer.Option(help="kept in the audit log")],
    letter: MaybeLetter = None,
    service: ServiceOption = None,
    code: CodeOption = None,
    run: RunOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    every: AllOption = False,
    output: OutputOption = Output.TABLE,
    url: UrlOption = None,
) -> None:
    """Give dead letters up for good."""
    which = _chosen(letter, _which(service, code, run, since, until), every)
    with connect(url) as client:
        done = client.drop(letter, reason) if letter is not None else client.drop_all(which, reason)
    _report(done, "dropped", output)


def _which(
    service: str | None, code: str | None, run: str | None, since: str | None, until: str | None
) -> DeadLetterFilter:
    after, before = moments(since, until)
    return chosen(DeadLetterFilter, service=service, code=code, run_id=run, since=after, until=before)


def _chosen(letter: str | None, which: DeadLetterFilter, every: bool) -> DeadLetterFilter:
    """`which`, if exactly one way to choose was used: nobody gives up everything by leaving something out."""
    ways = (letter is not None, which != DeadLetterFilter(), every)
    if sum(ways) != 1:
        raise InvalidInput("give one LETTER, or options to choose by, or --all", path="LETTER")
    return which


def _report(done: DeadLettersSettled, what: str, output: Output) -> None:
    if output is Output.JSON:
        print_json(done)
    else:
        count = len(done.settled)
        console().print(f"{count} dead letter{'' if count == 1 else 's'} {what}", markup=False, soft_wrap=True)
    for refused in done.refused:
        say_error(f"{refused.id}: {refused.message}")
    if done.refused:
        raise typer.Exit(EXIT_FAILED)
