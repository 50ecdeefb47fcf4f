"""`paracle effects …`: what tools have done to the world, and what became of what is in doubt."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer

from paracle_client.cli.filters import chosen, moments
from paracle_client.cli.groups import ListGroup
from paracle_client.cli.inputs import read_value
from paracle_client.cli.runs_commands import CursorOption, LimitOption
from paracle_client.cli.target import (
    Output,
    OutputOption,
    UrlOption,
    brief,
    connect,
    moment,
    print_facts,
    print_json,
    print_page,
)
from paracle_domain.errors import InvalidInput
from paracle_domain.task.effects import EffectFilter, EffectState, EffectView, ProbeView

app = typer.Typer()
effects = typer.Typer(
    cls=ListGroup,
    help="List effects (as `ls`), calls of tools that change the world, and say what became of those in doubt.",
    epilog="Example: paracle effects ls --in-doubt",
)
app.add_typer(effects, name="effects")

KeyArgument = Annotated[str, typer.Argument(metavar="KEY", help="idempotency key of an effect")]
InDoubtOption = Annotated[bool, typer.Option("--in-doubt", help="only those that may or may not have happened")]
StateOption = Annotated[EffectState | None, typer.Option(help="only those that stand so")]
ToolOption = Annotated[str | None, typer.Option(help="only those of this tool")]
RunOption = Annotated[str | None, typer.Option("--run", help="only those of this run")]
SinceOption = Annotated[str | None, typer.Option(help="only those intended then or later: 90s, 2h, 7d ago, or a time")]
UntilOption = Annotated[str | None, typer.Option(help="only those intended earlier than that; as --since")]
DoneOption = Annotated[bool | None, typer.Option("--done/--not-done", help="whether it happened")]
ValueOption = Annotated[str | None, typer.Option("--value", help="JSON: what the tool would have answered")]
ReasonOption = Annotated[str, typer.Option(help="how you know; kept with it")]


@effects.command(epilog="Example: paracle effects ls --in-doubt --tool pay")
def ls(
    in_doubt: InDoubtOption = False,
    state: StateOption = None,
    tool: ToolOption = None,
    run: RunOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: LimitOption = 20,
    cursor: CursorOption = None,
    output: OutputOption = Output.TABLE,
    url: UrlOption = None,
) -> None:
    """List effects, the newest first."""
    after, before = moments(since, until)
    which = chosen(
        EffectFilter,
        state=EffectState.IN_DOUBT if in_doubt else state,
        tool=tool,
        run_id=run,
        since=after,
        until=before,
    )
    with connect(url) as client:
        page = client.effects(which, limit=limit, cursor=cursor)
    rows = [(one.key, _state(one), one.tool, one.run_id, one.step, brief(one.changed_at)) for one in page.effects]
    print_page(page, ["EFFECT", "STATE", "TOOL", "RUN", "STEP", "SINCE"], rows, output, empty="no effects")


@effects.command(epilog="Example: paracle effects show eff_01J…")
def show(key: KeyArgument, output: OutputOption = Output.TABLE, url: UrlOption = None) -> None:
    """Show one effect: whose it is, how it stands and why, and what was found out about it."""
    with connect(url) as client:
        found = client.get_effect(key)
    _print(found, output)


@effects.command(epilog='Example: paracle effects resolve eff_01J… --done --value \'{"id": 7}\' --reason "it is paid"')
def resolve(
    key: KeyArgument,
    reason: ReasonOption,
    done: DoneOption = None,
    value: ValueOption = None,
    output: OutputOption = Output.TABLE,
    url: UrlOption = None,
) -> None:
    """Say whether an effect in doubt happened; then fork its run from the step, which goes by what you say."""
    if done is None:
        raise InvalidInput("say whether it happened: --done or --not-done", path="--done")
    given = None if value is None else read_value(value, "--value")
    with connect(url) as client:
        found = client.resolve_effect(key, "done" if done else "not_done", output=given, reason=reason)
    _print(found, output)


def _print(one: EffectView, output: Output) -> None:
    if output is Output.JSON:
        print_json(one)
        return
    print_facts(_facts(one))


def _facts(one: EffectView) -> Iterator[tuple[str, str]]:
    yield "effect", one.key
    yield "state", one.state
    yield "tool", f"{one.tool} (revision {one.revision}, {one.effect})"
    yield "run", f"{one.run_id}, step {one.step}, attempt {one.attempt}"
    yield "task", one.task_id
    yield "intended", moment(one.intended_at)
    yield "changed", moment(one.changed_at)
    if one.reason is not None:
        yield "because", one.reason
    if one.called is not None:
        yield "called as", f"{one.called}, in the run that this one is forked from"
    if one.probe is not None:
        yield "probe", _probe(one.probe)
    if one.resolution is not None:
        found = one.resolution
        yield "found", f"{found.outcome}, says {found.principal} on {moment(found.at)}: {found.reason}"


def _state(one: EffectView) -> str:
    return f"{one.state}, probed" if one.probe is not None and one.probe.open else one.state


def _probe(one: ProbeView) -> str:
    told = "not asked yet" if one.outcome is None else f"{one.outcome}, asked {one.tried} times"
    why = "" if one.reason is None else f" ({one.reason})"
    return f"{one.tool}: {told}{why}{'; it is asked again' if one.open and one.tried else ''}"
