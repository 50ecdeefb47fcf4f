"""`paracle chat`: a conversation with an agent, in a terminal or over a pipe."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Annotated, Final

import typer
from pydantic import JsonValue
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
CONVERSATION: Final = "conversation"
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
    aside = console(aside=True)
    with connect(url) as client:
        talk = Talk.resumed(client, agent, session, aside) if session else Talk(client, agent, new_id("ses"), aside)
        failures = sum(not talk.turn(line) for line in lines(aside))
    say(f"to go on: paracle chat {agent} --session {talk.session}")
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
    """A conversation. Every turn is a run of its own, labelled with the session, whose input says all before it."""

    def __init__(self, client: Client, agent: str, session: str, aside: Console) -> None:
        self.session = session
        self._client = client
        self._agent = agent
        self._aside = aside
        self._said: list[JsonValue] = []

    @classmethod
    def resumed(cls, client: Client, agent: str, session: str, aside: Console) -> Talk:
        """The session as its last completed turn left it.

        Raises
        ------
        InvalidInput
            If `session` is no id of one.
        NotFound
            If no turn of it has completed, or its runs are not kept any more.
        """
        if not is_id(session, "ses"):
            raise InvalidInput(f"{quote(session)} is no id of a session; leave --session out to begin one")
        talk = cls(client, agent, session, aside)
        talk._take(_last_turn(client, session))
        say(f"{len(talk._said) // 2} turns so far")
        return talk

    def turn(self, line: str) -> bool:
        """Say `line`, and what the agent answers; whether it did. What failed or was cancelled leaves no trace."""
        value: JsonObject = {"text": line}
        if self._said:
            value[CONVERSATION] = self._said
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
        self._take(ended)
        return True

    def _cancel(self, run_id: str, voice: Voice) -> None:
        voice.conclude(None)
        try:
            self._client.cancel(run_id, "cancelled in the chat")
        except NotFound:
            say("cancelled before it began")
        else:
            say("cancelled")

    def _take(self, turn: RunView) -> None:
        """All that was said up to the end of `turn`."""
        given = turn.input if isinstance(turn.input, dict) else {}
        before = given.get(CONVERSATION)
        output = turn.output
        answer = output if isinstance(output, str) else json.dumps(output, ensure_ascii=False)
        self._said = [
            *(before if isinstance(before, list) else []),
            {"role": "user", "text": given.get("text")},
            {"role": "assistant", "text": answer or "(nothing)"},
        ]


def _last_turn(client: Client, session: str) -> RunView:
    cursor: str | None = None
    while True:
        page = client.runs(labels={LABEL: session}, status=RunStatus.COMPLETED, limit=1, cursor=cursor)
        if page.runs:
            return client.get_run(page.runs[0].run_id)
        if page.next_cursor is None:
            raise NotFound(f"no turn of session {session} has completed, or it is not kept any more")
        cursor = page.next_cursor


def _say_failure(run: RunView) -> None:
    reason = f": {run.error.code}: {safe(run.error.message)}" if run.error is not None else ""
    say_error(f"the turn is {run.run.status}{reason} ({run.run.run_id})")
