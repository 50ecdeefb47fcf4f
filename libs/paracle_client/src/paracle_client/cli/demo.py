"""`paracle demo`: the triage example, from nothing to its report."""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.rule import Rule

from paracle_client.cli.following import SANDBOX_NOTE, follow, require_completed, sandbox_answered, settled_usage
from paracle_client.cli.inputs import bundle
from paracle_client.cli.report import print_value
from paracle_client.cli.spec_commands import apply_bundle, show_applied
from paracle_client.cli.stack_commands import RootOption, resolve_root, say
from paracle_client.cli.target import console
from paracle_client.client import Client
from paracle_client.display import duration, totals
from paracle_client.stack import Stack, leave_when_told
from paracle_domain.audit import UsageReport
from paracle_domain.errors import NotFound
from paracle_domain.run.commands import RunView

app = typer.Typer()

_COMMAND = "paracle"
_WORKFLOW = "triage"


@app.command(epilog="Example: paracle demo --folder my-mails")
def demo(
    examples: Annotated[Path, typer.Option(help="where the example's manifests are")] = Path("examples/triage"),
    folder: Annotated[str | None, typer.Option(help="folder of mails; those of the example if absent")] = None,
    root: RootOption = None,
    keep: Annotated[bool, typer.Option("--keep", help="leave the stack running afterwards")] = False,
) -> None:
    """Start the stack, run the triage example, print its report, and stop what was started."""
    began = time.monotonic()
    if not examples.is_dir():
        raise NotFound(
            "there is no such folder; run this in Paracle's repository or give --examples", path=str(examples)
        )
    leave_when_told()
    stack = Stack(resolve_root(root), report=say)
    say("Starting NATS, PostgreSQL and the services")
    started = stack.up()
    if not started:
        say(f"  already up: {stack.url}")
        for line in stack.drift():
            say(line)
    try:
        with Client(stack.url) as client:
            ended = _triage(client, examples, folder or str(examples / "mails"))
            _show_end(client, ended, time.monotonic() - began)
    finally:
        if started and not keep:
            say("Stopping what was started")
            stack.down()
    if started and not keep:
        say(f"See the run again: {_called()} up, then the commands above")
    require_completed(ended)


def _called() -> str:
    """How to call this command here: by its name, unless a shell does not find it."""
    here = Path(sys.argv[0])
    return os.path.relpath(here) if here.name == _COMMAND and not shutil.which(_COMMAND) else _COMMAND


def _triage(client: Client, examples: Path, folder: str) -> RunView:
    say(f"Applying {examples}")
    show_applied(apply_bundle(client, bundle([str(one) for one in sorted(examples.glob("*.yaml"))])))
    accepted = client.start_run(_WORKFLOW, {"folder": folder}, labels={"demo": "triage"})
    say(f"Running {_WORKFLOW} on {folder}")
    return follow(client, accepted.run_id, console())


def _show_end(client: Client, ended: RunView, took_s: float) -> None:
    screen = console()
    if ended.output is not None:
        screen.print(Rule("report"))
        print_value(ended.output, screen)
        screen.print(Rule())
    _show_totals(screen, ended, settled_usage(client, ended), took_s, client.url)


def _show_totals(screen: Console, ended: RunView, used: UsageReport, took_s: float, url: str) -> None:
    run_id = ended.run.run_id
    lines = [
        f"run        {run_id}  {ended.run.status}",
        f"used       {totals(ended.usage)}, {ended.usage.model_calls} model calls, {ended.usage.tool_calls} tool calls",
        *(f"provider   {one.provider} {one.model}: {totals(one.usage)}" for one in used.by_model),
        f"took       {duration(took_s)} in all",
        f"events     {_called()} events {run_id}",
        f"audit      curl {url}/v1/runs/{run_id}/audit",
    ]
    if sandbox_answered(used):
        lines.append(f"SANDBOX    {SANDBOX_NOTE}")
    for line in lines:
        screen.print(line, markup=False, highlight=False, soft_wrap=True)
