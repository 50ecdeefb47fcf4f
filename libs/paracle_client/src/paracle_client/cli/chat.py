"""`paracle chat`: a conversation with an agent, in a terminal or over a pipe."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.text import Text

from paracle_client.cli.app import EXIT_FAILED, say_error
from paracle_client.cli.sessions_commands import lines_of
from paracle_client.cli.speaking import Voice, speak
from paracle_client.cli.stack_commands import say
from paracle_client.cli.target import UrlOption, connect, console
from paracle_client.client import Client
from paracle_client.plain import safe
from paracle_domain.errors import InvalidInput, NotFound, quote
from paracle_domain.ids import is_id, new_id
from paracle_domain.messages import JsonObject
from paracle_domain.run.commands import RunStatus, RunView

app = typer.Typer()

LABEL: Final = "session"
HELP: Final = """\
/help     this
/history  what was said so far
/new      begin a new session
/exit     leave; so does the end of the input (Ctrl-D)
Ctrl-C    cancel the turn that is under way"""
_EXIT: Final = "/exit"
_COMMAND: Final = re.compile(r"/[a-z]+")
_RECALLED: Final = 2  # turns that are shown of an earlier session


@app.command(
    epilog='Example: paracle chat mail-classifier    or: echo "My invoice is wrong" | paracle chat mail-classifier'
)
def chat(
    agent: Annotated[str, typer.Argument(metavar="AGENT", help="name of an agent")],
    session: Annotated[str | None, typer.Option(help="id of an earlier session, to go on with it")] = None,
    url: UrlOption = None,
) -> None:
    """Talk with an agent: each line is a turn. Ctrl-C cancels a turn; /exit, or the end of the input, leaves."""
    if session is not None and not is_id(session, "ses"):
        raise InvalidInput(f"{quote(session)} is no id of a session; leave --session out to begin one")
    aside = console(aside=True)
    with connect(url) as client:
        client.get("agents", agent)  # who is not there is told before anything is said
        talk = Talk(client, agent, session or new_id("ses"), aside)
        if sys.stdin.isatty():
            failures = converse(talk, aside, earlier=session is not None)
        else:
            failures = sum(not talk.turn(line) for line in lines(aside))
    say(f"to go on: paracle chat {agent} --session {talk.session}")
    if failures and not sys.stdin.isatty():
        raise typer.Exit(EXIT_FAILED)


def converse(talk: Talk, aside: Console, *, earlier: bool) -> int:
    """Talk with a person, who may also give commands; how many turns failed."""
    say("/help says what there is besides talking")
    if earlier:
        talk.recall(_RECALLED)
    failures = 0
    for line in lines(aside):
        match line:
            case "/help":
                say(HELP)
            case "/history":
                talk.recall(None)
            case "/new":
                talk.session = new_id("ses")
                say(f"a new session: {talk.session}")
            case _ if _COMMAND.fullmatch(line):
                say(f"there is no {line}; /help says what there is")
            case _:
                failures += not talk.turn(line)
    return failures


def lines(aside: Console) -> Iterator[str]:
    """What the user says, until he leaves; asked for where there is a person."""
    asks = sys.stdin.isatty()
    while True:
        try:
            line = ask(aside) if asks else next(sys.stdin)
        except (EOFError, StopIteration):
            if asks:
                aside.print()
            return
        except KeyboardInterrupt:
            say(f"\n{_EXIT} leaves")
            continue
        if line.strip() == _EXIT:
            return
        if line.strip():
            yield line.strip()


def ask(aside: Console) -> str:
    """One line of a person's, with editing and history where the whole terminal is theirs."""
    if not sys.stdout.isatty():
        return aside.input("> ", markup=False)
    import readline  # noqa: F401, PLC0415  # what `input` edits lines with, once it is there

    return input("> ")


class Talk:
    """A conversation: every turn is a run of its own, whose input names the session that keeps what was said."""

    def __init__(self, client: Client, agent: str, session: str, aside: Console) -> None:
        self._client = client
        self._agent = agent
        self.session = session
        self._aside = aside

    def turn(self, line: str) -> bool:
        """Say `line`, and what the agent answers; whether it did. What failed or was cancelled leaves no trace."""
        value: JsonObject = {"text": line, "session": self.session}
        run_id = new_id("run")  # known before it is asked for, so that it can be cancelled at any moment
        voice = Voice(self._aside)
        try:
            self._client.invoke(self._agent, value, labels={LABEL: self.session}, idempotency_key=run_id)
            ended = speak(self._client, run_id, voice)
        except KeyboardInterrupt:
            self._cancel(run_id, voice)
            return False
        voice.conclude(ended.output)
        if ended.run.status is not RunStatus.COMPLETED:
            _say_failure(ended)
            return False
        return True

    def recall(self, most: int | None) -> None:
        """Show what was said, or the last turns of it."""
        try:
            turns = self._client.get_session(self.session).session.turns
        except NotFound:
            say("nothing was said in this session yet")
            return
        after: int | None = 0 if most is None else max(turns - most, 0)
        if after:
            say(f"{after} earlier turn{'s' if after > 1 else ''}; /history shows what was said")
        while after is not None:
            view = self._client.get_session(self.session, after=after)
            for line in (line for turn in view.turns for line in lines_of(turn)):
                self._aside.print(Text(line, style="dim"), soft_wrap=True)
            after = view.next_after

    def _cancel(self, run_id: str, voice: Voice) -> None:
        voice.conclude(None)
        try:
            self._client.cancel(run_id, "cancelled in the chat")
        except NotFound:
            say("cancelled before it began")
        else:
            say("cancelled")


def _say_failure(run: RunView) -> None:
    reason = f": {run.error.code}: {safe(run.error.message)}" if run.error is not None else ""
    say_error(f"the turn is {run.run.status}{reason} ({run.run.run_id})")
