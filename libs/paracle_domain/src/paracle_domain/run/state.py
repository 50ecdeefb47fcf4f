"""A run as its events have made it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal, override

from pydantic import JsonValue

from paracle_domain.errors import ErrorInfo
from paracle_domain.inference.usage import NOTHING, Usage
from paracle_domain.run.commands import Decision, RunStatus, StepStatus
from paracle_domain.run.events import ApprovalAsked, ApprovalEscalated, RunStarted, SignalReceived
from paracle_domain.run.places import place_of
from paracle_domain.run.table import Table
from paracle_domain.workflow.graph import Graph

type Outcome = Literal["failed", "timed_out", "cancelled"]


@dataclass(frozen=True, slots=True)
class Ending:
    """Why nothing new starts any more (of a run, or of a map or loop), and since when."""

    outcome: Outcome
    since: datetime
    error: ErrorInfo | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Parts:
    """The items of a map, or the iterations of a loop; `next` is the first that has not begun.

    `memo` holds what the list of a map was evaluated to: it follows from the run, so it is no part of its state.
    """

    kind: Literal["map", "loop"]
    items: Table[StepState]
    next: int = 0
    ending: Ending | None = None
    degraded: bool = False
    memo: list[list[JsonValue]] = field(default_factory=list, compare=False, repr=False)

    @property
    def hungry(self) -> bool:
        """Whether there is something to start of it, if there is room."""
        if self.ending is not None or self.next >= self.items.count:
            return False
        return self.kind == "map" or self.items.open == 0


@dataclass(frozen=True, slots=True)
class Waiting:
    """What a step waits for."""

    until: datetime | None
    signal: str | None


@dataclass(frozen=True, slots=True)
class Asked:
    """An approval: what was asked, of whom after all, and what was decided so far."""

    asked: ApprovalAsked
    decisions: tuple[Decision, ...] = ()
    escalation: ApprovalEscalated | None = None

    @property
    def approvers(self) -> ApprovalAsked | ApprovalEscalated:
        return self.escalation or self.asked

    @property
    def expires_at(self) -> datetime | None:
        return self.approvers.expires_at


@dataclass(slots=True)
class StepState:
    """A step that has begun, or has ended without beginning; so are items, iterations and compensations.

    Treat it as immutable; it is not frozen since that would triple the time that it takes to make one.
    `attempt_at` is when the running attempt started; `due_at` its deadline, or the time at which the next one starts.
    `deadline_at` is that of a step which does no work itself. `place` counts the run's events up to the end of it.
    """

    status: StepStatus
    attempt: int = 0
    task_id: str | None = None
    child_run_id: str | None = None
    started_at: datetime | None = None
    attempt_at: datetime | None = None
    finished_at: datetime | None = None
    due_at: datetime | None = None
    deadline_at: datetime | None = None
    input: JsonValue = None
    output: JsonValue = None
    error: ErrorInfo | None = None
    usage: Usage = NOTHING
    degraded: bool = False
    kept: bool = False
    place: int = 0
    detail: Parts | Waiting | Asked | None = None
    compensation: StepState | None = None

    @property
    def ended(self) -> bool:
        return self.status is not _RUNNING and self.status is not _WAITING

    @property
    def failed(self) -> bool:
        return self.status is StepStatus.FAILED or self.status is StepStatus.TIMED_OUT

    def with_parts(self, parts: Parts, used: Usage) -> StepState:
        """This step with its `parts` changed, which have `used` something. Spelled out, as in `RunState.draft`."""
        return StepState(
            self.status,
            self.attempt,
            self.task_id,
            self.child_run_id,
            self.started_at,
            self.attempt_at,
            self.finished_at,
            self.due_at,
            self.deadline_at,
            self.input,
            self.output,
            self.error,
            self.usage + used,
            self.degraded,
            self.kept,
            self.place,
            parts,
            self.compensation,
        )


_RUNNING: Final = StepStatus.RUNNING
_WAITING: Final = StepStatus.WAITING


@dataclass(frozen=True, slots=True)
class Undo:
    """The compensations of a run that has failed or was cancelled: `done` of `steps` have ended."""

    steps: tuple[str, ...]
    done: int = 0
    failed: tuple[str, ...] = ()

    @property
    def current(self) -> str | None:
        """The step that is being undone, or is to be next."""
        return self.steps[self.done] if self.done < len(self.steps) else None


@dataclass(frozen=True, slots=True)
class Aside:
    """What most runs never have: apart, so that a decision copies it with one reference.

    `signals` are those that no step has taken yet, `heard` the ids of all that came; `approvals` maps ids to steps.
    """

    paused: bool = False
    signals: tuple[SignalReceived, ...] = ()
    heard: frozenset[str] = frozenset()
    approvals: Mapping[str, str] = field(default_factory=dict)
    emitted: int = 0
    undo: Undo | None = None


_PLAIN = Aside()


@dataclass(slots=True)
class RunState:
    """Fold of a run's events over the graph of its plan. Treat it as immutable: `evolve` gives a new one.

    `table` holds the steps by their place in the graph's order; `flying` counts what is at work (or waits for its next
    attempt), `hungry` names the maps and loops that have something to start.
    """

    graph: Graph
    table: Table[StepState]
    seq: int = 0
    started: RunStarted | None = None
    status: RunStatus = RunStatus.QUEUED
    created_at: datetime | None = None
    finished_at: datetime | None = None
    deadline_at: datetime | None = None
    queued: bool = False
    flying: int = 0
    hungry: tuple[str, ...] = ()
    ending: Ending | None = None
    output: JsonValue = None
    error: ErrorInfo | None = None
    usage: Usage = NOTHING
    aside: Aside = _PLAIN
    token: object = field(default=None, compare=False, repr=False)

    @property
    def terminal(self) -> bool:
        return self.finished_at is not None

    @property
    def started_event(self) -> RunStarted:
        """The run's first event.

        Raises
        ------
        ValueError
            If the run has not started, so that there is none.
        """
        if self.started is None:
            message = "the run has not started"
            raise ValueError(message)
        return self.started

    @property
    def steps(self) -> Steps:
        """Steps that have begun, or have ended without beginning, by name."""
        return Steps(self)

    @property
    def tolerated(self) -> tuple[str, ...]:
        """Steps that failed, in part or as a whole, as the workflow allows."""
        steps = zip(self.graph.order, self.table, strict=True)
        return tuple(name for name, step in steps if not isinstance(step, int) and step.degraded)

    def find(self, path: str) -> StepState | None:
        """The step, item, iteration or compensation at `path`, if it has begun."""
        index = self.graph.index.get(path)
        if index is not None:
            return self.table.entry(index)
        place = place_of(path)
        owner = self.steps.get(place.step) if place is not None else None
        if place is None or owner is None:
            return None
        if place.part is None:
            return owner.compensation
        parts = owner.detail
        if not isinstance(parts, Parts) or place.part >= parts.items.count:
            return None
        return parts.items.entry(place.part)

    def draft(self) -> RunState:
        """A copy that can be changed in place without touching this one."""
        return RunState(  # spelled out, since `replace` takes eight times as long and every decision needs a draft
            self.graph,
            self.table,
            self.seq,
            self.started,
            self.status,
            self.created_at,
            self.finished_at,
            self.deadline_at,
            self.queued,
            self.flying,
            self.hungry,
            self.ending,
            self.output,
            self.error,
            self.usage,
            self.aside,
            object(),
        )


class Steps(Mapping[str, StepState]):
    """The steps of a run by name; those that have not begun are not there."""

    __slots__ = ("_state",)

    def __init__(self, state: RunState) -> None:
        self._state = state

    @override
    def __getitem__(self, name: str) -> StepState:
        found = self._state.table.entry(self._state.graph.index[name])
        if found is None:
            raise KeyError(name)
        return found

    @override
    def __iter__(self) -> Iterator[str]:
        table = self._state.table
        return (name for place, name in enumerate(self._state.graph.order) if table.entry(place) is not None)

    @override
    def __len__(self) -> int:
        return sum(1 for _ in self)


def blank(graph: Graph) -> RunState:
    """A run of which nothing has happened yet."""
    return RunState(graph, Table.of(len(graph.needs[name]) for name in graph.order))
