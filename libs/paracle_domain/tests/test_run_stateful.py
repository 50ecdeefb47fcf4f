"""Random workflows of all kinds, lived through in any order, against the plain rules of `run_model`."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from run_driver import BROKEN, FLAKY, RUN_ID, Driver, end_of, plan, result_of
from run_graphs import workflows
from run_model import Model

from paracle_domain.ids import id_from_key
from paracle_domain.run.commands import ApprovalStatus, ApprovalView, Parent, RunStatus
from paracle_domain.run.directives import (
    CancelChild,
    DispatchTask,
    RunDirective,
    ShowApproval,
    StartChild,
    StopTask,
    TellParent,
)
from paracle_domain.run.events import StepStarted
from paracle_domain.run.folding import evolve
from paracle_domain.run.forking import kept_steps
from paracle_domain.run.inbox import Admit, Decide, Pause, Resume, RunMessage, Signal
from paracle_domain.run.machine import RunMachine
from paracle_domain.run.messages import ChildEnded, ChildStart
from paracle_domain.task.messages import Task, TaskStatus

PARENT = Parent(run_id=id_from_key("run", "p"), step="x", attempt=1, root_run_id=id_from_key("run", "p"), depth=1)
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

    @initialize(spec=workflows(), yes=st.booleans(), silent=st.booleans(), queued=st.booleans(), child=st.booleans())
    def begin(self, spec: dict[str, Any], yes: bool, silent: bool, queued: bool, child: bool) -> None:
        self.silent = silent
        self.told: list[ChildEnded] = []
        steps = spec.pop("steps")
        self.run = Driver(RunMachine(plan(*steps, **spec)))
        self.model = Model(self.run.machine.plan.workflow.spec)
        self.replayed = self.run.machine.new()
        parent = PARENT if child else None
        self._carry_on(self.run.begin({"yes": yes}, queued=queued and not child, parent=parent))

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
            case TellParent(message=told):
                assert self.run.state.terminal
                self.told.append(told)
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
        late=st.sampled_from([0, 0, 31]),
    )
    def decide(self, pick: int, by: str, verdict: Any, right: bool, late: int) -> None:
        """Somebody decides, perhaps before anybody has looked at the clock again."""
        self.run.now += timedelta(seconds=late)
        shown = list(self.approvals.values())[pick % len(self.approvals)]
        digest = shown.digest if right else "sha256:else"
        message = Decide(by, ("boss",), shown.approval_id, digest, verdict)
        objection = self.run.machine.objection(self.run.state, message, self.run.now)
        before = len(self.run.events)
        self.said.append(message)
        self._tell(message)
        counted = "approval.decided" in {event.type for event in self.run.events[before:]}
        expires_at = self.approvals[shown.approval_id].expires_at
        assert not counted or (objection is None and (expires_at is None or expires_at > self.run.now))
        assert right or objection is not None

    @rule()
    def admit(self) -> None:
        self._tell(Admit())

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
                assert len(self.told) == (self.run.state.started_event.parent is not None)
                return
            self._tell(Resume("bob"))
            self._tell(Admit())
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


@settings(max_examples=100, suppress_health_check=list(HealthCheck))
@given(spec=workflows(), pick=st.integers(0, 10), how=st.sampled_from(ANSWERS), seed=st.integers(0, 2**16))
def test_a_fork_of_any_run_keeps_only_what_is_sound_and_ends(
    spec: dict[str, Any], pick: int, how: str, seed: int
) -> None:
    steps = spec.pop("steps")
    old = Driver(RunMachine(plan(*steps, **spec)))
    old.begin({"yes": True})
    live_out(old, random.Random(seed), how)
    graph = old.machine.graph
    from_step = graph.order[pick % len(graph.order)]
    kept = kept_steps(old.state, old.machine.plan, old.machine.plan, graph, from_step, {"yes": True})
    assert from_step not in {event.step for event in kept}
    assert all(old.state.steps[event.step].compensation is None for event in kept)
    new, model = Driver(old.machine), Model(old.machine.plan.workflow.spec)
    new.begin({"yes": True}, kept=kept, forked_from=RUN_ID)
    live_out(new, random.Random(seed), "completed")
    for event in new.events:
        model.see(event)
    assert model.end
    assert not {step for event in kept if (step := event.step) in {work.partition("[")[0] for work in started(new)}}


def started(run: Driver) -> list[str]:
    return [event.step for event in run.events if isinstance(event, StepStarted)]


def live_out(run: Driver, choose: random.Random, how: str) -> None:
    """Answer all that a run asks for, now and then with `how`, until it has ended."""
    answered = 0
    for turn in range(500):
        if run.state.terminal:
            return
        run.signal("go", message=str(turn))
        for item in run.directives[answered:]:
            answered += 1
            match item:
                case DispatchTask(task=work) | StartChild(message=work):
                    run.tell(answer_to(work, how if choose.random() < 0.3 else "completed"))
                case ShowApproval(approval=shown) if shown.status is ApprovalStatus.OPEN:
                    for by in ("ann", "bob"):
                        run.tell(Decide(by, ("boss",), shown.approval_id, shown.digest, "approve"))
                case _:
                    pass
        run.tick(0 if run.wake_at is None else max(0.0, (run.wake_at - run.now).total_seconds()))
    raise AssertionError(f"the run did not end: {run.types[:100]}")


Lives.TestCase.settings = settings(max_examples=150, stateful_step_count=30, suppress_health_check=list(HealthCheck))
TestLives = Lives.TestCase
