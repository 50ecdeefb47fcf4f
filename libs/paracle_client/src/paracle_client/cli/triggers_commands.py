"""`paracle triggers …`: what starts runs by itself, how it stands, and pausing, resuming and firing it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Annotated
from zoneinfo import ZoneInfo

import typer
from pydantic import JsonValue

from paracle_client.cli.groups import ListGroup
from paracle_client.cli.runs_commands import CursorOption, LimitOption
from paracle_client.cli.target import (
    Output,
    OutputOption,
    UrlOption,
    brief,
    connect,
    console,
    moment,
    print_facts,
    print_json,
    print_page,
    print_table,
)
from paracle_client.plain import safe
from paracle_domain.errors import InvalidInput
from paracle_domain.strict_json import parse_json
from paracle_domain.trigger.commands import TriggerCounts, TriggerRun, TriggerSummary, TriggerView

app = typer.Typer()
triggers = typer.Typer(
    cls=ListGroup,
    help="List triggers (as `ls`), and pause, resume and fire them. `apply` and `delete` make and end them.",
    epilog="Example: paracle triggers",
)
app.add_typer(triggers, name="triggers")

NameArgument = Annotated[str, typer.Argument(metavar="TRIGGER", help="name of a trigger")]


@triggers.command(epilog="Example: paracle triggers ls -o json")
def ls(
    limit: LimitOption = 100,
    cursor: CursorOption = None,
    output: OutputOption = Output.TABLE,
    url: UrlOption = None,
) -> None:
    """List triggers by name."""
    with connect(url) as client:
        page = client.triggers(limit=limit, cursor=cursor)
    columns = ["TRIGGER", "ON", "WORKFLOW", "STATE", "LAST", "COUNTS"]
    print_page(
        page, columns, [_row(one) for one in page.triggers], output, empty="no triggers yet: paracle apply -f FILE"
    )


@triggers.command(epilog="Example: paracle triggers show nightly")
def show(name: NameArgument, output: OutputOption = Output.TABLE, url: UrlOption = None) -> None:
    """Show a trigger with its next times and its last runs."""
    with connect(url) as client:
        _print(client.get_trigger(name), output)


@triggers.command(epilog='Example: paracle triggers pause nightly --reason "the shop is closed"')
def pause(
    name: NameArgument,
    reason: Annotated[str | None, typer.Option(help="shown with it")] = None,
    output: OutputOption = Output.TABLE,
    url: UrlOption = None,
) -> None:
    """Let a trigger start nothing until it is resumed."""
    with connect(url) as client:
        _say_state(client.pause_trigger(name, reason), output)


@triggers.command(epilog="Example: paracle triggers resume nightly")
def resume(name: NameArgument, output: OutputOption = Output.TABLE, url: UrlOption = None) -> None:
    """Let a paused trigger go on, from now: what it missed meanwhile is not made up for."""
    with connect(url) as client:
        _say_state(client.resume_trigger(name), output)


@triggers.command(epilog="""Example: paracle triggers fire big-orders --message '{"total": 120}'""")
def fire(
    name: NameArgument,
    message: Annotated[
        str | None, typer.Option("--message", "-m", help="JSON that a trigger on messages takes for one; - reads it")
    ] = None,
    key: Annotated[str | None, typer.Option("--key", help="idempotency key: the same key fires once")] = None,
    output: OutputOption = Output.TABLE,
    url: UrlOption = None,
) -> None:
    """Start one run of a trigger now, paused or not, and print its id."""
    value = _message(message)
    with connect(url) as client:
        accepted = client.fire_trigger(name, value, idempotency_key=key)
    if output is Output.JSON:
        print_json(accepted)
    else:
        sys.stdout.write(f"{accepted.run_id}\n")


def _message(text: str | None) -> JsonValue:
    if text is None:
        return None
    try:
        value = parse_json(sys.stdin.read() if text == "-" else text)
    except ValueError as error:
        raise InvalidInput(f"it is no JSON: {error}", path="--message") from None
    return value


def _say_state(view: TriggerView, output: Output) -> None:
    if output is Output.JSON:
        print_json(view)
    else:
        console().print(safe(f"{view.trigger.name} is {_state(view.trigger)}"), markup=False, soft_wrap=True)


def _row(one: TriggerSummary) -> tuple[object, ...]:
    return one.name, one.on, one.workflow, _state(one), brief(one.last_at), _counts(one.counts)


def _state(one: TriggerSummary) -> str:
    """When it fires next, or why it does not."""
    if one.problem is not None:
        return f"cannot fire: {one.problem}"
    if one.paused:
        return "paused"
    return "active" if one.next_at is None else f"active, next at {brief(one.next_at)}"


def _counts(counts: TriggerCounts) -> str:
    """What is not zero."""
    return ", ".join(f"{name} {number}" for name, number in counts.model_dump().items() if number)


def _print(view: TriggerView, output: Output) -> None:
    if output is Output.JSON:
        print_json(view)
        return
    print_facts(_facts(view))
    rows = [_run_row(one) for one in view.last_runs]
    print_table(["RUN", "BECAUSE OF", "AT", "STATUS"], rows, empty="no runs yet")


def _facts(view: TriggerView) -> Iterator[tuple[str, str]]:
    one = view.trigger
    yield "trigger", f"{one.name} (revision {one.revision})"
    yield "on", one.on
    yield "workflow", one.workflow
    yield "state", _state(one)
    if view.paused_by is not None:
        why = f": {view.paused_reason}" if view.paused_reason else ""
        yield "paused", f"{moment(view.paused_at)}, by {view.paused_by}{why}"
    if view.next_fires:
        yield "next", _next(view)
    if counts := _counts(one.counts):
        yield "so far", counts


def _next(view: TriggerView) -> str:
    """Its next times as its schedule means them, and in which zone that is."""
    match view.spec.get("schedule"):
        case {"timezone": str(zone)}:
            pass
        case _:
            zone = "UTC"
    times = (f"{at.astimezone(ZoneInfo(zone)):%Y-%m-%d %H:%M:%S}" for at in view.next_fires)
    return f"{', '.join(times)} ({zone})"


def _run_row(one: TriggerRun) -> tuple[object, ...]:
    status = one.run_status or one.status
    why = f": {one.error.message}" if one.error is not None else ""
    return one.run_id, one.cause, brief(one.scheduled_at or one.at), f"{status}{why}"
