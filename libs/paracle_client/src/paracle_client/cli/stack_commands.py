"""Commands about the embedded stack: up, down, status, provision."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from paracle_client.stack import Stack, Standing
from paracle_client.stack.state import find_root

app = typer.Typer()

RootOption = Annotated[
    Path | None,
    typer.Option(
        "--root", help="folder of the stack's data; else the nearest .paracle from here upwards, or ./.paracle"
    ),
]
OutputOption = Annotated[str, typer.Option("--output", "-o", help="table or json", metavar="[table|json]")]


@app.command(epilog="Example: paracle up --port 9000 --replicas orchestrator=2,agent_runtime=2")
def up(
    root: RootOption = None,
    port: Annotated[int | None, typer.Option(min=0, max=65_535, help="of the REST API; 0 takes a free one")] = None,
    replicas: Annotated[
        str | None,
        typer.Option(help="processes of a service, where not one; kept until told otherwise", metavar="SERVICE=N,…"),
    ] = None,
) -> None:
    """Start NATS, PostgreSQL and the six services here, and leave them running."""
    numbers = None if replicas is None else read_replicas(replicas)
    stack = Stack(resolve_root(root), port=port, replicas=numbers, report=say)
    if not stack.up():
        say(f"already up: {stack.url}")
    for line in stack.drift():
        say(line)


@app.command(epilog="Example: paracle down")
def down(root: RootOption = None) -> None:
    """Stop the stack. Runs that have not ended go on when it is started again."""
    stack = Stack(resolve_root(root), report=say)
    say("stack stopped" if stack.down() else "nothing was running")


@app.command(epilog="Example: paracle status -o json")
def status(root: RootOption = None, output: OutputOption = "table") -> None:
    """Show each process of the stack; exit code 1 if one is not ready."""
    stack = Stack(resolve_root(root))
    standings = stack.status()
    if _wants_json(output):
        sys.stdout.write(json.dumps([asdict(one) for one in standings], indent=2) + "\n")
    else:
        for line in status_lines(standings):
            sys.stdout.write(line + "\n")
        if stack.is_up:
            sys.stdout.write(f"\nREST {stack.url}   NATS {stack.nats_url}\n")
    if not any(one.pid for one in standings):
        say("nothing runs; `paracle up` starts it")
    if not all(one.ready for one in standings):
        raise typer.Exit(1)


@app.command(epilog="Example: paracle provision")
def provision(root: RootOption = None) -> None:
    """Create what is missing of databases, schemas, streams and buckets. `up` does it by itself."""
    Stack(resolve_root(root), report=say).provision()


def resolve_root(root: Path | None) -> Path:
    """The stack's folder: as told, the nearest one from here upwards, or `.paracle` here."""
    return root or find_root(Path.cwd()) or Path(".paracle")


def read_replicas(text: str) -> dict[str, int]:
    """`orchestrator=2,agent_runtime=2` as numbers by name."""
    found: dict[str, int] = {}
    for item in filter(None, text.split(",")):
        name, _, number = item.partition("=")
        if not number.strip().isdecimal():
            message = f"{item!r} is no number of replicas; write for example orchestrator=2,agent_runtime=2"
            raise typer.BadParameter(message, param_hint="--replicas")
        found[name.strip()] = int(number)
    return found


def say(line: str) -> None:
    """Progress goes to standard error: standard output is for results. A reader that has gone stops nothing."""
    with suppress(BrokenPipeError):
        sys.stderr.write(line + "\n")


def status_lines(standings: list[Standing]) -> list[str]:
    """The table of `paracle status`."""
    rows = [("PROCESS", "STATE", "PID", "PORT", "UPTIME", "MEMORY")]
    rows += [
        (
            one.name,
            one.state,
            str(one.pid or "-"),
            str(one.port or "-"),
            "-" if one.uptime_s is None else _uptime(one.uptime_s),
            "-" if one.rss_bytes is None else f"{one.rss_bytes / 1e6:.0f} MB",
        )
        for one in standings
    ]
    widths = [max(len(row[at]) for row in rows) for at in range(6)]
    return ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _uptime(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s"


def _wants_json(output: str) -> bool:
    if output not in {"table", "json"}:
        message = f"{output!r} is neither table nor json"
        raise typer.BadParameter(message, param_hint="--output")
    return output == "json"
