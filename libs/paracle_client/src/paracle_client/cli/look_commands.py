"""What happened in a run: events."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer

from paracle_client.cli.following import leave
from paracle_client.cli.target import (
    Output,
    OutputOption,
    UrlOption,
    connect,
    console,
    print_json_lines,
)
from paracle_client.display import describe, watch
from paracle_client.live import View, begin, fold
from paracle_client.plain import safe
from paracle_domain.machine import EventRecord
from paracle_domain.run.commands import Outputs

app = typer.Typer()


@app.command(epilog="Example: paracle events run_01J… --follow   |   paracle events run_01J… -o json")
def events(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="id of a run")],
    after: Annotated[int, typer.Option(min=0, help="only events after this number")] = 0,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="go on until the run has ended")] = False,
    live: Annotated[bool, typer.Option("--live", help="with --follow: the step tree instead of lines")] = False,
    output: OutputOption = Output.TABLE,
    url: UrlOption = None,
) -> None:
    """Show what happened in a run; -o json gives one event a line, whole."""
    with connect(url) as client:
        happened = client.events(run_id, after=after, follow=follow)
        try:
            if output is Output.JSON:
                print_json_lines(happened)
            elif live and follow:
                for _ in watch(
                    begin(client.get_run(run_id, outputs=Outputs.NONE)), client.events(run_id, follow=True), console()
                ):
                    pass
            else:
                for line in event_lines(View(run_id), happened):
                    console().print(line, markup=False, highlight=False, soft_wrap=True)
        except KeyboardInterrupt:
            raise leave(run_id) from None


def event_lines(view: View, records: Iterator[EventRecord]) -> Iterator[str]:
    """One line for each event: its number and what it changed, or at least its type."""
    for record in records:
        before, view = view, fold(view, record)
        line = describe(before, view, record)
        if line is None:
            what = record.data.get("step") or record.data.get("name") or _why(before, view)
            line = f"{record.at.astimezone():%H:%M:%S} {record.type} {what}".rstrip()
        number = str(record.seq) if record.entity == "run" else ""
        yield f"{number:>4} {line}"


def _why(before: View, after: View) -> str:
    """What a run fails with since this event; of a step that has said so itself, only where it stands."""
    if after.error is None or after.error == before.error:
        return ""
    own = after.own_error
    return f"since {after.error.path} did" if own is None else f"{own.code}: {safe(own.message)}"
