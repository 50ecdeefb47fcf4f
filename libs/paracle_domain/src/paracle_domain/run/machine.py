"""What a run does next: the process manager's logic, pure.

A `RunMachine` belongs to a plan. `decide` takes a run's state, a message and the time, and gives a `Transition`: the
events to keep, the directives to carry out once they are kept, the state after them, and when to wake the run again.

Ready steps start at once; there are no level barriers. When a run must end early (a step failed for good, it was
cancelled, its time is up) nothing new starts, what runs is told to stop (and told again while it does not answer) until
it has answered or `STOP_GRACE` is over, what completed is undone if it says how, and the run ends. A task that stays
silent is handed out again, ever more seldom: whoever has it knows it by its id.

    attempts      work: of steps, of items and iterations, of compensations
    parts         maps and loops
    starting      how each kind of step begins; switch, wait, emit
    approvals, signals
    stopping, compensation    the end
    folding       what events make of a state
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import assert_never

from paracle_domain.errors import Conflict, ParacleError
from paracle_domain.plan import Plan
from paracle_domain.records import record
from paracle_domain.run import again, approvals, attempts, compensation, orders, parts, signals, starting, stopping
from paracle_domain.run.directives import RunDirective
from paracle_domain.run.draft import Draft
from paracle_domain.run.events import (
    RunAdmitted,
    RunCancelling,
    RunEvent,
    RunFailing,
    RunPaused,
    RunResumed,
    RunStarted,
)
from paracle_domain.run.inbox import Admit, Begin, Cancel, Decide, Pause, Resume, RunMessage, Signal, Tick
from paracle_domain.run.messages import ChildEnded
from paracle_domain.run.nodes import Formula, Node, nodes_of
from paracle_domain.run.state import Asked, Parts, RunState, StepState, Waiting, blank
from paracle_domain.run.timing import next_wake, soonest, wake_of
from paracle_domain.task.messages import TaskResult
from paracle_domain.workflow.graph import Graph
from paracle_domain.workflow.spec import StepSpec


@record
class Transition:
    """What a message led to. Without events the message changed nothing; `directives` may repeat what was lost.

    `wake_at` is when the run wants a `Tick` at the latest; `None` if never (it has ended).
    """

    state: RunState
    events: tuple[RunEvent, ...] = ()
    directives: tuple[RunDirective, ...] = ()
    wake_at: datetime | None = None


class RunMachine:
    """The logic of all runs of one plan."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.graph = Graph.of(plan.workflow.spec)
        self._nodes = nodes_of(plan.workflow.spec, self.graph)
        self._output = Formula.of(plan.workflow.spec.output)
        self._blank = blank(self.graph)

    def new(self) -> RunState:
        """A run of which nothing has happened yet."""
        return self._blank

    def spec(self, step: str) -> StepSpec:
        return self._nodes[step].spec

    def decide(
        self, state: RunState, message: RunMessage, now: datetime, wake_at: datetime | None = None
    ) -> Transition:
        """What `message` leads to at `now`, for a run that wants to be woken at `wake_at`."""
        draft = Draft(self.plan, self._nodes, state, now)
        self._take(draft, message)
        if draft.events:
            starting.advance(draft)
            compensation.settle(draft, self._output)
        return Transition(
            draft.state,
            tuple(draft.events),
            tuple(draft.directives),
            _wake(draft, wake_at, rescan=isinstance(message, Tick | Resume)),
        )

    def _take(self, draft: Draft, message: RunMessage) -> None:
        match message:  # what comes most comes first
            case TaskResult():
                attempts.take_result(draft, message)
            case Tick():
                _tick(draft)
            case Begin():
                _begin(draft, message)
            case ChildEnded():
                attempts.take_child_end(draft, message)
            case Signal():
                signals.receive(draft, message)
            case Decide():
                approvals.decide(draft, message)
            case Cancel() | Pause() | Resume() | Admit():
                if _lives(draft.state):
                    _steer(draft, message)
            case _ as unreachable:
                assert_never(unreachable)

    def again(self, state: RunState, events: Iterable[RunEvent]) -> tuple[RunDirective, ...]:
        """The directives of `events` that happened before, as far as they still matter.

        They carry the message ids of the first time, so that whoever did get them sees duplicates.
        """
        return tuple(again.directives_of(self.plan, self._nodes, state, events))

    def objection(self, state: RunState, message: RunMessage, now: datetime) -> ParacleError | None:
        """Why `message` has no effect at `now` on a run that stands as `state` does.

        Nothing if it has, or had when it came.
        """
        match message:
            case Decide():
                return approvals.objection(Draft(self.plan, self._nodes, state, now), message)
            case Signal():
                return signals.objection(state, message)
            case Pause() if state.ending is not None or state.terminal:
                how = f"is {state.status}" if state.terminal else "stops, and undoes what it did"
                return Conflict(f"the run {how}; it cannot be paused any more")
            case Resume() if state.terminal:
                return Conflict(f"the run is {state.status}; `paracle runs fork` starts another one from it")
            case _:
                return None


def _wake(draft: Draft, wake_at: datetime | None, *, rescan: bool) -> datetime | None:
    if draft.state.terminal:
        return None
    if rescan:
        return next_wake(draft.state, draft.now)
    for event in draft.events:
        wish = wake_of(event, draft.now)
        if wish is not None and (wake_at is None or wish < wake_at):
            wake_at = wish
    return wake_at


def _lives(state: RunState) -> bool:
    """Whether the run has begun, and no end of it has."""
    return state.started is not None and state.ending is None and not state.terminal


def _begin(draft: Draft, message: Begin) -> None:
    """A run begins. One that has begun is asked again how it ended, or told to end, by its parent."""
    if draft.state.started is not None:
        if message.parent is not None and message.parent != draft.state.started.parent:
            draft.send(orders.no_child(message.run_id, message.parent))
        elif draft.state.terminal and draft.state.started.parent is not None:
            draft.send(again.tell_parent(draft))
        elif message.cancelled is not None and _lives(draft.state):
            _cancel(draft, message.principal, message.cancelled)
        return
    plan, command = draft.plan, message.command
    draft.happen(
        RunStarted(
            run_id=message.run_id,
            tenant=message.tenant,
            principal=message.principal,
            workflow=plan.workflow.name,
            revision=plan.workflow.revision,
            plan=plan.digest,
            input=command.input,
            labels=command.labels,
            deadline_at=message.deadline_at if message.queued else _deadline(draft, message.deadline_at),
            priority=command.priority,
            queued=message.queued,
            parent=message.parent,
            forked_from=message.forked_from,
        )
    )
    if message.refused is not None:
        stopping.wind_down(draft, RunFailing(outcome="failed", error=message.refused))
    elif message.cancelled is not None:
        _cancel(draft, message.principal, message.cancelled)
    else:
        for kept in message.kept:
            draft.happen(kept)
        for kept in message.kept:
            draft.after(draft.nodes[kept.step])
        draft.everything = True


def _cancel(draft: Draft, principal: str, reason: str) -> None:
    stopping.wind_down(draft, RunCancelling(principal=principal, reason=reason))


def _deadline(draft: Draft, limit: datetime | None) -> datetime | None:
    """When a run that starts now has to have ended: as its workflow says, and as its parent does."""
    seconds = draft.plan.workflow.spec.timeout_s
    return soonest((limit, draft.now + timedelta(seconds=seconds) if seconds else None))


def _steer(draft: Draft, message: Cancel | Pause | Resume | Admit) -> None:
    """Somebody wants the run to stop, to wait, or to go on; once is enough."""
    state = draft.state
    match message:
        case Cancel():
            _cancel(draft, message.principal, message.command.reason)
        case Pause() if not state.aside.paused:
            draft.happen(RunPaused(principal=message.principal, reason=message.reason))
        case Resume() if state.aside.paused:
            draft.happen(RunResumed(principal=message.principal, reason=message.reason))
            draft.everything = True
            _tick_steps(draft)
        case Admit() if state.queued:
            draft.happen(RunAdmitted(deadline_at=_deadline(draft, state.deadline_at)))
            draft.everything = True
        case _:
            pass


def _tick(draft: Draft) -> None:
    state = draft.state
    if state.terminal or state.started is None:
        return
    if state.ending is not None:
        if state.table.open:
            stopping.press(draft, state.ending)
        else:
            compensation.tick(draft)
        return
    stopping.time_out(draft)
    _tick_steps(draft)  # does nothing if the time of the run is up


def _tick_steps(draft: Draft) -> None:
    """Look at all that is open."""
    for place, step in list(draft.state.table.open_entries()):
        if draft.state.ending is None:
            _tick_step(draft, draft.nodes[draft.state.graph.order[place]], step)


def _tick_step(draft: Draft, node: Node, step: StepState) -> None:
    match step.detail:
        case None:
            attempts.tick(draft, node.at, step)
        case Waiting() as waiting:
            signals.tick(draft, node, step, waiting)
        case Asked() as approval:
            approvals.tick(draft, node, step, approval)
        case Parts():
            parts.tick(draft, node)
        case _ as unreachable:
            assert_never(unreachable)
