"""One decision in the making: a draft of the state, what was decided so far, and the rules that all kinds share."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime

from pydantic import JsonValue

from paracle_domain.errors import ErrorInfo
from paracle_domain.inference.usage import NOTHING, Usage
from paracle_domain.plan import Plan
from paracle_domain.run import stopping
from paracle_domain.run.commands import StepStatus
from paracle_domain.run.directives import RunDirective
from paracle_domain.run.events import RunEvent, RunFailing, StepCompleted, StepFailed, StepSkipped, StepTimedOut
from paracle_domain.run.folding import apply
from paracle_domain.run.nodes import Job, Node
from paracle_domain.run.places import Place
from paracle_domain.run.state import RunState, StepState


class Draft:
    """What a message leads to, as far as it is decided.

    `waiting` holds steps that may be ready now: they are looked at one after the other, so that a long chain of skipped
    steps is no deep recursion. `everything`: all that is ready is to be looked at, since nothing could start before.
    """

    __slots__ = ("_before", "directives", "events", "everything", "nodes", "now", "plan", "state", "waiting")

    def __init__(self, plan: Plan, nodes: Mapping[str, Node], state: RunState, now: datetime) -> None:
        self.plan = plan
        self.nodes = nodes
        self.state = state
        self.now = now
        self.events: list[RunEvent] = []
        self.directives: list[RunDirective] = []
        self.waiting: deque[str] = deque()
        self.everything = False
        self._before = state

    def happen(self, event: RunEvent) -> None:
        """Keep `event`, and change the draft as it says."""
        if self.state is self._before:
            self.state = self._before.draft()
        apply(self.state, event, self.now)
        self.events.append(event)

    def send(self, directive: RunDirective) -> None:
        self.directives.append(directive)

    @property
    def moves(self) -> bool:
        """Whether something new may start at all."""
        state = self.state
        return state.ending is None and not state.queued and not state.aside.paused

    @property
    def limit(self) -> int | None:
        """How many steps, items and iterations may be at work at the same time."""
        return self.plan.workflow.spec.concurrency

    @property
    def room(self) -> bool:
        """Whether there is room for one more at work."""
        limit = self.limit
        return limit is None or self.state.flying < limit

    def step(self, node: Node) -> StepState | None:
        """The step as it stands, if it has begun or ended."""
        return self.state.table.entry(node.place)

    def job_of(self, place: Place) -> Job:
        """The work that is done at `place`."""
        node = self.nodes[place.step]
        job = node.undo if place.compensates else node.job
        assert job is not None
        return job

    def complete(
        self, node: Node, output: JsonValue = None, usage: Usage = NOTHING, *, attempt: int = 0, degraded: bool = False
    ) -> None:
        """Let a step complete."""
        self.happen(StepCompleted(step=node.name, attempt=attempt, output=output, usage=usage, degraded=degraded))
        self.after(node)

    def skip(self, *names: str) -> None:
        """Skip steps, unless they have begun or ended already, and those that are skipped with them.

        If one of them was to step in for a step that failed, nothing does, and the run fails.
        """
        left = deque(names)
        while left:
            node = self.nodes[left.popleft()]
            if self.step(node) is not None:
                continue
            self.happen(StepSkipped(step=node.name))
            primary = self.state.graph.primaries.get(node.name)
            failed = self.step(self.nodes[primary]) if primary is not None else None
            if primary is not None and failed is not None and failed.failed:
                assert failed.error is not None
                self.doom(primary, failed.error)
                return
            left.extend(self._not_taken(node))
            self.waiting.extend(node.dependents)

    def fail(
        self, node: Node, error: ErrorInfo, usage: Usage = NOTHING, *, attempt: int = 0, timed_out: bool = False
    ) -> None:
        """Let a step fail for good."""
        ending = self.state.ending is not None
        fallback = None if ending else self.fallback_of(node)
        tolerated = node.spec.on_error == "continue" or fallback is not None
        kind = StepTimedOut if timed_out else StepFailed
        self.happen(
            kind(step=node.name, attempt=attempt, error=error, tolerated=tolerated, fallback=fallback, usage=usage)
        )
        if tolerated:
            self.after(node)
        elif not ending:
            self.doom(node.name, error)

    def fallback_of(self, node: Node) -> str | None:
        """The step that steps in for `node`, if it still can."""
        if node.fallback is None or self.step(self.nodes[node.fallback]) is not None:
            return None
        return node.fallback

    def doom(self, path: str, error: ErrorInfo) -> None:
        """The run cannot succeed any more, because of what went wrong at `path`."""
        cause = error.model_copy(update={"message": f"step {path!r}: {error.message}", "path": f"steps.{path}"})
        stopping.wind_down(self, RunFailing(outcome="failed", error=cause))

    def after(self, node: Node) -> None:
        """A step has ended: see to those that depend on it, if the run goes on."""
        if self.state.ending is None:
            if node.fallback is not None or node.branches:
                self.skip(*self._not_taken(node))
            self.waiting.extend(node.dependents)

    def _not_taken(self, node: Node) -> Iterator[str]:
        """Steps that are out with the end of `node`: its fallback if it did not fail, branches that it did not take."""
        step = self.step(node)
        assert step is not None
        if node.fallback is not None and not step.failed:
            yield node.fallback
        if node.branches:
            taken = _taken(node, step)
            yield from (name for name in node.branches if name not in taken)


def _taken(node: Node, step: StepState) -> Collection[str]:
    """The steps of the case that a switch chose; none, if it was skipped or failed."""
    switch = node.spec.switch
    assert switch is not None
    if step.status is not StepStatus.COMPLETED or not isinstance(step.output, dict):
        return ()
    chosen = step.output.get("case")
    return next((case.then for case in switch.cases if case.name == chosen), switch.default)
