"""Random workflows of all kinds, lived through in any order, against the plain rules of `run_model`."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from run_driver import BROKEN, FLAKY, Driver, end_of, plan, result_of
from run_graphs import workflows
from run_model import Model

from paracle_domain.run.commands import ApprovalStatus, ApprovalView, RunStatus
from paracle_domain.run.directives import (
    CancelChild,
    DispatchTask,
    RunDirective,
    ShowApproval,
    StartChild,
    StopTask,
)
from paracle_domain.run.events import StepStarted
from paracle_domain.run.folding import evolve
from paracle_domain.run.inbox import Decide, Pause, Resume, RunMessage, Signal
from paracle_domain.run.machine import RunMachine
from paracle_domain.run.messages import ChildStart
from paracle_domain.task.messages import Task, TaskStatus

ANSWERS = ("completed", "completed", "completed", "failed", "flaky", "cancelled", "timed_out")


class Lives(RuleBasedStateMachine):
    """One run; the rules are what can happen to it from outside, in any order and as often as it likes."""

    def __init__(self) -> None:
        super().__init__()
        self.work: dict[str, Task | ChildStart] = {}
        self.said: list[RunMessage] = []
        self.sent: set[str] = set()
        self.approvals: dict[str, ApprovalView] = {}
        self.signals = 0

    @initialize(spec=workflows(), yes=st.booleans(), silent=st.booleans())
    def begin(self, spec: dict[str, Any], yes: bool, silent: bool) -> None:
        self.silent = silent
        steps = spec.pop("steps")
        self.run = Driver(RunMachine(plan(*steps, **spec)))
        self.model = Model(self.run.machine.plan.workflow.spec)
        self.replayed = self.run.machine.new()
        self._carry_on(self.run.begin({"yes": yes}))

    def _tell(self, message: RunMessage) -> None:
        """Tell it twice from the same state: the answer is the same, and so deciding has changed nothing."""
        first = self.run.machine.decide(self.run.state, message, self.run.now, self.run.wake_at)
        again = self.run.tell(message)
        assert (first.events, first.directives, first.wake_at) == (again.events, again.directives, again.wake_at)
        assert first.state == again.state
        self._carry_on(again)

    def _carry_on(self, made: Any) -> None:
        for event in made.events:
            self.model.see(event)
        for directive in made.directives:
            self._take(directive)
        self.replayed = evolve(self.replayed, made.events, self.run.now)
        assert self.replayed == self.run.state

    def _take(self, directive: RunDirective) -> None:
        match directive:
            case DispatchTask(task=task):
                assert directive.message_id not in self.sent or directive.again
                self.work.setdefault(task.task_id, task)
            case StartChild(message=child):
                self.work.setdefault(child.run_id, child)
            case StopTask(command=command):
                assert command.task_id in self.work
            case CancelChild(message=cancel):
                assert self.work[cancel.start.run_id] == cancel.start
            case ShowApproval(approval=approval):
                self.approvals[approval.approval_id] = approval
                return
            case _:
                pass
        self.sent.add(directive.message_id)

    @precondition(lambda self: self.work)
    @rule(pick=st.integers(0, 100), how=st.sampled_from(ANSWERS))
    def answer(self, pick: int, how: str) -> None:
        """Some work is answered, whether anybody still waits for it or not."""
        message = answer_to(list(self.work.values())[pick % len(self.work)], how)
        self.said.append(message)
        self._tell(message)

    @precondition(lambda self: self.said)
    @rule(pick=st.integers(0, 100))
    def repeat(self, pick: int) -> None:
        """A message comes again."""
        self._tell(self.said[pick % len(self.said)])

    @rule(seconds=st.sampled_from([0, 1, 5, 31, 100, 10_000]))
    def wait(self, seconds: int) -> None:
        """Time goes by, if need be in jumps."""
        self.run.now += timedelta(seconds=seconds)
        self._carry_on(self.run.tick())

    @rule()
    def wake(self) -> None:
        """The run is woken when it wants to be."""
        if self.run.wake_at is not None:
            self.run.now = max(self.run.now, self.run.wake_at)
            self._carry_on(self.run.tick())

    @rule(name=st.sampled_from(["go", "other"]))
    def signal(self, name: str) -> None:
        self.signals += 1
        message = Signal(f"m{self.signals}", name, self.signals, "bob")
        self.said.append(message)
        self._tell(message)

    @precondition(lambda self: self.approvals)
    @rule(
        pick=st.integers(0, 10),
        by=st.sampled_from(["ann", "bob", "ada"]),
        verdict=st.sampled_from(["approve", "approve", "reject"]),
        right=st.booleans(),
    )
    def decide(self, pick: int, by: str, verdict: Any, right: bool) -> None:
        shown = list(self.approvals.values())[pick % len(self.approvals)]
        digest = shown.digest if right else "sha256:else"
        message = Decide(by, ("boss",), shown.approval_id, digest, verdict)
        objection = self.run.machine.objection(self.run.state, message)
        before = self.run.state.seq
        self.said.append(message)
        self._tell(message)
        assert objection is None or self.run.state.seq == before
        assert right or objection is not None

    @rule()
    def pause(self) -> None:
        self._tell(Pause("bob"))

    @rule()
    def resume(self) -> None:
        self._tell(Resume("bob"))

    @rule(really=st.integers(0, 5))
    def cancel(self, really: int) -> None:
        if really == 0:
            self._carry_on(self.run.cancel())

    @invariant()
    def what_runs_can_be_said_again(self) -> None:
        """And nothing else: only ids that were sent, and each attempt that still runs."""
        state, machine = self.run.state, self.run.machine
        again = machine.again(state, self.run.events)
        assert {item.message_id for item in again if not isinstance(item, ShowApproval)} <= self.sent
        handed_out = {item.message_id for item in again if isinstance(item, DispatchTask | StartChild)}
        running = {
            event.task_id or f"{event.child_run_id}.start"
            for event in self.run.events
            if isinstance(event, StepStarted) and self._runs(event)
        }
        assert running == handed_out
        if state.terminal:
            assert not running
            assert self.run.wake_at is None

    def _runs(self, event: StepStarted) -> bool:
        step = self.run.state.find(event.step)
        return step is not None and step.status == "running" and step.attempt == event.attempt

    def teardown(self) -> None:
        """Answer everything, or cancel and let no worker answer but those that undo: either way the run ends."""
        if not hasattr(self, "run"):
            return
        if self.silent:
            self._carry_on(self.run.cancel())
        for _ in range(500):
            if self.run.state.terminal:
                assert self.model.end
                return
            self._tell(Resume("bob"))
            self.signal("go")
            self._approve()
            for item in list(self.work.values()):
                if not self.silent or isinstance(item, ChildStart) or item.step.endswith(".compensate"):
                    self._tell(answer_to(item, "completed"))
            self.wake()
        raise AssertionError(f"the run did not end: {self.run.types[:100]}")

    def _approve(self) -> None:
        for shown in list(self.approvals.values()):
            if shown.status is ApprovalStatus.OPEN:
                for by in ("ann", "bob"):
                    self._tell(Decide(by, ("boss",), shown.approval_id, shown.digest, "approve"))


def answer_to(work: Task | ChildStart, how: str) -> RunMessage:
    """What a worker or a child run says at its end."""
    error = {"failed": BROKEN, "flaky": FLAKY, "timed_out": FLAKY}.get(how)
    if isinstance(work, ChildStart):
        status = RunStatus.FAILED if how == "flaky" else RunStatus(how)
        return end_of(work, status, output={"of": work.parent.step}, error=error)
    status_of_task = TaskStatus.FAILED if how == "flaky" else TaskStatus(how)
    return result_of(work, status_of_task, output={"of": work.step}, error=error)


Lives.TestCase.settings = settings(
    max_examples=150, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestLives = Lives.TestCase
