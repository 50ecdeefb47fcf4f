"""Runs for tests: plans in a line each, and a driver that plays the worker pool."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from paracle_domain.errors import ErrorInfo
from paracle_domain.ids import id_from_key
from paracle_domain.inference.usage import Usage
from paracle_domain.plan import Plan, PlannedWorkflow
from paracle_domain.run.commands import ApprovalView, CancelRun, RunStatus, StartRun, StepStatus, Verdict
from paracle_domain.run.directives import (
    CancelChild,
    DispatchTask,
    RunDirective,
    ShowApproval,
    StartChild,
    StopTask,
)
from paracle_domain.run.events import RunEvent
from paracle_domain.run.inbox import Begin, Cancel, Decide, RunMessage, Signal, Tick
from paracle_domain.run.machine import RunMachine, Transition
from paracle_domain.run.messages import ChildEnded, ChildStart
from paracle_domain.run.state import RunState
from paracle_domain.task.messages import Task, TaskResult, TaskStatus
from paracle_domain.workflow.spec import KINDS, WorkflowSpec

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
RUN_ID = id_from_key("run", "test")
FLAKY = ErrorInfo(code="tool_unavailable", message="busy", retryable=True)
BROKEN = ErrorInfo(code="tool_failed", message="no such account")


def plan(*steps: dict[str, Any], **spec: Any) -> Plan:
    """A plan of one workflow; each step runs the tool `t` unless it says otherwise. Children are all the same."""
    full = [step if any(kind in step for kind in KINDS) else {"tool": "t", **step} for step in steps]
    whole = WorkflowSpec.model_validate({"steps": full, **spec})
    children = {work.target: CHILD for _, work in whole.works() if work.workflow is not None}
    return Plan.pin(PlannedWorkflow(name="w", revision=1, spec=whole), {}, {}, children)


CHILD = Plan.pin(
    PlannedWorkflow(name="child", revision=3, spec=WorkflowSpec.model_validate({"steps": [{"id": "a", "tool": "t"}]})),
    {},
    {},
)


@dataclass
class Driver:
    """One run, its clock, and everything that it said so far."""

    machine: RunMachine
    now: datetime = EPOCH
    state: RunState = field(init=False)
    wake_at: datetime | None = None
    events: list[RunEvent] = field(default_factory=list)
    directives: list[RunDirective] = field(default_factory=list)
    pages: list[tuple[datetime, tuple[RunEvent, ...]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.state = self.machine.new()

    def tell(self, message: RunMessage) -> Transition:
        made = self.machine.decide(self.state, message, self.now, self.wake_at)
        self.state, self.wake_at = made.state, made.wake_at
        self.events += made.events
        self.directives += made.directives
        if made.events:
            self.pages.append((self.now, made.events))
        return made

    def begin(self, value: Any = None, labels: dict[str, str] | None = None, **more: Any) -> Transition:
        command = StartRun(workflow="w", input=value or {}, labels=labels or {})
        return self.tell(Begin(RUN_ID, "default", "ada", command, **more))

    def cancel(self, reason: str = "enough") -> Transition:
        return self.tell(Cancel("ada", CancelRun(run_id=RUN_ID, reason=reason)))

    def tick(self, seconds: float = 0) -> Transition:
        self.now += timedelta(seconds=seconds)
        return self.tell(Tick())

    def task(self, step: str) -> Task:
        """The newest task that was handed out for `step`."""
        tasks = [item.task for item in self.directives if isinstance(item, DispatchTask) and item.task.step == step]
        return tasks[-1]

    def finish(self, step: str, output: Any = None, usage: Usage | None = None) -> Transition:
        return self.tell(result_of(self.task(step), TaskStatus.COMPLETED, output=output, usage=usage or Usage()))

    def fail(self, step: str, error: ErrorInfo = BROKEN, status: TaskStatus = TaskStatus.FAILED) -> Transition:
        return self.tell(result_of(self.task(step), status, error=error))

    def stopped(self, step: str) -> Transition:
        return self.tell(result_of(self.task(step), TaskStatus.CANCELLED))

    def signal(self, name: str, payload: Any = None, message: str = "1") -> Transition:
        return self.tell(Signal(f"{name}.{message}", name, payload, "bob"))

    def decide(self, step: str, decision: Verdict = "approve", by: str = "ann", **more: Any) -> Transition:
        return self.tell(self.decision(step, decision, by, **more))

    def decision(
        self,
        step: str,
        decision: Verdict = "approve",
        by: str = "ann",
        *,
        roles: tuple[str, ...] = (),
        digest: str | None = None,
        reason: str = "",
    ) -> Decide:
        """A decision upon the approval of `step`, as it was shown last."""
        shown = self.approval(step)
        return Decide(by, roles, shown.approval_id, digest or shown.digest, decision, reason)

    def approval(self, step: str) -> ApprovalView:
        """The approval of `step`, as it was shown last."""
        return [
            item.approval for item in self.directives if isinstance(item, ShowApproval) and item.approval.step == step
        ][-1]

    def child(self, step: str) -> ChildStart:
        """The newest child run that was started for `step`."""
        return [
            item.message
            for item in self.directives
            if isinstance(item, StartChild) and item.message.parent.step == step
        ][-1]

    def child_ended(self, step: str, status: RunStatus = RunStatus.COMPLETED, **more: Any) -> Transition:
        return self.tell(end_of(self.child(step), status, **more))

    def status(self, path: str) -> StepStatus | None:
        """How the step, item, iteration or compensation at `path` stands, if it has begun."""
        found = self.state.find(path)
        return None if found is None else found.status

    @property
    def types(self) -> list[str]:
        return [f"{event.type}:{step}" if (step := getattr(event, "step", "")) else event.type for event in self.events]

    @property
    def stops(self) -> list[str]:
        return [item.command.step for item in self.directives if isinstance(item, StopTask)]

    @property
    def cancelled_children(self) -> list[str]:
        return [item.message.start.parent.step for item in self.directives if isinstance(item, CancelChild)]


def result_of(task: Task, status: TaskStatus, **more: Any) -> TaskResult:
    return TaskResult(
        task_id=task.task_id, run_id=task.run_id, step=task.step, attempt=task.attempt, status=status, **more
    )


def end_of(child: ChildStart, status: RunStatus, **more: Any) -> ChildEnded:
    return ChildEnded(
        run_id=child.parent.run_id,
        step=child.parent.step,
        attempt=child.parent.attempt,
        child_run_id=child.run_id,
        status=status,
        **more,
    )


def drive(*steps: dict[str, Any], **spec: Any) -> Driver:
    """A driver of a run that has not begun."""
    return Driver(RunMachine(plan(*steps, **spec)))
