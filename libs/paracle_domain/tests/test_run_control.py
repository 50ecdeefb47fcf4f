"""Pausing and resuming, queues, limits of how much runs at once, and forks."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from run_driver import EPOCH, FLAKY, RUN_ID, Driver, drive, plan

from paracle_domain.errors import Conflict, LimitExceeded, NotFound
from paracle_domain.run.commands import CancelRun, RunStatus, StepStatus
from paracle_domain.run.forking import kept_steps
from paracle_domain.run.inbox import Admit, Cancel, Pause, Resume, Signal
from paracle_domain.run.machine import RunMachine
from paracle_domain.run.signals import MOST_KEPT
from paracle_domain.run.timing import REDISPATCH

CHAIN = ({"id": "a"}, {"id": "b", "needs": ["a"]}, {"id": "c", "needs": ["b"]})


def pause(run: Driver) -> None:
    run.tell(Pause("bob", "lunch"))


def resume(run: Driver) -> None:
    run.tell(Resume("bob"))


def test_a_paused_run_lets_finish_what_runs_and_starts_nothing() -> None:
    run = drive(*CHAIN)
    run.begin()
    pause(run)
    assert run.state.status is RunStatus.PAUSED
    run.finish("a")
    assert run.status("b") is None
    assert run.tell(Pause("bob")).events == ()
    resume(run)
    assert (run.state.status, run.status("b")) == (RunStatus.RUNNING, "running")
    assert run.tell(Resume("bob")).events == ()


def test_a_paused_run_whose_last_step_ends_has_ended() -> None:
    run = drive({"id": "a"})
    run.begin()
    pause(run)
    run.finish("a")
    assert run.state.status is RunStatus.COMPLETED


def test_timers_go_on_while_a_run_is_paused_and_start_nothing() -> None:
    run = drive(
        {"id": "a", "retry": {"max_attempts": 2, "initial_s": 5, "jitter": 0}},
        {"id": "w", "wait": {"for_s": 5}},
        {"id": "b", "needs": ["w"]},
        {"id": "each", "map": {"tool": "t", "over": [1, 2], "concurrency": 1}},
    )
    run.begin()
    run.fail("a", FLAKY)
    pause(run)
    run.finish("each[0]")
    run.tick(5)
    assert [run.status(name) for name in ("a", "w", "b", "each[1]")] == ["waiting", "completed", None, None]
    assert run.wake_at is None
    resume(run)
    assert [run.status(name) for name in ("a", "b", "each[1]")] == ["running"] * 3
    assert run.task("a").attempt == 2


def test_a_retry_that_is_not_due_when_the_run_is_resumed_still_waits() -> None:
    run = drive({"id": "a", "retry": {"max_attempts": 2, "initial_s": 5, "jitter": 0}}, {"id": "b"})
    run.begin()
    run.fail("a", FLAKY)
    pause(run)
    run.tick(1)
    assert run.wake_at is not None
    assert run.wake_at > EPOCH + timedelta(seconds=5)
    resume(run)
    assert run.status("a") == "waiting"
    assert run.wake_at == EPOCH + timedelta(seconds=5)
    run.tick(4)
    assert run.status("a") == "running"


def test_a_paused_run_can_be_cancelled_and_can_fail() -> None:
    run = drive({"id": "a"}, {"id": "b"})
    run.begin()
    pause(run)
    run.cancel()
    assert run.state.status is RunStatus.CANCELLING
    assert not run.state.aside.paused
    run = drive({"id": "a"}, {"id": "b"})
    run.begin()
    pause(run)
    run.fail("a")
    assert run.state.status is RunStatus.RUNNING
    assert run.stops == ["b"]


def test_a_loop_goes_on_when_its_run_is_resumed() -> None:
    run = drive({"id": "again", "loop": {"tool": "t", "max": 3, "until": "{{ iteration == 1 }}"}})
    run.begin()
    pause(run)
    run.finish("again[0]")
    assert run.status("again[1]") is None
    resume(run)
    run.finish("again[1]")
    assert run.state.status is RunStatus.COMPLETED


@pytest.mark.parametrize("message", [Pause("bob"), Resume("bob"), Signal("1", "go", None, "bob")])
def test_what_comes_after_the_end_is_a_conflict(message: Pause | Resume | Signal) -> None:
    run = drive({"id": "a", "wait": {"signal": "go"}})
    run.begin()
    assert run.machine.objection(run.state, message, run.now) is None
    run.signal("go", message="0")
    assert isinstance(run.machine.objection(run.state, message, run.now), Conflict)
    assert run.tell(message).events == ()
    assert run.machine.objection(run.state, Signal("go.0", "go", None, "bob"), run.now) is None


def test_signals_that_no_step_takes_are_bounded() -> None:
    first: dict[str, Any] = {"id": "first", "wait": {"signal": "go"}}
    run = drive(first, {"id": "second", "needs": ["first"], "wait": {"signal": "early"}})
    run.begin()
    for number in range(MOST_KEPT):
        assert run.signal("early", message=str(number)).events
    more, known = Signal("more", "early", None, "bob"), Signal("early.0", "early", None, "bob")
    assert isinstance(run.machine.objection(run.state, more, run.now), LimitExceeded)
    assert run.machine.objection(run.state, known, run.now) is None
    assert (run.tell(more).events, len(run.state.aside.signals)) == ((), MOST_KEPT)
    assert run.machine.objection(run.state, Signal("go.0", "go", None, "bob"), run.now) is None, "a step waits for it"
    run.signal("go", message="0")
    assert run.state.status is RunStatus.COMPLETED


def test_a_run_that_ends_cannot_be_paused() -> None:
    run = drive({"id": "a"})
    run.begin()
    run.cancel()
    assert isinstance(run.machine.objection(run.state, Pause("bob"), run.now), Conflict)
    assert run.machine.objection(run.state, Cancel("bob", CancelRun(run_id=RUN_ID)), run.now) is None


def test_a_queued_run_waits_to_be_admitted() -> None:
    run = drive({"id": "a"}, timeout_s=60)
    run.begin(queued=True, deadline_at=EPOCH + timedelta(hours=1))
    assert (run.state.status, run.types) == (RunStatus.QUEUED, ["run.started"])
    assert run.wake_at == EPOCH + timedelta(hours=1)
    run.now += timedelta(seconds=100)
    assert run.tick().events == ()
    run.tell(Admit())
    assert run.types[1:] == ["run.admitted", "step.started:a"]
    assert run.task("a").deadline_at == EPOCH + timedelta(seconds=160)
    assert run.tell(Admit()).events == ()


def test_a_queued_run_may_be_paused_cancelled_and_timed_out() -> None:
    run = drive({"id": "a"})
    run.begin(queued=True)
    pause(run)
    run.tell(Admit())
    assert (run.state.status, run.status("a")) == (RunStatus.PAUSED, None)
    resume(run)
    assert run.status("a") == "running"
    run = drive({"id": "a"})
    run.begin(queued=True)
    pause(run)
    resume(run)
    assert run.state.status is RunStatus.QUEUED
    run.cancel()
    assert run.types[-1] == "run.cancelled"
    run = drive({"id": "a"})
    run.begin(queued=True, deadline_at=EPOCH)
    run.tick()
    assert run.state.status is RunStatus.TIMED_OUT


def test_no_more_at_once_than_the_workflow_says() -> None:
    run = drive(*({"id": f"s{n}"} for n in range(5)), concurrency=2)
    run.begin()
    started: list[str] = []
    while not run.state.terminal:
        running = [name for name, step in run.state.steps.items() if step.status is StepStatus.RUNNING]
        assert len(running) <= 2
        assert run.state.flying == len(running)
        started += [name for name in running if name not in started]
        run.finish(running[0])
    assert started == [f"s{n}" for n in range(5)]


def test_what_does_no_work_needs_no_room() -> None:
    run = drive(
        {"id": "a"}, {"id": "ok", "approval": {"ask": "?"}}, {"id": "skipped", "when": "{{ false }}"}, concurrency=1
    )
    run.begin()
    assert [run.status(name) for name in ("a", "ok", "skipped")] == ["running", "waiting", None]
    run.finish("a")
    assert run.status("skipped") == "skipped"


def test_items_and_steps_share_the_room() -> None:
    run = drive(
        {"id": "each", "map": {"tool": "t", "over": [1, 2, 3]}},
        {"id": "other", "map": {"tool": "t", "over": [1]}},
        {"id": "a"},
        concurrency=2,
    )
    run.begin()
    assert [run.status(path) for path in ("each[0]", "each[1]", "a")] == ["running", "running", None]
    run.finish("each[0]")
    assert run.status("each[2]") == "running"
    run.finish("each[1]")
    assert run.status("a") == "running"
    run.finish("each[2]")
    assert run.status("other[0]") == "running"
    run.finish("a")
    run.finish("other[0]")
    assert run.state.status is RunStatus.COMPLETED


def test_a_retry_keeps_its_room() -> None:
    run = drive({"id": "a", "retry": {"max_attempts": 2}}, {"id": "b"}, concurrency=1)
    run.begin()
    run.fail("a", FLAKY)
    assert run.status("b") is None
    run.tick(REDISPATCH.total_seconds())
    run.finish("a")
    assert run.status("b") == "running"


def fork(run: Driver, from_step: str, machine: RunMachine | None = None, value: Any = None) -> Driver:
    new = Driver(machine or run.machine)
    kept = kept_steps(run.state, run.machine.plan, new.machine.plan, new.machine.graph, from_step, value or {})
    new.begin(value, forked_from=RUN_ID, kept=kept)
    return new


def test_a_fork_keeps_what_it_need_not_do_again() -> None:
    steps = (*CHAIN, {"id": "x"}, {"id": "y", "when": "{{ false }}"}, {"id": "z", "on_error": "continue"})
    run = drive(*steps, {"id": "after", "needs": ["z"]})
    run.begin()
    for name in ("a", "b", "x"):
        run.finish(name, output=name)
    run.fail("z")
    run.finish("after")
    run.fail("c")
    new = fork(run, "b")
    assert new.state.started_event.forked_from == RUN_ID
    assert [event.step for event in new.events if event.type == "step.kept"] == ["a", "x", "y"]
    assert [new.status(name) for name in ("b", "z", "c", "after")] == ["running", "running", None, None]
    assert new.state.steps["a"].output == "a"
    assert new.state.steps["a"].kept
    for name in ("b", "z", "c", "after"):
        new.finish(name)
    assert new.state.status is RunStatus.COMPLETED


def test_a_fork_of_a_run_that_stops_keeps_nothing_that_is_yet_to_be_undone() -> None:
    undo = {"compensate": {"tool": "undo"}}
    pay, book = {"id": "pay", "needs": ["look"], **undo}, {"id": "book", "needs": ["pay"], **undo}
    run = drive({"id": "look"}, pay, book, {"id": "ship", "needs": ["book"]}, {"id": "slow"})
    run.begin()
    for name in ("look", "pay", "book"):
        run.finish(name)
    again = fork(run, "book")
    assert again.status("pay") == "completed"
    run.fail("ship")
    assert kept_of(fork(run, "ship")) == ["look"]
    run.stopped("slow")
    assert kept_of(fork(run, "ship")) == ["look"]
    run.finish("book.compensate")
    assert kept_of(fork(run, "ship")) == ["look"]
    again.finish("book")
    again.fail("ship")
    assert kept_of(fork(again, "ship")) == ["look", "pay"]  # what a fork has kept it does not undo


def kept_of(run: Driver) -> list[str]:
    return [event.step for event in run.events if event.type == "step.kept"]


def test_a_fork_may_be_of_another_revision() -> None:
    run = drive(*CHAIN)
    run.begin()
    for name in "abc":
        run.finish(name, output=name)
    newer = RunMachine(plan({"id": "a"}, {"id": "n"}, {"id": "b", "needs": ["a", "n"]}, output="{{ steps.a.output }}"))
    new = fork(run, "b", newer)
    assert new.types == ["run.started", "step.kept:a", "step.started:n"]
    with pytest.raises(NotFound, match="there is no step 'c'"):
        kept_steps(run.state, run.machine.plan, newer.plan, newer.graph, "c", {})


@pytest.mark.parametrize("output", [{"case": "small"}, {"case": ["little"]}, "little"])
def test_a_switch_that_does_not_know_what_was_chosen_chooses_anew_in_a_fork(output: Any) -> None:
    """Otherwise the steps of its default would run, though a case holds. It may have been a step of another kind."""
    cases = [{"name": name, "when": f"{{{{ input.size == '{name}' }}}}", "then": ["p"]} for name in ("large", "little")]
    way = {"id": "way", "switch": {"cases": cases, "default": ["q"]}}
    run = drive({"id": "way"}, {"id": "p"}, {"id": "q"}, {"id": "z"})
    run.begin()
    run.finish("way", output=output)
    new = fork(run, "z", RunMachine(plan(way, {"id": "p"}, {"id": "q"}, {"id": "z"})), {"size": "little"})
    assert new.state.steps["way"].output == {"case": "little"}
    assert [new.status(name) for name in ("p", "q")] == ["running", "skipped"]


def test_a_fork_keeps_the_choice_of_a_switch_and_its_degradation() -> None:
    way = {"id": "way", "switch": {"cases": [{"name": "x", "when": "{{ true }}", "then": ["p"]}], "default": ["q"]}}
    run = drive(way, {"id": "p"}, {"id": "q"}, {"id": "child", "workflow": "child"})
    run.begin()
    run.child_ended("child", RunStatus.DEGRADED)
    run.fail("p")
    new = fork(run, "q")
    assert (new.status("p"), new.status("q")) == ("running", "skipped")
    new.finish("p")
    assert new.state.status is RunStatus.DEGRADED


def test_a_fork_does_again_what_was_undone_and_undoes_only_its_own() -> None:
    run = drive({"id": "a", "compensate": {"tool": "undo"}}, {"id": "b", "needs": ["a"]})
    run.begin()
    run.finish("a")
    run.fail("b")
    run.finish("a.compensate")
    assert fork(run, "b").status("a") == "running"
    run = drive({"id": "a", "compensate": {"tool": "undo"}}, {"id": "b", "needs": ["a"]})
    run.begin()
    run.finish("a")
    new = fork(run, "b")
    new.fail("b")
    assert new.state.status is RunStatus.FAILED


ASKING = (
    {"id": "a"},
    {"id": "ok", "needs": ["a"], "when": "{{ input.n > 20 }}", "approval": {"ask": "{{ input.n }}?"}},
    {"id": "pause", "needs": ["ok"], "wait": {"for_s": 0}},
    {"id": "pay", "needs": ["pause"]},
    {"id": "note", "needs": ["ok"]},
    {"id": "last", "needs": ["pay"]},
)


def paid(n: int, *, fails: str = "") -> Driver:
    """A run that was approved, if that was wanted, and did all, or failed at one step."""
    run = drive(*ASKING)
    run.begin({"n": n})
    run.finish("a")
    if n > 20:
        run.decide("ok")
    for name in ("pay", "note", "last"):
        if run.status(name) == "running":
            run.fail(name) if name == fails else run.finish(name)
    return run


def kept_by(new: Driver) -> set[str]:
    return {event.step for event in new.events if event.type == "step.kept"}


def test_a_fork_asks_again_before_it_does_what_was_approved_for_the_old_run() -> None:
    for run in (paid(50), paid(50, fails="pay")):
        new = fork(run, "pay", value={"n": 50})
        assert "a" in kept_by(new)
        assert (new.status("ok"), new.status("pause"), new.status("pay")) == ("waiting", None, None)
        new.decide("ok")
        assert new.status("pay") == "running"


def test_a_fork_does_not_ask_again_for_what_is_done() -> None:
    run = paid(50)
    for value in ({"n": 50}, {"n": 60}):
        new = fork(run, "last", value=value)
        assert kept_by(new) == {"a", "ok", "pause", "pay", "note"}
        assert new.status("last") == "running"


def test_what_a_fork_does_anew_from_between_is_asked_again() -> None:
    new = fork(paid(50), "pause", value={"n": 50})
    assert kept_by(new) == {"a", "note"}
    assert new.status("ok") == "waiting"


def test_a_fork_asks_if_another_input_wants_it() -> None:
    run = paid(10)
    assert run.status("ok") == "skipped"
    same, more = fork(run, "pay", value={"n": 10}), fork(run, "pay", value={"n": 50})
    assert (same.status("ok"), same.status("pay")) == ("skipped", "running")
    assert (more.status("ok"), more.status("pay")) == ("waiting", None)
    assert kept_by(more) == {"a", "note"}
    less = fork(paid(50), "pay", value={"n": 10})
    assert (less.status("ok"), less.status("pay")) == ("skipped", "running")


def test_what_was_skipped_guards_nothing_by_itself() -> None:
    steps = (
        {"id": "ok", "approval": {"ask": "?"}},
        {"id": "maybe", "needs": ["ok"], "when": "{{ false }}"},
        {"id": "tell", "needs": ["ok"], "emit": {"event": "asked"}},
        {"id": "pause", "needs": ["maybe", "tell"], "wait": {"for_s": 0}},
        {"id": "pay", "needs": ["pause"]},
    )
    run = drive(*steps)
    run.begin()
    run.decide("ok")
    run.finish("pay")
    new = fork(run, "pay")
    assert (new.status("ok"), new.status("maybe"), new.status("pay")) == ("waiting", None, None)


def test_a_fork_of_everything_is_over_at_once() -> None:
    run = drive({"id": "a"}, {"id": "b", "when": "{{ false }}"})
    run.begin()
    run.finish("a")
    new = fork(run, "b")
    assert new.types == ["run.started", "step.kept:a", "step.skipped:b", "run.completed"]
