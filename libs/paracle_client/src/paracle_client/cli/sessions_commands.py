"""`paracle sessions …`: conversations with agents, what was said in them, and forgetting them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer

from paracle_client.cli.groups import ListGroup
from paracle_client.cli.runs_commands import CursorOption, LimitOption
from paracle_client.cli.stack_commands import say
from paracle_client.cli.target import (
    Output,
    OutputOption,
    UrlOption,
    brief,
    connect,
    console,
    print_json,
    print_more,
    print_page,
)
from paracle_client.plain import safe
from paracle_domain.task.past import Recap
from paracle_domain.task.sessions import SessionTurn

app = typer.Typer()
sessions = typer.Typer(
    cls=ListGroup,
    help="List conversations with agents (as `ls`), show and forget them. `paracle chat` begins them and goes on.",
    epilog="Example: paracle sessions",
)
app.add_typer(sessions, name="sessions")

SessionArgument = Annotated[str, typer.Argument(metavar="SESSION", help="id of a session")]


@sessions.command(epilog="Example: paracle sessions ls -o json")
def ls(
    limit: LimitOption = 20,
    cursor: CursorOption = None,
    output: OutputOption = Output.TABLE,
    url: UrlOption = None,
) -> None:
    """List sessions, newest first."""
    with connect(url) as client:
        page = client.sessions(limit=limit, cursor=cursor)
    rows = [(one.session_id, one.turns, one.open, brief(one.asked_at)) for one in page.sessions]
    print_page(page, ["SESSION", "TURNS", "OPEN", "LAST"], rows, output, empty="no sessions yet: paracle chat AGENT")


@sessions.command(epilog="Example: paracle sessions show ses_01J…")
def show(
    session: SessionArgument,
    after: Annotated[int, typer.Option(min=0, help="only turns with a higher number")] = 0,
    full: Annotated[bool, typer.Option("--full", help="also what was summed up, as it was said")] = False,
    output: OutputOption = Output.TABLE,
    url: UrlOption = None,
) -> None:
    """Show what was said. Of what was summed up to make room for more, the summary stands for the turns."""
    with connect(url) as client:
        view = client.get_session(session, after=after)
        recap = view.recap
        summed = recap is not None and recap.turn > 1 and not (full or after) and output is not Output.JSON
        if recap is not None and summed:
            view = client.get_session(session, after=recap.turn - 1)
    if output is Output.JSON:
        print_json(view)
        return
    if recap is not None and summed:
        for line in _recap_lines(recap):
            console().print(line, markup=False, highlight=False, soft_wrap=True)
    for turn in view.turns:
        for line in lines_of(turn):
            console().print(line, markup=False, highlight=False, soft_wrap=True)
    print_more("--after", view.next_after)


@sessions.command(epilog="Example: paracle sessions rm ses_01J…")
def rm(session: SessionArgument, url: UrlOption = None) -> None:
    """Forget a session with all that was said in it, unless a turn of it is open."""
    with connect(url) as client:
        client.delete_session(session)
    say(f"{session} is forgotten")


def _recap_lines(recap: Recap) -> Iterator[str]:
    yield f"── 1-{recap.turn - 1}  summed up by {safe(recap.model)} (--full shows what was said)"
    yield safe(recap.summary, lines=True)


def lines_of(turn: SessionTurn) -> Iterator[str]:
    """A turn as people read it; of tools, only that they were called."""
    yield f"── {turn.turn}  {turn.run_id}"
    if not turn.messages:
        yield "(open)" if turn.ended_at is None else "(nothing was kept: it did not complete)"
    for message in turn.messages:
        if message.text:
            yield f"{message.role}: {safe(message.text, lines=True)}"
        for call in message.tool_calls:
            yield f"{message.role} calls {safe(call.name)}"
