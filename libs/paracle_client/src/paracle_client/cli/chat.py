"""`paracle chat`: a conversation with an agent, in a terminal or over a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Annotated, Final

import typer
from rich.console import Console

from paracle_client.cli.app import EXIT_FAILED, say_error
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
_EXIT: Final = "/exit"


@app.command(
    epilog='Example: paracle chat mail-classifier    or: echo "My invoice is wrong" | paracle chat mail-classifier'
)
def chat(
    agent: Annotated[str, typer.Argument(help="name of an agent")],
    session: Annotated[str | None, typer.Option(help="id of an earlier session, to go on with it")] = None,
    url: UrlOption = None,
) -> None:
    """Talk with an agent: each line is a turn. Ctrl-C cancels a turn; /exit, or the end of the input, leaves."""
    if session is not None and not is_id(session, "ses"):
        raise InvalidInput(f"{quote(session)} is no id of a session; leave --session out to begin one")
    session = session or new_id("ses")
    aside = console(aside=True)
    with connect(url) as client:
        talk = Talk(client, agent, session, aside)
        failures = sum(not talk.turn(line) for line in lines(aside))
    say(f"to go on: paracle chat {agent} --session {session}")
    if failures and not sys.stdin.isatty():
        raise typer.Exit(EXIT_FAILED)


def lines(aside: Console) -> Iterator[str]:
    """What the user says, until he leaves; asked for where there is a person."""
    asks = sys.stdin.isatty()
    while True:
        try:
            line = aside.input("> ", markup=False) if asks else next(sys.stdin)
        except (EOFError, StopIteration):
            return
        except KeyboardInterrupt:
            say(f"\n{_EXIT} leaves")
            continue
        if line.strip() == _EXIT:
            return
        if line.strip():
            yield line.strip()


class Talk:
    """A conversation: every turn is a run of its own, whose input names the session that keeps what was said."""

    def __init__(self, client: Client, agent: str, session: str, aside: Console) -> None:
        self._client = client
        self._agent = agent
        self._session = session
        self._aside = aside

    def turn(self, line: str) -> bool:
        """Say `line`, and what the agent answers; whether it did. What failed or was cancelled leaves no trace."""
        value: JsonObject = {"text": line, "session": self._session}
        run_id = new_id("run")  # known before it is asked for, so that it can be cancelled at any moment
        voice = Voice(self._aside)
        try:
            self._client.invoke(self._agent, value, labels={LABEL: self._session}, idempotency_key=run_id)
            ended = speak(self._client, run_id, voice)
        except KeyboardInterrupt:
            self._cancel(run_id, voice)
            return False
        voice.conclude(ended.output)
        if ended.run.status is not RunStatus.COMPLETED:
            _say_failure(ended)
            return False
        return True

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
