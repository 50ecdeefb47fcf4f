"""What a run does next: the process manager's logic, pure.

A `RunMachine` belongs to a plan. `decide` takes a run's state, a message and the time, and gives a `Transition`: the
events to keep, the directives to carry out once they are kept, the state after them, and when to wake the run again.

Ready steps start at once; there are no level barriers. When a run must end early (a step failed for good, it was
cancelled, its time is up) nothing new starts, what runs is told to stop (and told again while it does not answer), and
the run ends when all of it has answered, or after `STOP_GRACE`. A task that stays silent is handed out again, ever more
seldom: whoever has it knows it by its id.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, assert_never

from pydantic import JsonValue
from pydantic_core import to_json

from paracle_domain.errors import DeadlineExceeded, ErrorInfo, ExpressionFailed, TransitionError
from paracle_domain.expressions import evaluate, read_condition, references, truth
from paracle_domain.ids import derive_id
from paracle_domain.inference.usage import Usage
from paracle_domain.plan import Plan
from paracle_domain.run.commands import StepStatus
from paracle_domain.run.directives import DispatchTask, RunDirective, StopTask
from paracle_domain.run.events import (
    RunCancelled,
    RunCancelling,
    RunCompleted,
    RunDegraded,
    RunEvent,
    RunFailed,
    RunFailing,
    RunStarted,
    RunTimedOut,
    StepCancelled,
    StepCompleted,
    StepFailed,
    StepRetrying,
    StepSkipped,
    StepStarted,
    StepTimedOut,
)
from paracle_domain.run.inbox import Begin, Cancel, RunMessage, Tick
from paracle_domain.run.state import Ending, RunState, StepState, apply
from paracle_domain.run.timing import (
    STOP_GRACE,
    due,
    next_wake,
    presses,
    repeats,
    retry_delay,
    retryable,
    soonest,
    wake_of,
)
from paracle_domain.task.messages import CancelTask, Task, TaskResult, TaskStatus
from paracle_domain.workflow.graph import Graph
from paracle_domain.workflow.spec import StepSpec

MOST_BYTES: Final = 48 * 1024 * 1024


@dataclass(frozen=True, slots=True)
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
        self._specs = {step.id: step for step in plan.workflow.spec.steps}
        self._scopes = {step.id: _named_by(step) for step in plan.workflow.spec.steps}
        self._output_scope = tuple(sorted(references(plan.workflow.spec.output)))

    def new(self) -> RunState:
        """A run of which nothing has happened yet."""
        return RunState(self.graph)

    def decide(
        self, state: RunState, message: RunMessage, now: datetime, wake_at: datetime | None = None
    ) -> Transition:
        """What `message` leads to at `now`, for a run that wants to be woken at `wake_at`.

        Raises
        ------
        TransitionError
            For a `Begin` of a run that has begun.
        """
        work = _Work(self, state, now)
        match message:
            case Begin():
                work.begin(message)
            case TaskResult():
                work.result(message)
            case Cancel():
                work.cancel(message)
            case Tick():
                work.tick()
            case _ as unreachable:
                assert_never(unreachable)
        return work.transition(wake_at, rescan=isinstance(message, Tick))

    def again(self, state: RunState, events: Iterable[RunEvent]) -> tuple[RunDirective, ...]:
        """The directives of `events` that happened before, as far as they still matter.

        They carry the message ids of the first time, so that whoever did get them sees duplicates.
        """
        found: list[RunDirective] = []
        for event in events:
            match event:
                case StepStarted(step=name, attempt=attempt) if _runs(state.steps.get(name), attempt):
                    found.append(DispatchTask(task_of(state, event)))
                case RunCancelling() | RunFailing():
                    found.extend(_stops(state, 0))
                case _:
                    pass
        return tuple(found)

    def spec(self, step: str) -> StepSpec:
        return self._specs[step]

    def evaluate_step(self, state: RunState, step: StepSpec) -> tuple[bool, JsonValue]:
        """Whether `step` is to run, and its input."""
        scope = self._scope(state, self._scopes[step.id])
        if step.when is not None and not truth(step.when, scope):
            return False, None
        return True, fitting(evaluate(step.input, scope))

    def evaluate_output(self, state: RunState) -> JsonValue:
        return fitting(evaluate(self.plan.workflow.spec.output, self._scope(state, self._output_scope)))

    def _scope(self, state: RunState, names: Sequence[str]) -> dict[str, Any]:
        started = state.started_event
        return {
            "input": started.input,
            "run": {"id": started.run_id},
            "steps": {name: _visible(state.steps[name]) for name in names if name in state.steps},
        }


class _Work:
    """One decision in the making: a draft of the state, and what was decided so far."""

    def __init__(self, machine: RunMachine, state: RunState, now: datetime) -> None:
        self._machine = machine
        self._before = state
        self._draft: RunState | None = None
        self._now = now
        self._events: list[RunEvent] = []
        self._directives: list[RunDirective] = []

    @property
    def _state(self) -> RunState:
        return self._draft or self._before

    def transition(self, wake_at: datetime | None, *, rescan: bool) -> Transition:
        state = self._state
        if state.terminal:
            wake_at = None
        elif rescan:
            wake_at = next_wake(state, self._now)
        else:
            wake_at = soonest((wake_at, *(wake_of(event, self._now) for event in self._events)))
        return Transition(state, tuple(self._events), tuple(self._directives), wake_at)

    def begin(self, message: Begin) -> None:
        if self._state.started is not None:
            raise TransitionError(f"run {message.run_id} has begun already; start another one under a new id")
        plan, command = self._machine.plan, message.command
        timeout = plan.workflow.spec.timeout_s
        self._happen(
            RunStarted(
                run_id=message.run_id,
                tenant=message.tenant,
                principal=message.principal,
                workflow=plan.workflow.name,
                revision=plan.workflow.revision,
                plan=plan.digest,
                input=command.input,
                labels=command.labels,
                deadline_at=self._now + timedelta(seconds=timeout) if timeout else None,
            )
        )
        self._advance(name for name in self._machine.graph.order if not self._machine.graph.needs[name])
        self._settle()

    def result(self, message: TaskResult) -> None:
        step = self._state.steps.get(message.step)
        if self._state.terminal or step is None or not _runs(step, message.attempt) or step.task_id != message.task_id:
            return
        match message.status:
            case TaskStatus.COMPLETED:
                self._happen(
                    StepCompleted(
                        step=message.step, attempt=message.attempt, output=message.output, usage=message.usage
                    )
                )
                self._unlock(message.step)
            case TaskStatus.FAILED | TaskStatus.TIMED_OUT:
                error = message.error or ErrorInfo(
                    code="internal", message=f"the task {message.status} without saying why"
                )
                self._attempt_failed(
                    message.step, error, message.usage, timed_out=message.status is TaskStatus.TIMED_OUT
                )
            case TaskStatus.CANCELLED:
                self._attempt_cancelled(message)
            case TaskStatus.QUEUED | TaskStatus.RUNNING | TaskStatus.WAITING:
                return
            case _ as unreachable:
                assert_never(unreachable)
        self._settle()

    def cancel(self, message: Cancel) -> None:
        if self._state.started is None or self._state.terminal or self._state.ending is not None:
            return
        self._wind_down(RunCancelling(principal=message.principal, reason=message.command.reason))
        self._settle()

    def tick(self) -> None:
        state = self._state
        if state.terminal or state.started is None:
            return
        if state.ending is not None:
            self._press(state.ending)
        elif due(state.started.deadline_at, self._now):
            limit = self._machine.plan.workflow.spec.timeout_s
            late = DeadlineExceeded(f"the run did not end within its timeout_s of {limit:g} s").to_info()
            self._wind_down(RunFailing(outcome="timed_out", error=late))
        else:
            for name in tuple(state.open):
                self._tick_step(name, state.steps[name])
        self._settle()

    def _tick_step(self, name: str, step: StepState) -> None:
        if step.status is StepStatus.WAITING:
            if due(step.due_at, self._now):
                self._launch(self._machine.spec(name), step.attempt + 1, step.input)
        elif due(step.due_at, self._now):
            self._directives.append(_stop(self._state, name, step, "timed out", 0))
            limit = self._machine.spec(name).timeout_s
            late = DeadlineExceeded(f"attempt {step.attempt} did not end within the step's timeout_s of {limit:g} s")
            self._attempt_failed(name, late.to_info(), Usage(), timed_out=True)
        elif step.attempt_at is not None and (again := repeats(self._now - step.attempt_at)[0]):
            self._directives.append(DispatchTask(task_of_step(self._state, self._machine.spec(name), step), again))

    def _press(self, ending: Ending) -> None:
        """Ask again those that have not stopped, for the order may be lost; give up on them after the grace."""
        self._directives.extend(_stops(self._state, presses(ending, self._now)))
        if self._now - ending.since < STOP_GRACE:
            return
        for name in tuple(self._state.open):
            self._happen(StepCancelled(step=name, attempt=self._state.steps[name].attempt))

    def _attempt_failed(self, name: str, error: ErrorInfo, usage: Usage, *, timed_out: bool) -> None:
        spec, step = self._machine.spec(name), self._state.steps[name]
        if self._state.ending is None and retryable(spec.retry, error, step.attempt):
            wait = retry_delay(spec.retry, step.attempt, f"{self._state.started_event.run_id}.{name}", error)
            self._happen(
                StepRetrying(step=name, attempt=step.attempt, error=error, due_at=self._now + wait, usage=usage)
            )
            return
        self._fail(name, step.attempt, error, usage, timed_out=timed_out)

    def _fail(self, name: str, attempt: int, error: ErrorInfo, usage: Usage, *, timed_out: bool = False) -> None:
        tolerated = self._machine.spec(name).on_error == "continue"
        kind = StepTimedOut if timed_out else StepFailed
        self._happen(kind(step=name, attempt=attempt, error=error, tolerated=tolerated, usage=usage))
        if tolerated:
            self._unlock(name)
        elif self._state.ending is None:
            cause = error.model_copy(update={"message": f"step {name!r}: {error.message}", "path": f"steps.{name}"})
            self._wind_down(RunFailing(outcome="failed", error=cause))

    def _attempt_cancelled(self, message: TaskResult) -> None:
        if self._state.ending is not None:
            self._happen(StepCancelled(step=message.step, attempt=message.attempt, usage=message.usage))
            return
        error = message.error or ErrorInfo(code="cancelled", message="the task was stopped from outside the run")
        self._fail(message.step, message.attempt, error, message.usage)

    def _wind_down(self, event: RunCancelling | RunFailing) -> None:
        self._happen(event)
        for name in tuple(self._state.open):
            step = self._state.steps[name]
            if step.status is StepStatus.WAITING:
                self._happen(StepCancelled(step=name, attempt=step.attempt))
        self._directives.extend(_stops(self._state, 0))

    def _unlock(self, name: str) -> None:
        self._advance(self._machine.graph.dependents[name])

    def _advance(self, candidates: Iterable[str]) -> None:
        """Start those of `candidates` that are ready; a skipped or tolerated one makes its dependents candidates."""
        queue = list(candidates)
        for name in queue:  # grows while it is walked
            state = self._state
            if state.ending is not None:
                return
            if name in state.steps or state.waiting_for.get(name, 0) > 0:
                continue
            spec = self._machine.spec(name)
            try:
                wanted, step_input = self._machine.evaluate_step(state, spec)
            except ExpressionFailed as error:
                self._fail(name, 0, error.to_info(), Usage())
                continue
            if wanted:
                self._launch(spec, 1, step_input)
            else:
                self._happen(StepSkipped(step=name))
                queue.extend(self._machine.graph.dependents[name])

    def _launch(self, spec: StepSpec, attempt: int, step_input: JsonValue) -> None:
        run_id = self._state.started_event.run_id
        event = StepStarted(
            step=spec.id,
            attempt=attempt,
            task_id=derive_id("task", run_id, spec.id, attempt),
            target_kind="agent" if spec.agent else "tool",
            target=spec.target,
            input=step_input,
            deadline_at=self._now + timedelta(seconds=spec.timeout_s) if spec.timeout_s else None,
        )
        self._happen(event)
        self._directives.append(DispatchTask(task_of(self._state, event)))

    def _settle(self) -> None:
        """End the run if nothing is left to wait for."""
        state = self._state
        if state.terminal or state.open:
            return
        if state.ending is not None:
            self._happen(_last_event(state.ending, state.usage))
        else:  # nothing is open and nothing failed: in a graph without cycles, every step has then ended
            self._complete(state)

    def _complete(self, state: RunState) -> None:
        try:
            output = self._machine.evaluate_output(state)
        except ExpressionFailed as error:
            self._happen(RunFailing(outcome="failed", error=error.to_info()))
            self._happen(RunFailed(error=error.to_info(), usage=state.usage))
            return
        if state.tolerated:
            self._happen(RunDegraded(output=output, failed_steps=state.tolerated, usage=state.usage))
        else:
            self._happen(RunCompleted(output=output, usage=state.usage))

    def _happen(self, event: RunEvent) -> None:
        if self._draft is None:
            self._draft = self._before.draft()
        apply(self._draft, event, self._now)
        self._events.append(event)


def fitting(value: JsonValue) -> JsonValue:
    """`value`, which an expression gave, if it fits into a message. What is whole in several outputs may not in one.

    Raises
    ------
    ExpressionFailed
        If it has more than `MOST_BYTES` as JSON. It could be neither handed to a worker nor told of.
    """
    size = len(to_json(value))
    if size > MOST_BYTES:
        raise ExpressionFailed(f"the result has {size:,} bytes, and at most {MOST_BYTES:,} fit into a message")
    return value


def task_of(state: RunState, event: StepStarted) -> Task:
    """The task that `event` handed out. Its effect scope leaves out the attempt: effects are keyed by step."""
    started = state.started_event
    return Task(
        task_id=event.task_id or "",
        run_id=started.run_id,
        step=event.step,
        attempt=event.attempt,
        plan=started.plan,
        target_kind="agent" if event.target_kind == "agent" else "tool",
        target=event.target,
        input=event.input,
        effect_scope=event.step,
        deadline_at=soonest((event.deadline_at, started.deadline_at)),
    )


def task_of_step(state: RunState, spec: StepSpec, step: StepState) -> Task:
    """The task of a running step, as it was handed out."""
    return task_of(
        state,
        StepStarted(
            step=spec.id,
            attempt=step.attempt,
            task_id=step.task_id or derive_id("task", state.started_event.run_id, spec.id, step.attempt),
            target_kind="agent" if spec.agent else "tool",
            target=spec.target,
            input=step.input,
            deadline_at=step.due_at,
        ),
    )


def _runs(step: StepState | None, attempt: int) -> bool:
    return step is not None and step.status is StepStatus.RUNNING and step.attempt == attempt


def _stops(state: RunState, again: int) -> list[RunDirective]:
    reason = state.ending.outcome if state.ending else "cancelled"
    running = ((name, state.steps[name]) for name in state.open)
    return [_stop(state, name, step, reason, again) for name, step in running if step.status is StepStatus.RUNNING]


def _stop(state: RunState, name: str, step: StepState, reason: str, again: int) -> StopTask:
    run_id = state.started_event.run_id
    task_id = step.task_id or derive_id("task", run_id, name, step.attempt)
    return StopTask(CancelTask(task_id=task_id, run_id=run_id, step=name, attempt=step.attempt, reason=reason), again)


def _last_event(ending: Ending, usage: Usage) -> RunEvent:
    error = ending.error or ErrorInfo(code="internal", message="the run ended without saying why")
    match ending.outcome:
        case "cancelled":
            return RunCancelled(reason=ending.reason, usage=usage)
        case "failed":
            return RunFailed(error=error, usage=usage)
        case "timed_out":
            return RunTimedOut(error=error, usage=usage)
        case _ as unreachable:
            assert_never(unreachable)


def _named_by(step: StepSpec) -> tuple[str, ...]:
    """Names of the steps that the expressions of `step` refer to: all that they can see."""
    condition = read_condition(step.when).steps if step.when is not None else frozenset()
    return tuple(sorted(references(step.input) | condition))


def _visible(step: StepState) -> dict[str, Any]:
    """A step as expressions see it."""
    return {
        "output": step.output,
        "status": step.status.value,
        "error": step.error.model_dump(mode="json") if step.error else None,
    }
