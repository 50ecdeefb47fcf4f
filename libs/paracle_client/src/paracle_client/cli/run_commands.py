"""Commands that start something: run, invoke."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from pydantic import JsonValue

from paracle_client.cli.following import (
    SANDBOX_NOTE,
    follow,
    leave,
    require_completed,
    sandbox_answered,
    settled_usage,
    started,
    wait,
)
from paracle_client.cli.inputs import InputOption, KeyOption, LabelOption, parse_input, parse_labels
from paracle_client.cli.overhearing import follow_aloud
from paracle_client.cli.report import print_value
from paracle_client.cli.speaking import Doorbell, Voice, speak
from paracle_client.cli.stack_commands import say
from paracle_client.cli.target import Output, OutputOption, UrlOption, connect, connect_async, console, print_json
from paracle_client.client import Client
from paracle_client.display import totals
from paracle_domain.errors import DeadlineExceeded, InvalidInput, Unavailable
from paracle_domain.run.commands import RunView
from paracle_domain.strict_json import parse_json

app = typer.Typer()


@app.command(epilog="Example: paracle run triage --input folder=examples/triage/mails --watch")
def run(
    workflow: Annotated[str, typer.Argument(metavar="WORKFLOW", help="name of a workflow")],
    inputs: InputOption = None,
    labels: LabelOption = None,
    revision: Annotated[int | None, typer.Option(min=1, help="of the workflow; the newest if absent")] = None,
    priority: Annotated[
        int | None, typer.Option(min=-100, max=100, help="where runs queue, the highest goes first; else 0")
    ] = None,
    key: KeyOption = None,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="show it until it ends; exit 0 only if completed")
    ] = False,
    tokens: Annotated[
        bool, typer.Option("--tokens/--no-tokens", help="with --watch: what its agents say, while they say it")
    ] = True,
    output: OutputOption = Output.TABLE,
    url: UrlOption = None,
) -> None:
    """Start a run of a workflow and print its id; with --watch, show it and print its output."""
    value, named = parse_input(inputs or []), parse_labels(labels or [])
    with connect(url) as client:
        accepted = client.start_run(
            workflow, value, labels=named, revision=revision, priority=priority, idempotency_key=key
        )
        if not watch:
            if output is Output.JSON:
                print_json(accepted)
            else:
                sys.stdout.write(f"{accepted.run_id}\n")
            return
        as_json = output is Output.JSON
        screen = console(aside=as_json)
        with started(accepted.run_id):
            if tokens:
                ended = follow_aloud(connect_async(url), accepted.run_id, screen)
            else:
                ended = follow(client, accepted.run_id, screen)
        if as_json:
            print_json(ended)
        elif ended.output is not None:
            print_value(ended.output, console())
    require_completed(ended)


@app.command(epilog='Example: paracle invoke mail-classifier "My invoice is wrong"')
def invoke(
    agent: Annotated[str, typer.Argument(metavar="AGENT", help="name of an agent")],
    text: Annotated[str | None, typer.Argument(metavar="TEXT", help="its input as text, or a JSON object")] = None,
    inputs: InputOption = None,
    labels: LabelOption = None,
    key: KeyOption = None,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="print the answer while it is made, and what tools do")
    ] = False,
    output: OutputOption = Output.TABLE,
    url: UrlOption = None,
) -> None:
    """Run one agent, wait for it, and print what it answers."""
    value, named = invoke_input(text, inputs or []), parse_labels(labels or [])
    with connect(url) as client:
        accepted = client.invoke(agent, value, labels=named, idempotency_key=key)
        with started(accepted.run_id):
            ended = (_say if watch and output is not Output.JSON else _await)(client, accepted.run_id)
        if output is Output.JSON:
            print_json(ended)
        elif not watch and ended.output is not None:
            print_value(ended.output, console())
        note = _who_answered(client, ended)
    say(f"{ended.run.run_id}  {totals(ended.usage)}{note}")
    require_completed(ended)


def _who_answered(client: Client, ended: RunView) -> str:
    """A line that it was the sandbox, if it was. The answer is there, also where nobody can tell whose it is."""
    try:
        used = settled_usage(client, ended)
    except (Unavailable, DeadlineExceeded) as error:
        return f"\nwhether the sandbox answered is unknown: {error}"
    return f"\n{SANDBOX_NOTE}" if sandbox_answered(used) else ""


def _say(client: Client, run_id: str) -> RunView:
    """Print the answer while it is made; Ctrl-C ends only the printing."""
    voice = Voice(console(aside=True))
    try:
        ended = speak(client, run_id, voice)
    except KeyboardInterrupt:
        raise leave(run_id) from None
    voice.conclude(ended.output)
    return ended


def _await(client: Client, run_id: str) -> RunView:
    """Wait for the answer; a person is told if it waits for people, too."""
    aside = console(aside=True)
    if not aside.is_terminal:
        return wait(client, run_id)
    try:
        return speak(client, run_id, Doorbell(aside))
    except KeyboardInterrupt:
        raise leave(run_id) from None


def invoke_input(text: str | None, inputs: list[str]) -> JsonValue:
    """The input of an agent: a text, a JSON object written as text, or fields."""
    if text is not None and inputs:
        raise InvalidInput("give either a text or --input, not both", path="TEXT")
    if text is None:
        return parse_input(inputs)
    if text.lstrip().startswith("{"):
        try:
            value = parse_json(text)
        except ValueError:
            return text
        return value
    return text
