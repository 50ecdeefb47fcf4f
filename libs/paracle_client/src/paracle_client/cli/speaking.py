"""An agent's answer in the terminal while it is made: words on standard output, all else beside it."""

from __future__ import annotations

import sys
from typing import Final

from pydantic import JsonValue
from rich.console import Console
from rich.text import Text

from paracle_client import speech
from paracle_client.cli.report import print_value
from paracle_client.cli.target import console
from paracle_client.client import Client
from paracle_client.plain import safe
from paracle_domain.inference.deltas import Delta, ReasoningDelta, TextDelta
from paracle_domain.run.commands import Outputs, RunView
from paracle_domain.strict_json import parse_json
from paracle_domain.task.output import SummaryProgress, TaskOutput, ToolProgress

_NOTHING: Final = ("", 0)


class Voice:
    """Says what an agent says. What was said stays in mind, so that an answer is not printed twice, nor half."""

    def __init__(self, aside: Console) -> None:
        self._aside = aside
        self._retries = speech.Retries()
        self._source: tuple[str, int] = _NOTHING
        self._text = ""
        self._open: bool = False
        self._thinks = False
        self._whole = True

    def hear(self, output: TaskOutput) -> None:
        """Say one thing more."""
        if (line := self._retries.hear(output)) is not None:
            self._end_line()
            self._note(safe(line))
        if output.tool is not None:
            self._say_progress(output.tool)
        elif output.summary is not None:
            self._say_summary(output.summary)
        elif output.budget is not None:
            self._end_line()
            self._note(safe(speech.raising(output.budget)))
        elif output.delta is not None:
            self._say_delta(output.delta)
        if output.gap:
            self._whole = False

    def conclude(self, answer: JsonValue) -> None:
        """End with the answer: said already, or else printed whole."""
        said = self._open and self._whole and _is(answer, self._text)
        self._end_line()
        if not said and answer is not None:
            print_value(answer, console())

    def _say_delta(self, delta: Delta) -> None:
        source = (delta.call_id, delta.attempt)
        if source != self._source:
            self._begin(source)
        match delta.change:
            case TextDelta(text=text):
                self._end_thought()
                self._text += text
                self._open = True
                sys.stdout.write(safe(text, lines=True))
                sys.stdout.flush()
            case ReasoningDelta(text=text) if text and self._aside.is_terminal:
                self._thinks = True
                self._aside.print(Text(safe(text, lines=True), style="dim italic"), end="")

    def _begin(self, source: tuple[str, int]) -> None:
        """Another reply begins, or the same one anew: what broke off before it does not count."""
        broke_off = self._open and source[0] == self._source[0]
        self._end_line()
        if broke_off:
            self._note(speech.BROKE_OFF)
        self._source, self._text, self._whole = source, "", True

    def _say_progress(self, progress: ToolProgress) -> None:
        self._end_line()
        self._note(safe(speech.progress(progress)))

    def _say_summary(self, progress: SummaryProgress) -> None:
        self._end_line()
        line = speech.summing_up(progress)
        if line is not None:
            self._note(line)

    def _note(self, text: str) -> None:
        self._aside.print(Text(f"· {text}", style="dim"), soft_wrap=True)

    def _end_thought(self) -> None:
        if self._thinks:
            self._aside.print()
        self._thinks = False

    def _end_line(self) -> None:
        self._end_thought()
        if self._open:
            sys.stdout.write("\n")
            sys.stdout.flush()
        self._open = False


class Doorbell:
    """Says only what keeps an answer from coming: that people are to decide, or that the model does not answer."""

    def __init__(self, aside: Console) -> None:
        self._aside = aside
        self._retries = speech.Retries()

    def hear(self, output: TaskOutput) -> None:
        """Say it, if this is such a thing."""
        if (line := self._retries.hear(output)) is not None:
            self._say(line)
        if output.tool is not None and output.tool.stage == "held":
            self._say(speech.progress(output.tool))
        elif output.budget is not None and output.budget.stage == "held":
            self._say(speech.raising(output.budget))

    def _say(self, text: str) -> None:
        self._aside.print(Text(f"· {safe(text)}", style="dim"), soft_wrap=True)


def speak(client: Client, run_id: str, voice: Voice | Doorbell) -> RunView:
    """Say what the agent of the run says until it has ended; the run as it ended."""
    for record in client.events(run_id, follow=True):
        task_id = record.data.get("task_id")
        if record.type == "step.started" and isinstance(task_id, str):
            for output in client.output(task_id):
                voice.hear(output)
    return client.get_run(run_id, outputs=Outputs.RUN)


def _is(answer: JsonValue, text: str) -> bool:
    """Whether `text` is the answer, as it is or as JSON."""
    if isinstance(answer, str):
        return text.strip() == answer.strip()
    try:
        return bool(parse_json(text) == answer)
    except ValueError:
        return False
