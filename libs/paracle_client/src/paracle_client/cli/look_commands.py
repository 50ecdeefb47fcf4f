"""Commands about runs that were started: runs, events, cancel."""

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
    print_json,
    print_json_lines,
    print_table,
)
from paracle_client.display import describe, duration, watch
from paracle_client.live import View, begin, fold
from paracle_domain.machine import EventRecord
from paracle_domain.run.commands import RunStatus, RunSummary

app = typer.Typer()


@app.command(epilog="Example: paracle runs --workflow triage --status failed")
def runs(
    workflow: Annotated[str | None, typer.Option(help="only runs of this workflow")] = None,
    status: Annotated[RunStatus | None, typer.Option(help="only runs that stand so")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="at most so many")] = 20,
    cursor: Annotated[str | None, typer.Option(help="`next_cursor` of the page before")] = None,
    output: OutputOption = Output.TABLE,
    url: UrlOption = None,
) -> None:
    """List runs, newest first."""
    with connect(url) as client:
        page = client.runs(workflow=workflow, status=status, limit=limit, cursor=cursor)
    if output is Output.JSON:
        print_json(page)
        return
    rows = [_run_row(one) for one in page.runs]
    print_table(["RUN", "WORKFLOW", "STATUS", "STARTED", "TOOK", "LABELS"], rows, empty="no runs")
    if page.next_cursor is not None:
        console().print(f"more: --cursor {page.next_cursor}", style="dim", markup=False, soft_wrap=True)


def _run_row(one: RunSummary) -> tuple[object, ...]:
    took = None if one.finished_at is None else (one.finished_at - one.created_at).total_seconds()
    labels = ", ".join(f"{key}={value}" for key, value in one.labels.items())
    started = f"{one.created_at.astimezone():%Y-%m-%d %H:%M:%S}"
    return one.run_id, f"{one.workflow} ({one.revision})", one.status, started, duration(took), labels


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
                for _ in watch(begin(client.get_run(run_id)), client.events(run_id, follow=True), console()):
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
            line = f"{record.at.astimezone():%H:%M:%S} {record.type}"
        yield f"{record.seq:>4} {line}"


@app.command(epilog='Example: paracle cancel run_01J… --reason "wrong folder"')
def cancel(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="id of a run")],
    reason: Annotated[str, typer.Option(help="kept in the run's history")] = "cancelled by request",
    output: OutputOption = Output.TABLE,
    url: UrlOption = None,
) -> None:
    """Stop a run: from the answer on, no new step, model call or tool call of it begins."""
    with connect(url) as client:
        accepted = client.cancel(run_id, reason)
    if output is Output.JSON:
        print_json(accepted)
    else:
        console().print(f"{accepted.run_id} is {accepted.status}", markup=False)
