"""Commands about runs that were started: `paracle runs …`, and `paracle cancel`."""

from __future__ import annotations

from typing import Annotated

import typer

from paracle_client.cli.inputs import InputOption, KeyOption, LabelOption, parse_input, parse_labels
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
ReasonOption = Annotated[str, typer.Option(help="kept in the run's history")]
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
    print_accepted(accepted, output)


@runs.command(epilog='Example: paracle runs pause run_01J… --reason "looking into it"')
def pause(
    run_id: RunArgument,
    reason: ReasonOption = "",
    output: OutputOption = Output.TABLE,
    url: UrlOption = None,
) -> None:
    """Start nothing new of a run until it is resumed; what runs goes on."""
    with connect(url) as client:
        accepted = client.pause(run_id, reason)
    print_accepted(accepted, output)


@runs.command(epilog="Example: paracle runs resume run_01J…")
def resume(
    run_id: RunArgument,
    reason: ReasonOption = "",
    output: OutputOption = Output.TABLE,
    url: UrlOption = None,
) -> None:
    """Go on with a paused run."""
    with connect(url) as client:
        accepted = client.resume(run_id, reason)
    print_accepted(accepted, output)


@runs.command(epilog="Example: paracle runs signal run_01J… paid --payload amount:=12 --key payment-4711")
def signal(
    run_id: RunArgument,
    name: Annotated[str, typer.Argument(metavar="NAME", help="name of the signal")],
    payload: Annotated[
        list[str] | None,
        typer.Option("--payload", "-p", help="as --input of `paracle run`: key=text, key:=JSON, @file.json"),
    ] = None,
    key: Annotated[str | None, typer.Option("--key", help="idempotency key: the same key is one signal")] = None,
    output: OutputOption = Output.TABLE,
    url: UrlOption = None,
) -> None:
    """Tell a run what a `wait` step of it waits for, or will: a signal that comes early is kept."""
    given = parse_input(payload, "--payload") if payload else None
    with connect(url) as client:
        accepted = client.signal(run_id, name, given, idempotency_key=key)
    print_accepted(accepted, output)


@runs.command(epilog="Example: paracle runs fork run_01J… --from pay --revision 3")
def fork(
    run_id: RunArgument,
    from_step: Annotated[str, typer.Option("--from", metavar="STEP", help="it and all that depends on it run anew")],
    inputs: InputOption = None,
    labels: LabelOption = None,
    revision: Annotated[int | None, typer.Option(min=1, help="of the workflow; else as pinned")] = None,
    key: KeyOption = None,
    output: OutputOption = Output.TABLE,
    url: UrlOption = None,
) -> None:
    """Start a new run that keeps the results of another one, but for a step and all that depends on it."""
    value = parse_input(inputs) if inputs else None
    named = parse_labels(labels) if labels else None
    with connect(url) as client:
        accepted = client.fork(run_id, from_step, revision=revision, value=value, labels=named, idempotency_key=key)
    print_accepted(accepted, output)


def print_accepted(accepted: RunAccepted, output: Output) -> None:
    """What became of an order to a run."""
    if output is Output.JSON:
        print_json(accepted)
    else:
        console().print(f"{accepted.run_id} is {accepted.status}", markup=False)
