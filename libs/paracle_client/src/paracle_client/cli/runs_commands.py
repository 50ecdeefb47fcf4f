"""Commands about runs that were started: `paracle runs …`, and `paracle cancel`."""

from __future__ import annotations

from typing import Annotated

import typer

from paracle_client.cli.target import Output, OutputOption, UrlOption, connect, console, print_json, print_table
from paracle_client.display import duration
from paracle_domain.run.commands import RunAccepted, RunStatus, RunSummary

app = typer.Typer()
runs = typer.Typer(epilog="Example: paracle runs --workflow triage --status failed")
app.add_typer(runs, name="runs")

RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="id of a run")]
WorkflowOption = Annotated[str | None, typer.Option(help="only runs of this workflow")]
StatusOption = Annotated[RunStatus | None, typer.Option(help="only runs that stand so")]
LimitOption = Annotated[int, typer.Option(min=1, max=500, help="at most so many")]
CursorOption = Annotated[str | None, typer.Option(help="`next_cursor` of the page before")]


@runs.callback(invoke_without_command=True)
def _runs(
    context: typer.Context,
    workflow: WorkflowOption = None,
    status: StatusOption = None,
    limit: LimitOption = 20,
    cursor: CursorOption = None,
    output: OutputOption = Output.TABLE,
    url: UrlOption = None,
) -> None:
    """List runs, newest first (as `ls`), and look after those that were started."""
    if context.invoked_subcommand is None:
        ls(workflow, status, limit, cursor, output, url)


@runs.command(epilog="Example: paracle runs ls --workflow triage --status failed")
def ls(
    workflow: WorkflowOption = None,
    status: StatusOption = None,
    limit: LimitOption = 20,
    cursor: CursorOption = None,
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


@app.command(epilog='Example: paracle cancel run_01J… --reason "wrong folder"')
@runs.command(epilog='Example: paracle runs cancel run_01J… --reason "wrong folder"')
def cancel(
    run_id: RunArgument,
    reason: Annotated[str, typer.Option(help="kept in the run's history")] = "cancelled by request",
    output: OutputOption = Output.TABLE,
    url: UrlOption = None,
) -> None:
    """Stop a run: from the answer on, no new step, model call or tool call of it begins."""
    with connect(url) as client:
        accepted = client.cancel(run_id, reason)
    _print_accepted(accepted, output)


def _print_accepted(accepted: RunAccepted, output: Output) -> None:
    if output is Output.JSON:
        print_json(accepted)
    else:
        console().print(f"{accepted.run_id} is {accepted.status}", markup=False)
