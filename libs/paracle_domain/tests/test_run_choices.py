"""Switches, fallbacks, waits, signals and emitted events."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from run_driver import EPOCH, FLAKY, drive

from paracle_domain.run.commands import RunStatus, StepStatus
from paracle_domain.run.directives import PublishEvent

ROUTE = {
    "id": "route",
    "switch": {
        "cases": [
            {"name": "bug", "when": "{{ input.kind == 'bug' }}", "then": ["fix", "both"]},
            {"name": "ask", "when": "{{ input.kind == 'question' }}", "then": ["reply", "both"]},
        ],
        "default": ["other"],
    },
}
STEPS = ({"id": "fix"}, {"id": "reply"}, {"id": "both"}, {"id": "other"})


@pytest.mark.parametrize(
    ("kind", "case", "started"),
    [("bug", "bug", ["fix", "both"]), ("question", "ask", ["reply", "both"]), ("spam", None, ["other"])],
)
def test_a_switch_runs_only_the_steps_of_its_case(kind: str, case: str | None, started: list[str]) -> None:
    run = drive(*STEPS, ROUTE)
    run.begin({"kind": kind})
    assert run.state.steps["route"].output == {"case": case}
    assert [name for name in ("fix", "reply", "both", "other") if run.status(name) == "running"] == started
    for step in started:
        run.finish(step)
    assert run.state.status is RunStatus.COMPLETED
    assert sum(step.status is StepStatus.SKIPPED for step in run.state.steps.values()) == 4 - len(started)


def test_a_switch_that_is_skipped_or_fails_chooses_nothing() -> None:
    run = drive(*STEPS, {**ROUTE, "when": "{{ false }}"})
    run.begin({"kind": "bug"})
    assert run.state.status is RunStatus.COMPLETED
    assert all(step.status is StepStatus.SKIPPED for step in run.state.steps.values())
    run = drive(*STEPS, {**ROUTE, "on_error": "continue"})
    run.begin({})
    assert run.state.status is RunStatus.DEGRADED
    assert [step.status for step in run.state.steps.values()].count(StepStatus.SKIPPED) == 4


def test_a_branch_that_is_not_taken_is_skipped_before_what_else_it_needs() -> None:
    run = drive({"id": "slow"}, {"id": "fix", "needs": ["slow"]}, *STEPS[1:], ROUTE, {"id": "end", "needs": ["fix"]})
    run.begin({"kind": "spam"})
    assert run.status("fix") == "skipped"
    assert run.status("end") == "running"
    run.finish("slow")
    assert run.status("fix") == "skipped"


def test_a_branch_of_two_switches_runs_only_if_both_choose_it() -> None:
    run = drive(*STEPS, ROUTE, {**ROUTE, "id": "route_too"})
    run.begin({"kind": "bug"})
    assert [run.status(name) for name in ("fix", "both", "reply")] == ["running", "running", "skipped"]


A = {"id": "a", "on_error": {"fallback": "b"}}


def test_a_fallback_is_skipped_if_all_goes_well() -> None:
    run = drive(A, {"id": "b"}, {"id": "c", "input": "{{ steps.a.output }}"})
    run.begin()
    assert run.status("b") is None
    run.finish("a", output=1)
    assert run.status("b") == "skipped"
    assert run.task("c").input == 1
    run.finish("c")
    assert run.state.status is RunStatus.COMPLETED


def test_a_fallback_steps_in_with_its_output() -> None:
    run = drive({**A, "retry": {"max_attempts": 2}}, {"id": "b"}, {"id": "c", "input": "{{ steps.a.output }}"})
    run.begin()
    run.fail("a", FLAKY)
    assert run.status("b") is None
    run.tick(5)
    run.fail("a", FLAKY)
    assert run.status("b") == "running"
    assert run.status("c") is None
    run.finish("b", output=2)
    assert run.task("c").input == 2
    run.finish("c")
    assert run.state.status is RunStatus.DEGRADED
    assert run.state.tolerated == ("a",)


def test_a_fallback_of_a_fallback_steps_in_for_both() -> None:
    run = drive(
        A, {"id": "b", "on_error": {"fallback": "d"}}, {"id": "d"}, {"id": "c", "input": "{{ steps.a.output }}"}
    )
    run.begin()
    run.fail("a")
    run.fail("b")
    assert run.status("c") is None
    run.finish("d", output=3)
    assert run.task("c").input == 3
    assert run.state.steps["b"].output == 3


def test_a_fallback_that_is_not_needed_takes_its_own_with_it() -> None:
    run = drive(A, {"id": "b", "on_error": {"fallback": "d"}}, {"id": "d"})
    run.begin()
    run.finish("a")
    assert [run.status("b"), run.status("d")] == ["skipped", "skipped"]


def test_a_fallback_that_fails_fails_the_run() -> None:
    run = drive(A, {"id": "b"})
    run.begin()
    run.fail("a")
    run.fail("b")
    assert run.state.status is RunStatus.FAILED
    assert run.state.error is not None
    assert run.state.error.path == "steps.b"


def test_a_fallback_that_may_fail_too_leaves_null() -> None:
    run = drive(A, {"id": "b", "on_error": "continue"}, {"id": "c", "input": "{{ steps.a.output }}"})
    run.begin()
    run.fail("a")
    run.fail("b")
    assert run.task("c").input is None


def test_a_fallback_that_does_not_want_to_fails_the_run_for_the_first_reason() -> None:
    run = drive(A, {"id": "b", "when": "{{ input.spare }}"})
    run.begin({"spare": False})
    run.fail("a")
    assert run.types[-3:] == ["step.skipped:b", "run.failing", "run.failed"]
    assert run.state.error is not None
    assert run.state.error.path == "steps.a"


def test_a_fallback_that_a_switch_left_out_cannot_step_in() -> None:
    way = {"id": "way", "switch": {"cases": [{"name": "x", "when": "{{ false }}", "then": ["b"]}]}}
    run = drive(A, {"id": "b"}, way)
    run.begin()
    run.fail("a")
    assert run.state.status is RunStatus.FAILED


def test_a_fallback_that_a_switch_leaves_out_later_cannot_step_in_either() -> None:
    """Whether the switch or the failure comes first must make no difference."""
    way = {"id": "way", "switch": {"cases": [{"name": "x", "when": "{{ steps.c.output }}", "then": ["b"]}]}}
    run = drive(A, {"id": "b"}, {"id": "c"}, way, {"id": "d", "needs": ["way"]})
    run.begin()
    run.fail("a")
    run.finish("c", output=False)
    assert run.types[-3:] == ["step.skipped:b", "run.failing", "run.failed"]
    assert run.state.error is not None
    assert run.state.error.path == "steps.a"


def test_what_fails_while_the_run_ends_has_no_fallback() -> None:
    run = drive(A, {"id": "b"})
    run.begin()
    run.cancel()
    run.fail("a")
    assert run.types[-2:] == ["step.failed:a", "run.cancelled"]


@pytest.mark.parametrize(
    ("wait", "value", "seconds"),
    [
        ({"for_s": 60}, {}, 60),
        ({"for_s": "{{ input.n * 1 }}"}, {"n": 7}, 7),
        ({"for_s": "{{ input.n }}"}, {"n": 1.5}, 1.5),
        ({"until": "2026-01-01T00:01:00Z"}, {}, 60),
        ({"until": "{{ input.at }}"}, {"at": "2026-01-01T02:00:30+02:00"}, 30),
    ],
)
def test_a_wait_ends_when_its_time_has_come(wait: dict[str, Any], value: Any, seconds: float) -> None:
    wait = {key: "{{ input.n }}" if what == "{{ input.n * 1 }}" else what for key, what in wait.items()}
    run = drive({"id": "a", "wait": wait}, {"id": "b", "needs": ["a"]})
    run.begin(value)
    assert run.wake_at == EPOCH + timedelta(seconds=seconds)
    assert run.tick(seconds - 0.5).events == ()
    assert run.status("a") == "waiting"
    run.tick(0.5)
    assert run.types[-2:] == ["step.completed:a", "step.started:b"]


@pytest.mark.parametrize("wait", [{"for_s": 0}, {"until": "2025-01-01T00:00:00Z"}])
def test_a_wait_for_the_past_is_none(wait: dict[str, Any]) -> None:
    run = drive({"id": "a", "wait": wait})
    run.begin()
    assert run.state.status is RunStatus.COMPLETED


@pytest.mark.parametrize(
    ("wait", "value", "message"),
    [
        ({"for_s": "{{ input.n }}"}, {"n": -1}, "it gave -1"),
        ({"for_s": "{{ input.n }}"}, {"n": "x"}, "it gave 'x'"),
        ({"for_s": "{{ input.n }}"}, {"n": True}, "it gave True"),
        ({"for_s": "{{ input.n }}"}, {"n": 1e12}, "from 0 to 31,622,400"),
        ({"until": "{{ input.n }}"}, {"n": "tomorrow"}, "it gave 'tomorrow'"),
        ({"until": "{{ input.n }}"}, {"n": 5}, "it gave 5"),
        ({"until": "{{ input.n }}"}, {"n": "9999-12-31T23:59:59-12:00"}, "it gave '9999-12-31T23:59:59-12:00'"),
        ({"until": "{{ input.n }}"}, {"n": "0001-01-01T00:00:00+14:00"}, "it gave '0001-01-01T00:00:00+14:00'"),
        ({"until": "{{ input.n }}"}, {"n": "2026-01-01"}, "with its zone"),
    ],
)
def test_a_wait_for_what_is_no_time_fails(wait: dict[str, Any], value: Any, message: str) -> None:
    run = drive({"id": "a", "wait": wait})
    run.begin(value)
    assert run.state.error is not None
    assert message in run.state.error.message


def test_a_signal_ends_the_wait_that_it_is_for() -> None:
    run = drive({"id": "a", "wait": {"signal": "paid"}}, {"id": "b", "input": "{{ steps.a.output }}"})
    run.begin()
    assert run.signal("shipped").events != ()
    assert run.status("a") == "waiting"
    run.signal("paid", {"amount": 3})
    assert run.task("b").input == {"amount": 3}


def test_a_signal_that_comes_early_is_kept_and_counts_once() -> None:
    run = drive(
        {"id": "a"},
        {"id": "b", "wait": {"signal": "go"}, "needs": ["a"]},
        {"id": "c", "wait": {"signal": "go"}, "needs": ["b"]},
    )
    run.begin()
    run.signal("go", 1)
    assert run.signal("go", 1).events == ()
    run.finish("a")
    assert run.state.steps["b"].output == 1
    assert run.status("c") == "waiting"
    assert run.signal("go", 1).events == ()
    run.signal("go", 2, message="2")
    assert run.state.steps["c"].output == 2
    assert run.state.aside.signals == ()


def test_of_two_that_wait_the_one_that_waited_longer_is_told() -> None:
    run = drive(
        {"id": "x"}, {"id": "a", "wait": {"signal": "go"}, "needs": ["x"]}, {"id": "b", "wait": {"signal": "go"}}
    )
    run.begin()
    run.now += timedelta(seconds=1)
    run.finish("x")
    run.signal("go")
    assert [run.status("a"), run.status("b")] == ["waiting", "completed"]
    run.signal("go", message="2")
    assert run.state.status is RunStatus.COMPLETED


def test_a_wait_for_a_signal_may_time_out() -> None:
    run = drive({"id": "a", "wait": {"signal": "go"}, "timeout_s": 5, "on_error": "continue"})
    run.begin()
    assert run.wake_at == EPOCH + timedelta(seconds=5)
    run.tick(5)
    assert run.types[-2:] == ["step.timed_out:a", "run.degraded"]
    assert run.signal("go").events == ()


def test_cancel_ends_a_wait() -> None:
    run = drive({"id": "a", "wait": {"signal": "go"}})
    assert run.signal("go").events == ()
    run.begin()
    run.cancel()
    assert run.types[-3:] == ["run.cancelling", "step.cancelled:a", "run.cancelled"]


def test_an_event_is_published_and_can_be_said_again() -> None:
    tell = {"emit": {"event": "order_paid", "data": {"id": "{{ input.id }}"}}}
    run = drive({"id": "a", **tell}, {"id": "b", **tell, "needs": ["a"]})
    made = run.begin({"id": 7})
    first, second = (item for item in made.directives if isinstance(item, PublishEvent))
    assert (first.record.entity, first.record.type, first.record.seq, second.record.seq) == ("emit", "order_paid", 1, 2)
    assert first.record.data == {"workflow": "w", "step": "a", "data": {"id": 7}}
    assert first.message_id != second.message_id
    assert run.state.steps["a"].output is None
    assert run.state.status is RunStatus.COMPLETED
    assert run.machine.again(run.state, made.events) == (first, second)


def test_an_event_without_its_data_fails_the_step() -> None:
    run = drive({"id": "a", "emit": {"event": "e", "data": "{{ input.nothing }}"}})
    run.begin()
    assert run.state.status is RunStatus.FAILED
