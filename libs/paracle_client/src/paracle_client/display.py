"""Drawing a run that is followed: a table that changes on a terminal, lines anywhere else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final, override

from rich.console import Console, Group, JustifyMethod, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from paracle_client.live import StepLine, View, fold
from paracle_client.plain import safe
from paracle_client.speech import Speech
from paracle_domain.inference.usage import Usage
from paracle_domain.machine import EventRecord
from paracle_domain.run import events as happened
from paracle_domain.run.commands import RunStatus, StepStatus
from paracle_domain.task.output import TaskOutput

_SYMBOLS: Final = {
    StepStatus.PENDING: ("·", ".", "dim"),
    StepStatus.RUNNING: ("▶", ">", "bold cyan"),
    StepStatus.WAITING: ("◷", "~", "yellow"),
    StepStatus.COMPLETED: ("✓", "+", "green"),
    StepStatus.SKIPPED: ("–", "-", "dim"),
    StepStatus.FAILED: ("✗", "x", "bold red"),
    StepStatus.CANCELLED: ("⊘", "o", "magenta"),
    StepStatus.TIMED_OUT: ("✗", "x", "bold red"),
}
_RUN_STYLES: Final = {
    RunStatus.COMPLETED: "bold green",
    RunStatus.FAILED: "bold red",
    RunStatus.TIMED_OUT: "bold red",
    RunStatus.DEGRADED: "bold yellow",
    RunStatus.CANCELLED: "bold magenta",
}
_FIRST_SHOWN: Final = (
    StepStatus.RUNNING,
    StepStatus.FAILED,
    StepStatus.TIMED_OUT,
    StepStatus.WAITING,
    StepStatus.PENDING,
)
_MOST_INDENTED: Final = 6
_WIDE, _MIDDLE = 90, 56
_LINES_AROUND: Final = 5
_NARROWEST_STATE: Final = 12
_MOST_TAILS: Final = 5


def watch(view: View, events: Iterable[EventRecord], console: Console) -> Iterator[View]:
    """Draw `view` and what `events` make of it; gives the view after each event."""
    with shown(view, console) as screen:
        for record in events:
            yield screen.take(record)


@contextmanager
def shown(view: View, console: Console) -> Iterator[Screen]:
    """A run on `console`: a table that changes, if it is a terminal, and lines anywhere else."""
    if not console.is_terminal:
        yield Screen(view, console)
        return
    screen = _LiveScreen(view, console)
    with screen.live:
        yield screen


class Screen:
    """A run as lines: one for each event, and for each line that an agent says."""

    def __init__(self, view: View, console: Console) -> None:
        self.view = view
        self._console = console
        self._speeches: dict[str, Speech] = {}

    def take(self, record: EventRecord) -> View:
        """Show what an event changed; the view after it."""
        before, self.view = self.view, fold(self.view, record)
        if line := describe(before, self.view, record):
            self._print(line)
        return self.view

    def hear(self, step: str, output: TaskOutput) -> None:
        """Show what the agent of a step says."""
        self._say(step, self._speeches.setdefault(step, Speech()).hear(output))

    def hush(self, step: str) -> None:
        """The agent of a step says nothing more."""
        if (speech := self._speeches.pop(step, None)) is not None:
            self._say(step, speech.end())

    def say(self, step: str, line: str) -> None:
        """Show a line about what a step waits for."""
        self._say(step, (f"· {line}",))

    def note(self, text: str) -> None:
        """Say something beside the run."""
        self._print(f"{'':8} {text}")

    def _say(self, step: str, lines: Iterable[str]) -> None:
        for line in lines:
            self.note(f"{step:<16} │ {safe(line)}")

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


class _LiveScreen(Screen):
    """A run on a terminal; `rich` asks for it again several times a second, so that durations move."""

    def __init__(self, view: View, console: Console) -> None:
        super().__init__(view, console)
        self._said: Mapping[str, str] = {}  # read by the thread that draws, and so never changed but replaced
        self.live = Live(get_renderable=self._render, console=console, refresh_per_second=8, vertical_overflow="crop")

    @override
    def take(self, record: EventRecord) -> View:
        self.view = fold(self.view, record)
        return self.view

    @override
    def hear(self, step: str, output: TaskOutput) -> None:
        speech = self._speeches.setdefault(step, Speech())
        lines = [*speech.hear(output)]
        if last := speech.tail if speech.tail.strip() else lines[-1] if lines else "":
            self._said = {**self._said, step: last}

    @override
    def say(self, step: str, line: str) -> None:
        self._said = {**self._said, step: f"· {line}"}

    @override
    def hush(self, step: str) -> None:
        self._speeches.pop(step, None)
        self._said = {name: last for name, last in self._said.items() if name != step}

    def _render(self) -> RenderableType:
        return render(self.view, datetime.now(UTC), self._console, self._said)


def render(view: View, now: datetime, console: Console, said: Mapping[str, str] | None = None) -> RenderableType:
    """The step tree, the end of what is being `said` in which step, and a line about the whole, if there is room."""
    width = console.width
    tails = list((said or {}).items())[-_MOST_TAILS:]
    most = max(3, console.height - _LINES_AROUND - len(tails))
    shown, hidden = _choose(list(view.steps.values()), most)
    unicode = _can_draw(console)
    table = Table.grid(padding=(0, 1))
    columns, rows = _columns(width), [_cells(step, now, unicode=unicode) for step in shown]
    for column in columns:
        justify: JustifyMethod = "left" if column in {"symbol", "step", "target", "state"} else "right"
        room = _room_for_states(columns, rows, width) if column == "state" else None
        table.add_column(justify=justify, overflow="ellipsis", no_wrap=True, max_width=room)
    for cells in rows:
        table.add_row(*(cells[column] for column in columns))
    parts: list[RenderableType] = [_heading(view), table]
    if hidden:
        parts.append(Text(f"  and {hidden} more steps: {_counted(view)}", style="dim"))
    parts += [_tail(step, last, width) for step, last in tails]
    parts.append(_summary(view, now))
    return Group(*parts)


def _tail(step: str, last: str, width: int) -> Text:
    """The end of a line that is being said."""
    room = max(10, width - len(step) - 6)
    last = safe(last)
    text = Text("  ", style="dim", no_wrap=True, overflow="ellipsis")
    text.append(f"{step} │ ")
    text.append(last if len(last) <= room else f"…{last[1 - room :]}", style="italic")
    return text


def describe(before: View, after: View, record: EventRecord) -> str | None:
    """One line about an event: `12:00:01 classify  running → completed 1.2s 1,234 tok $0.0012`."""
    clock = record.at.astimezone().strftime("%H:%M:%S")
    if record.entity != "run":
        return f"{clock} {'run':<16} {record.type.removeprefix('run.')} {safe(record.id)}"
    name = record.data.get("step")
    if record.type == happened.StepEmitted.type_name:  # the step's end says it
        return None
    if isinstance(name, str) and name in after.steps:
        return f"{clock} {_step_change(before.steps.get(name, StepLine(name)), after.steps[name], record)}"
    if after.status is before.status:
        return None
    return f"{clock} {_run_change(before, after, record)}"


def _step_change(old: StepLine, new: StepLine, record: EventRecord) -> str:
    parts = [f"{new.id:<16}", f"{new.status}" if old.status is new.status else f"{old.status} → {new.status}"]
    if new.status is StepStatus.RUNNING:
        parts.append(new.target + (f" attempt {new.attempt}" if new.attempt > 1 else ""))
    elif new.started_at is not None:
        parts.append(duration(new.duration_s(record.at)))
        if new.usage.total_tokens:
            parts.append(f"{new.usage.total_tokens:,} tok {money(new.usage.cost_usd)}")
    if new.detail:
        parts.append(safe(new.detail))
    if new.error is not None:
        parts.append(f"{new.error.code}: {safe(new.error.message)}")
    return " ".join(filter(None, parts))


def _run_change(before: View, after: View, record: EventRecord) -> str:
    parts = [f"{'run':<16}", f"{before.status} → {after.status}"]
    if after.status.terminal:
        parts.append(duration(after.duration_s(record.at)))
        parts += _used(after.usage)
    if (error := after.own_error) is not None:
        parts.append(f"{error.code}: {safe(error.message)}")
    elif after.note:
        parts.append(safe(after.note))
    return " ".join(parts)


def duration(seconds: float | None) -> str:
    """`0.3s`, `59.9s`, `2m05s`, `3h07m`; nothing for `None`."""
    if seconds is None:
        return ""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    return f"{minutes}m{rest:02}s" if minutes < 60 else f"{minutes // 60}h{minutes % 60:02}m"


def money(cost: Decimal | None) -> str:
    """`$0.0012`, `$12.30`; `$?` if it is unknown."""
    if cost is None:
        return "$?"
    if not cost:
        return "$0"
    return f"${cost:,.2f}" if cost >= 1 else f"${cost:.4f}" if cost >= Decimal("0.0001") else "<$0.0001"


def totals(usage: Usage) -> str:
    """`1,234 tok (1,000 in, 234 out) $0.0012`."""
    return (
        f"{usage.total_tokens:,} tok ({usage.input_tokens:,} in, {usage.output_tokens:,} out) {money(usage.cost_usd)}"
    )


def _used(usage: Usage) -> Iterator[str]:
    """What models used, if any was asked."""
    if usage.total_tokens:
        yield totals(usage)


def _columns(width: int) -> tuple[str, ...]:
    if width >= _WIDE:
        return ("symbol", "step", "target", "state", "duration", "tokens", "cost")
    if width >= _MIDDLE:
        return ("symbol", "step", "state", "duration", "tokens", "cost")
    return ("symbol", "step", "duration")


def _room_for_states(columns: Sequence[str], rows: Sequence[Mapping[str, Text]], width: int) -> int:
    """What the other columns leave: an error may be long, and gives way to the names of steps."""
    others = [max((cells[column].cell_len for cells in rows), default=0) for column in columns if column != "state"]
    return max(_NARROWEST_STATE, width - sum(others) - len(others))


def _cells(step: StepLine, now: datetime, *, unicode: bool) -> dict[str, Text]:
    fancy, plain, style = _SYMBOLS[step.status]
    indent = "  " * min(step.depth, _MOST_INDENTED)
    state = f"{step.status}" + (f" (attempt {step.attempt})" if step.attempt > 1 else "")
    if step.parts_total:
        state += f" {step.parts_ended:,} of {step.parts_total:,}"
    if step.detail:
        state += f" {safe(step.detail)}"
    if step.error is not None:
        state += f": {safe(step.error.message)}"
    used = step.usage.total_tokens
    return {
        "symbol": Text(fancy if unicode else plain, style=style),
        "step": Text(indent + step.id, style="" if step.attempt else "dim"),
        "target": Text(step.target, style="dim"),
        "state": Text(state, style=style),
        "duration": Text(duration(step.duration_s(now))),
        "tokens": Text(f"{used:,} tok" if used else "", style="dim"),
        "cost": Text(money(step.usage.cost_usd) if used else "", style="dim"),
    }


def _choose(steps: list[StepLine], room: int) -> tuple[list[StepLine], int]:
    """As many steps as there is room for, those first that something goes on with; in their order."""
    if len(steps) <= room:
        return steps, 0
    rank = {status: place for place, status in enumerate(_FIRST_SHOWN)}
    by_interest = sorted(range(len(steps)), key=lambda at: (rank.get(steps[at].status, len(rank)), at))
    kept = sorted(by_interest[: room - 1])
    return [steps[at] for at in kept], len(steps) - len(kept)


def _counted(view: View) -> str:
    return ", ".join(f"{count} {status}" for status, count in sorted(view.counts().items()))


def _heading(view: View) -> Text:
    return Text.from_markup(f"[bold]{escape(view.workflow or 'run')}[/]  [dim]{view.run_id}[/]")


def _summary(view: View, now: datetime) -> Text:
    style = _RUN_STYLES.get(view.status, "cyan")
    tail = view.note if (error := view.own_error) is None else error.message
    text = Text(overflow="ellipsis", no_wrap=True)
    text.append(f"{view.status}", style=style)
    text.append("  ".join(["", duration(view.duration_s(now)), *_used(view.usage)]))
    if tail:
        text.append(f"  {safe(tail)}", style=style)
    return text


def _can_draw(console: Console) -> bool:
    try:
        "▶✓✗⊘◷".encode(console.encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True
