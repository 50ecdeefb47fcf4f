"""Commands about runs that were started: `paracle runs …`, and `paracle cancel`."""

from __future__ import annotations

from functools import partial
from itertools import islice
from typing import Annotated, Final

import typer

from paracle_client.cli.app import lines_of, say_error
from paracle_client.cli.diffs import EXIT_DIFFERENT, EXIT_TROUBLE, diff_lines
from paracle_client.cli.filters import (
    LabelsOption,
    ParentOption,
    SinceOption,
    StatusOption,
    StuckOption,
    UntilOption,
    WorkflowOption,
    filter_of,
)
from paracle_client.cli.following import require_completed, wait
from paracle_client.cli.groups import ListGroup
from paracle_client.cli.inputs import InputOption, KeyOption, LabelOption, parse_input, parse_labels
from paracle_client.cli.many import DryRunOption, YesOption, order, print_accepted
from paracle_client.cli.report import print_value
from paracle_client.cli.showing import COLUMNS, agents_at_work, closed, heading, held, pools_at_work, rows
from paracle_client.cli.target import (
    Output,
    OutputOption,
    UrlOption,
    brief,
    connect,
    console,
    print_json,
    print_page,
    print_table,
)
from paracle_client.client import Client
from paracle_client.display import duration
from paracle_client.plain import safe
from paracle_client.speech import Retries, retrying
from paracle_domain.errors import DeadlineExceeded, ParacleError, Unavailable
from paracle_domain.run.commands import ApprovalStatus, Outputs, RunFilter, RunPage, RunSummary, RunView

_MOST_HELD: Final = 10
_MOST_HEARD: Final = 5

app = typer.Typer()
runs = typer.Typer(
    cls=ListGroup,
    help="List runs, newest first (as `ls`), and look after those that were started.",
    epilog="Example: paracle runs --workflow triage --status failed",
)
app.add_typer(runs, name="runs")

RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="id of a run")]
OneRunArgument = Annotated[str | None, typer.Argument(metavar="RUN", help="id of a run; or say below which ones")]
LimitOption = Annotated[int, typer.Option(min=1, max=500, help="at most so many")]
ReasonOption = Annotated[str, typer.Option(help="kept in the run's history")]
CursorOption = Annotated[str | None, typer.Option(help="`next_cursor` of the page before")]


@runs.command(epilog="Example: paracle runs ls --workflow triage --status failed --label team=support --since 2h")
def ls(
    workflow: WorkflowOption = None,
    status: StatusOption = None,
    label: LabelsOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    parent: ParentOption = None,
    stuck: StuckOption = False,
    limit: LimitOption = 20,
    cursor: CursorOption = None,
    output: OutputOption = Output.TABLE,
    url: UrlOption = None,
) -> None:
    """List runs, newest first."""
    wanted = filter_of(workflow, status, label, since, until, parent, stuck=stuck)
    with connect(url) as client:
        page = _page(client, wanted, limit, cursor)
    rows = [_run_row(one) for one in page.runs]
    print_page(page, ["RUN", "WORKFLOW", "STATUS", "STARTED", "TOOK", "LABELS"], rows, output, empty="no runs")


def _page(client: Client, wanted: RunFilter, limit: int, cursor: str | None) -> RunPage:
    """A full page, if there are so many runs: a search that rests is gone on with."""
    found: tuple[RunSummary, ...] = ()
    while True:
        page = client.runs(
            workflow=wanted.workflow,
            status=wanted.statuses,
            labels=wanted.labels,
            created_after=wanted.created_after,
            created_before=wanted.created_before,
            parent=wanted.parent,
            stuck=wanted.stuck,
            limit=limit - len(found),
            cursor=cursor,
        )
        found, cursor = (*found, *page.runs), page.next_cursor
        if cursor is None or len(found) == limit:
            return RunPage(runs=found, next_cursor=cursor)


@runs.command(epilog="Example: paracle runs show run_01J…")
def show(
    run_id: RunArgument,
    parts: Annotated[int, typer.Option(min=0, max=10_000, help="most items or iterations of each step")] = 20,
    step: Annotated[
        str | None, typer.Option("--step", "-s", metavar="PATH", help="print what this one gave: pay, each[3], …")
    ] = None,
    output: OutputOption = Output.TABLE,
    url: UrlOption = None,
) -> None:
    """Show one run: how it stands and why, and its steps with their times, attempts, errors and what they led to."""
    as_json = output is Output.JSON
    with connect(url) as client:
        if step is not None:
            shown = client.get_step(run_id, step, parts=parts)
            if as_json:
                print_json(shown)
            else:
                print_value(shown.step.output, console())
            return
        view = (
            client.read_run(run_id, parts=parts)
            if as_json
            else client.get_run(run_id, parts=parts, outputs=Outputs.NONE)
        )
        waits = [] if as_json else [*_closed_pools(client, view), *_held_calls(client, view)]
        retries = {} if as_json else _retries(client, view)
    if as_json:
        print_json(view)
        return
    for line in (*heading(view), *waits):
        console().print(safe(line), markup=False, highlight=False, soft_wrap=True)
    console().print()
    print_table(COLUMNS, rows(view, retries), empty="no steps")


@runs.command("wait", epilog="Example: paracle runs wait run_01J…")
def wait_(run_id: RunArgument, output: OutputOption = Output.TABLE, url: UrlOption = None) -> None:
    """Wait until a run has ended, and print its output; exit 0 only if it completed."""
    with connect(url) as client:
        ended = wait(client, run_id)
    if output is Output.JSON:
        print_json(ended)
    elif ended.output is not None:
        print_value(ended.output, console())
    require_completed(ended)


def _closed_pools(client: Client, view: RunView) -> list[str]:
    """Where tasks of a run that goes on wait for nobody. A run is shown also while no agent runtime answers."""
    try:
        found = [closed(client.get_pool(pool)) for pool in sorted(pools_at_work(view))]
    except (Unavailable, DeadlineExceeded) as error:
        return [f"worker pools are unknown: {error}"]
    return [line for line in found if line is not None]


def _held_calls(client: Client, view: RunView) -> list[str]:
    """Calls of tools that people are asked about while a task is at work; the steps do not know of them."""
    if not pools_at_work(view):
        return []
    page = client.approvals(run_id=view.run.run_id, status=ApprovalStatus.OPEN, limit=_MOST_HELD)
    return list(held(view, page))


def _retries(client: Client, view: RunView) -> dict[str, str]:
    """Steps whose model does not answer just now, and why; the first of those at work are looked at."""
    found: dict[str, str] = {}
    for step, task_id in islice(agents_at_work(view), _MOST_HEARD):
        retries = Retries()
        try:
            for output in client.output(task_id, follow=False):
                retries.hear(output)
        except (Unavailable, DeadlineExceeded):  # nobody can say what was said just now; the run is shown all the same
            continue
        if retries.latest:
            found[step] = "; ".join(map(retrying, retries.latest))
    return found


def _run_row(one: RunSummary) -> tuple[object, ...]:
    took = None if one.finished_at is None else (one.finished_at - one.created_at).total_seconds()
    labels = ", ".join(f"{key}={value}" for key, value in one.labels.items())
    status = f"{one.status}, stuck" if one.stuck is not None else one.status
    workflow = f"{one.workflow} ({one.revision})" if one.revision else one.workflow  # none if it is of one agent
    return one.run_id, workflow, status, brief(one.created_at), duration(took), labels


@app.command(epilog='Example: paracle cancel run_01J… --reason "wrong folder"')
@runs.command(epilog="Example: paracle runs cancel run_01J…   |   paracle runs cancel --workflow triage --label team=x")
def cancel(
    run_id: OneRunArgument = None,
    reason: ReasonOption = "cancelled by request",
    workflow: WorkflowOption = None,
    status: StatusOption = None,
    label: LabelsOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    parent: ParentOption = None,
    stuck: StuckOption = False,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    output: OutputOption = Output.TABLE,
    url: UrlOption = None,
) -> None:
    """Stop a run, or all that match: from the answer on, no new step, model call or tool call of them begins."""
    wanted = filter_of(workflow, status, label, since, until, parent, stuck=stuck)
    with connect(url) as client:
        one, many = partial(client.cancel, reason=reason), partial(client.cancel_runs, wanted, reason)
        order("cancel", run_id, wanted, one, many, dry_run=dry_run, yes=yes, output=output)


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


@runs.command(epilog="Example: paracle runs resume run_01J…   |   paracle runs resume --workflow triage --since 2h")
def resume(
    run_id: OneRunArgument = None,
    reason: ReasonOption = "",
    workflow: WorkflowOption = None,
    status: StatusOption = None,
    label: LabelsOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    parent: ParentOption = None,
    stuck: StuckOption = False,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    output: OutputOption = Output.TABLE,
    url: UrlOption = None,
) -> None:
    """Go on with a paused run, or with all paused ones that match."""
    wanted = filter_of(workflow, status, label, since, until, parent, stuck=stuck)
    with connect(url) as client:
        one, many = partial(client.resume, reason=reason), partial(client.resume_runs, wanted, reason)
        order("resume", run_id, wanted, one, many, dry_run=dry_run, yes=yes, output=output)


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


@runs.command(epilog="Example: paracle runs diff run_01JA… run_01JB…")
def diff(
    left: Annotated[str, typer.Argument(metavar="RUN", help="id of a run")],
    right: Annotated[str, typer.Argument(metavar="RUN", help="id of another one")],
    output: OutputOption = Output.TABLE,
    url: UrlOption = None,
) -> None:
    """Show what differs between what two runs pinned; exit 0 if nothing does, 1 if something does, 2 on trouble."""
    with connect(url) as client:
        try:
            found = client.diff_runs(left, right)
        except ParacleError as error:
            for line in lines_of(error):
                say_error(line)
            raise typer.Exit(EXIT_TROUBLE) from None
    if output is Output.JSON:
        print_json(found)
    else:
        for line in diff_lines(found):
            console().print(line, markup=False, highlight=False, soft_wrap=True)
    if not found.same:
        raise typer.Exit(EXIT_DIFFERENT)
