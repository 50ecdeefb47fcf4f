"""Properties of the run machine: random graphs, random outcomes, any order of messages, any duplication."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, get_args
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from run_driver import BROKEN, FLAKY, Driver, plan, result_of

from paracle_domain.inference.usage import Usage
from paracle_domain.run.commands import StepStatus
from paracle_domain.run.directives import DispatchTask, RunDirective, StopTask
from paracle_domain.run.events import RunEvent, decode_event
from paracle_domain.run.folding import evolve
from paracle_domain.run.machine import RunMachine
from paracle_domain.run.state import RunState
from paracle_domain.task.messages import TaskResult, TaskStatus

EVENTS = [kind.type_name for kind in get_args(RunEvent.__value__)]
GOLDEN = Path(__file__).parent / "golden" / "v1"


@st.composite
def graphs(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Up to eight steps, each needing some of those before it."""
    steps: list[dict[str, Any]] = []
    for number in range(draw(st.integers(1, 8))):
        needs = (
            draw(st.lists(st.sampled_from([step["id"] for step in steps]), unique=True, max_size=3)) if steps else []
        )
        step: dict[str, Any] = {
            "id": f"s{number}",
            "needs": needs,
            "on_error": draw(st.sampled_from(["fail", "continue"])),
        }
        if draw(st.integers(0, 4)) == 0:
            step["when"] = draw(st.sampled_from(["input.yes", "not input.yes"]))
        if draw(st.booleans()):
            step["retry"] = {"max_attempts": draw(st.integers(1, 3)), "initial_s": 1, "jitter": 0}
        if draw(st.integers(0, 3)) == 0:
            step["timeout_s"] = 60
        steps.append(step)
    return steps


outcomes = st.sampled_from(["completed", "completed", "completed", "failed", "flaky", "cancelled", "lost"])


class World:
    """A worker pool that answers in any order, more than once, or never."""

    def __init__(self, driver: Driver, choose: random.Random, outcome_of: list[str]) -> None:
        self.driver = driver
        self._choose = choose
        self._outcomes = outcome_of
        self._taken = 0
        self.mailbox: list[TaskResult] = []
        self.done: list[TaskResult] = []
        self.started: list[str] = []

    def turn(self) -> None:
        """Carry out the directives, then deliver one message, an old one again, or a tick."""
        for directive in self.driver.directives[self._taken :]:
            self._carry_out(directive)
        self._taken = len(self.driver.directives)
        kind = self._choose.random()
        if self.mailbox and kind < 0.7:
            message = self.mailbox.pop(self._choose.randrange(len(self.mailbox)))
            self.done.append(message)
            self.driver.tell(message)
        elif self.done and kind < 0.8:
            self.driver.tell(self._choose.choice(self.done))
        else:
            self.driver.tick(self._choose.choice([1, 5, 31]))

    def _carry_out(self, directive: RunDirective) -> None:
        if isinstance(directive, StopTask):
            command = directive.command
            task = self.driver.task(command.step)
            self.mailbox.append(result_of(task, TaskStatus.CANCELLED))
            return
        assert isinstance(directive, DispatchTask)
        task = directive.task
        self.started.append(task.task_id)
        key = f"{task.step}.{task.attempt}"
        match self._outcomes[crc32(key.encode()) % len(self._outcomes)]:
            case "completed":
                self.mailbox.append(result_of(task, TaskStatus.COMPLETED, output={"of": task.step}))
            case "failed":
                self.mailbox.append(result_of(task, TaskStatus.FAILED, error=BROKEN))
            case "flaky":
                self.mailbox.append(result_of(task, TaskStatus.FAILED, error=FLAKY))
            case "cancelled":
                self.mailbox.append(result_of(task, TaskStatus.CANCELLED))
            case _ if directive.again >= 2:
                self.mailbox.append(result_of(task, TaskStatus.COMPLETED, output={"of": task.step}))
            case _:
                pass


def live(steps: list[dict[str, Any]], outcome_of: list[str], seed: int, *, cancel_after: int | None) -> Driver:
    """A run, lived to its end."""
    driver = Driver(RunMachine(plan(*steps)))
    driver.begin({"yes": True})
    world = World(driver, random.Random(seed), outcome_of)
    for turn in range(4_000):
        if turn == cancel_after:
            driver.cancel()
        if driver.state.terminal:
            return driver
        world.turn()
    raise AssertionError(f"the run did not end: {driver.types}")


cases = {
    "steps": graphs(),
    "outcome_of": st.lists(outcomes, min_size=1, max_size=8),
    "seed": st.integers(0, 2**16),
    "cancel_after": st.one_of(st.none(), st.integers(0, 12)),
}


@settings(max_examples=150)
@given(**cases)
def test_every_run_ends_once_and_keeps_the_rules(
    steps: list[dict[str, Any]], outcome_of: list[str], seed: int, cancel_after: int | None
) -> None:
    run = live(steps, outcome_of, seed, cancel_after=cancel_after)
    ends = [
        event
        for event in run.events
        if event.type in {"run.completed", "run.degraded", "run.failed", "run.cancelled", "run.timed_out"}
    ]
    assert len(ends) == 1
    assert run.events[-1] is ends[0]
    assert run.state.seq == len(run.events)
    assert not run.state.table.open
    _check_order(steps, run)
    _check_success(run)


def _check_order(steps: list[dict[str, Any]], run: Driver) -> None:
    """No step before its needs; none ends twice; none starts after an ending began."""
    needs = {step["id"]: step["needs"] for step in steps}
    ended: set[str] = set()
    ending = False
    for event in run.events:
        step: str = getattr(event, "step", "")
        if event.type in {"run.failing", "run.cancelling"}:
            ending = True
        elif event.type == "step.started":
            assert not ending
            assert ended >= set(needs[step])
            assert step not in ended
        elif event.type in {"step.completed", "step.failed", "step.skipped", "step.cancelled", "step.timed_out"}:
            assert step not in ended
            ended.add(step)


def _check_success(run: Driver) -> None:
    """`completed` means that nothing failed (P3)."""
    failed = {
        name for name, step in run.state.steps.items() if step.status in {StepStatus.FAILED, StepStatus.TIMED_OUT}
    }
    if run.state.status == "completed":
        assert not failed
    if run.state.status == "degraded":
        assert failed == set(run.state.tolerated)


@settings(max_examples=75)
@given(**cases)
def test_replay_equals_live(
    steps: list[dict[str, Any]], outcome_of: list[str], seed: int, cancel_after: int | None
) -> None:
    run = live(steps, outcome_of, seed, cancel_after=cancel_after)
    state = run.machine.new()
    for at, events in run.pages:
        state = evolve(state, [decode_event(event.encode()) for event in events], at)
    assert state == run.state


@settings(max_examples=75)
@given(**cases, late=st.integers(0, 5))
def test_terminal_states_absorb(
    steps: list[dict[str, Any]], outcome_of: list[str], seed: int, cancel_after: int | None, late: int
) -> None:
    run = live(steps, outcome_of, seed, cancel_after=cancel_after)
    before: RunState = replace(run.state)
    for directive in run.directives:
        if isinstance(directive, DispatchTask):
            status = [TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED, TaskStatus.TIMED_OUT][late % 4]
            assert run.tell(result_of(directive.task, status)).events == ()
    assert run.cancel().events == ()
    made = run.tick(1_000)
    assert (made.events, made.directives, made.wake_at) == ((), (), None)
    assert run.state == before


@settings(max_examples=50)
@given(steps=graphs(), seeds=st.tuples(st.integers(0, 2**16), st.integers(0, 2**16)))
def test_any_order_of_messages_gives_the_same_end(steps: list[dict[str, Any]], seeds: tuple[int, int]) -> None:
    for step in steps:
        step.pop("timeout_s", None)
    first, second = (live(steps, ["completed"], seed, cancel_after=None) for seed in seeds)
    assert first.state.status == second.state.status
    assert {n: (s.status, s.output) for n, s in first.state.steps.items()} == {
        n: (s.status, s.output) for n, s in second.state.steps.items()
    }


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("run_*.json")), ids=lambda path: path.stem)
def test_golden_streams_load_and_fold(path: Path) -> None:
    """Histories written by version 1.0 must fold to the same runs for ever."""
    golden = json.loads(path.read_text("utf-8"))
    spec = golden["workflow"]
    machine = RunMachine(plan(*spec.pop("steps"), **spec))
    state = machine.new()
    for page in golden["pages"]:
        events = [decode_event(json.dumps(event).encode()) for event in page["events"]]
        state = evolve(state, events, datetime.fromisoformat(page["at"]))
    assert state.status == golden["status"]
    assert state.output == golden["output"]
    assert {name: [step.status, step.attempt, step.output] for name, step in state.steps.items()} == golden["steps"]
    for step, expected in golden.get("paths", {}).items():
        found = state.find(step)
        assert found is not None
        assert [found.status, found.attempt, found.output] == expected
    assert state.usage == Usage.model_validate(golden["usage"])  # which knows fields of later days by their defaults
    seen = {event["type"] for page in golden["pages"] for event in page["events"]}
    assert seen <= set(EVENTS)


def test_every_event_is_in_a_golden_stream() -> None:
    pages = [page for path in GOLDEN.glob("run_*.json") for page in json.loads(path.read_text("utf-8"))["pages"]]
    assert {event["type"] for page in pages for event in page["events"]} == set(EVENTS)
