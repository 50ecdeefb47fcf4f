"""The run machine, case by case."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest
from run_driver import EPOCH, FLAKY, RUN_ID, drive, result_of

from paracle_domain.errors import ErrorInfo
from paracle_domain.inference.usage import Usage
from paracle_domain.run.commands import RunStatus, StepStatus
from paracle_domain.run.directives import DispatchTask, StopTask
from paracle_domain.run.events import RunFailed, decode_event
from paracle_domain.run.timing import (
    LONGEST_SILENCE,
    REDISPATCH,
    STOP_AGAIN,
    STOP_GRACE,
    next_wake,
    repeats,
)
from paracle_domain.task.messages import TaskStatus

CHAIN = ({"id": "a"}, {"id": "b", "needs": ["a"]}, {"id": "c", "needs": ["b"]})
FORK = ({"id": "a"}, {"id": "b", "needs": ["a"]}, {"id": "c", "needs": ["a"]}, {"id": "d", "needs": ["b", "c"]})


def test_a_chain_runs_in_order_and_completes() -> None:
    run = drive(*CHAIN, output={"last": "{{ steps.c.output }}"})
    run.begin()
    for step in "abc":
        run.finish(step, output=step.upper())
    assert run.types == [
        "run.started",
        *(f"step.{what}:{step}" for step in "abc" for what in ("started", "completed")),
        "run.completed",
    ]
    assert run.state.output == {"last": "C"}
    assert run.state.status is RunStatus.COMPLETED
    assert run.wake_at is None


def test_ready_steps_start_at_once_without_level_barriers() -> None:
    run = drive(*FORK, {"id": "e", "needs": ["b"]})
    run.begin()
    assert run.finish("a").events[-2:][0].type == "step.started"
    run.finish("b")
    assert run.state.steps["e"].status is StepStatus.RUNNING
    assert "d" not in run.state.steps
    run.finish("c")
    assert run.state.steps["d"].status is StepStatus.RUNNING


def test_inputs_are_evaluated_from_what_steps_gave() -> None:
    run = drive(
        {"id": "a", "input": {"n": "{{ input.n + 1 }}"}},
        {"id": "b", "input": {"id": "{{ run.id }}: {{ steps.a.output.n }}"}},
    )
    run.begin({"n": 41})
    assert run.task("a").input == {"n": 42}
    run.finish("a", output={"n": 42})
    assert run.task("b").input == {"id": f"{RUN_ID}: 42"}


def test_a_false_condition_skips_and_its_dependents_go_on() -> None:
    run = drive(
        {"id": "a"},
        {"id": "b", "when": "{{ steps.a.output.urgent }}"},
        {"id": "c", "input": {"from_b": "{{ steps.b.output }}", "was": "{{ steps.b.status }}"}},
    )
    run.begin()
    run.finish("a", output={"urgent": False})
    assert run.state.steps["b"].status is StepStatus.SKIPPED
    assert run.task("c").input == {"from_b": None, "was": "skipped"}
    run.finish("c")
    assert run.state.status is RunStatus.COMPLETED


def test_a_run_of_skipped_steps_completes_at_once() -> None:
    run = drive({"id": "a", "when": "input.go"}, {"id": "b", "needs": ["a"], "when": "{{ input.go }}"})
    run.begin({"go": False})
    assert run.types == ["run.started", "step.skipped:a", "step.skipped:b", "run.completed"]


def test_a_condition_may_look_at_an_error() -> None:
    run = drive({"id": "a", "on_error": "continue"}, {"id": "b", "when": "{{ steps.a.error.code == 'tool_failed' }}"})
    run.begin()
    run.fail("a")
    assert run.state.steps["b"].status is StepStatus.RUNNING


def test_a_failed_step_fails_the_run_and_stops_the_others() -> None:
    run = drive({"id": "a"}, {"id": "b"}, {"id": "c", "needs": ["a"]})
    run.begin()
    run.fail("a")
    assert run.stops == ["b"]
    assert run.state.status is RunStatus.RUNNING
    run.stopped("b")
    assert run.types[-1] == "run.failed"
    assert run.state.error is not None
    assert "'a'" in run.state.error.message
    assert run.state.error.path == "steps.a"
    assert "c" not in run.state.steps


def test_what_finishes_while_the_run_is_failing_is_kept_but_starts_nothing() -> None:
    run = drive({"id": "a"}, {"id": "b"}, {"id": "c", "needs": ["b"]})
    run.begin()
    run.fail("a")
    run.finish("b", output=1)
    assert run.state.steps["b"].output == 1
    assert "c" not in run.state.steps
    assert run.state.status is RunStatus.FAILED


def test_what_fails_while_the_run_is_failing_changes_nothing_of_the_reason() -> None:
    run = drive({"id": "a"}, {"id": "b", "retry": {"max_attempts": 3}})
    run.begin()
    run.fail("a")
    run.fail("b", FLAKY)
    assert run.types[-2:] == ["step.failed:b", "run.failed"]
    assert run.state.error is not None
    assert "'a'" in run.state.error.message


def test_a_tolerated_failure_degrades() -> None:
    run = drive({"id": "a", "on_error": "continue"}, {"id": "b", "input": "{{ steps.a.status }}"})
    run.begin()
    run.fail("a")
    assert run.task("b").input == "failed"
    run.finish("b")
    assert run.types[-1] == "run.degraded"
    assert run.state.tolerated == ("a",)


def test_a_bad_expression_fails_its_step_without_an_attempt() -> None:
    run = drive({"id": "a"}, {"id": "b", "input": "{{ steps.a.output.missing }}"})
    run.begin()
    run.finish("a", output={})
    assert run.state.steps["b"].attempt == 0
    assert run.state.steps["b"].error is not None
    assert run.state.steps["b"].error.code == "expression_failed"
    assert run.state.status is RunStatus.FAILED


def test_a_bad_expression_of_a_tolerated_step_unlocks_its_dependents() -> None:
    run = drive({"id": "a", "input": "{{ input.x.y }}", "on_error": "continue"}, {"id": "b", "needs": ["a"]})
    run.begin()
    assert run.state.steps["b"].status is StepStatus.RUNNING


def test_a_bad_output_expression_fails_the_run() -> None:
    run = drive({"id": "a"}, output="{{ steps.a.output.nothing.here }}")
    run.begin()
    run.finish("a", output={})
    assert run.types[-2:] == ["run.failing", "run.failed"]


@pytest.mark.parametrize("status", [TaskStatus.QUEUED, TaskStatus.RUNNING, TaskStatus.WAITING])
def test_progress_changes_nothing(status: TaskStatus) -> None:
    run = drive({"id": "a"})
    run.begin()
    assert run.tell(result_of(run.task("a"), status)).events == ()


def test_a_result_for_another_task_or_an_unknown_step_is_ignored() -> None:
    run = drive({"id": "a"}, {"id": "b"})
    run.begin()
    wrong = result_of(run.task("a"), TaskStatus.COMPLETED)
    assert run.tell(wrong.model_copy(update={"task_id": run.task("b").task_id})).events == ()
    assert run.tell(wrong.model_copy(update={"step": "zz"})).events == ()


def test_a_failure_without_a_reason_gets_one() -> None:
    run = drive({"id": "a"})
    run.begin()
    run.tell(result_of(run.task("a"), TaskStatus.FAILED))
    assert run.state.error is not None
    assert "without saying why" in run.state.error.message


@pytest.mark.parametrize("on_error", ["fail", "continue"])
def test_a_run_times_out_whoever_is_first_to_see_that_its_time_is_up(on_error: str) -> None:
    run = drive({"id": "a", "on_error": on_error}, {"id": "b", "needs": ["a"]}, timeout_s=60)
    run.begin()
    run.now += timedelta(seconds=60)
    run.fail("a", status=TaskStatus.TIMED_OUT)
    assert run.types[-3:] == ["run.failing", "step.timed_out:a", "run.timed_out"]
    assert run.state.error is not None
    assert run.state.error.message.startswith("the run did not end by 2026-01-01 00:01:00 UTC")
    run = drive({"id": "a", "workflow": "child", "on_error": on_error}, timeout_s=60)
    run.begin()
    run.now += timedelta(seconds=60)
    run.child_ended("a", RunStatus.TIMED_OUT)
    assert run.state.status is RunStatus.TIMED_OUT


def test_an_item_that_times_out_with_its_run_stops_the_others() -> None:
    run = drive({"id": "each", "map": {"tool": "t", "over": [1, 2], "on_error": "continue"}}, timeout_s=60)
    run.begin()
    run.now += timedelta(seconds=60)
    run.fail("each[0]", status=TaskStatus.TIMED_OUT)
    assert "each[1]" in run.stops
    run.stopped("each[1]")
    assert run.state.status is RunStatus.TIMED_OUT


def test_step_timeout_stops_the_task_and_times_out() -> None:
    run = drive({"id": "a", "timeout_s": 5})
    run.begin()
    assert run.task("a").deadline_at == EPOCH + timedelta(seconds=5)
    run.tick(5)
    assert run.stops == ["a"]
    assert run.types[-3:] == ["step.timed_out:a", "run.failing", "run.failed"]


def test_a_task_that_noticed_its_deadline_itself_times_out_the_step() -> None:
    run = drive({"id": "a", "timeout_s": 5, "on_error": "continue"})
    run.begin()
    run.fail("a", ErrorInfo(code="deadline_exceeded", message="late"), TaskStatus.TIMED_OUT)
    assert run.state.steps["a"].status is StepStatus.TIMED_OUT
    assert run.state.status is RunStatus.DEGRADED


def test_run_timeout() -> None:
    run = drive({"id": "a"}, timeout_s=60)
    run.begin()
    assert run.task("a").deadline_at == EPOCH + timedelta(seconds=60)
    run.tick(60)
    assert run.stops == ["a"]
    run.stopped("a")
    assert run.types[-1] == "run.timed_out"
    assert run.state.status is RunStatus.TIMED_OUT


def test_cancel_waits_for_what_runs() -> None:
    run = drive(*FORK)
    run.begin()
    run.finish("a")
    run.cancel("wrong customer")
    assert (run.state.status, sorted(run.stops)) == (RunStatus.CANCELLING, ["b", "c"])
    run.stopped("b")
    run.stopped("c")
    assert run.types[-1] == "run.cancelled"
    assert run.state.status is RunStatus.CANCELLED


def test_cancel_gives_up_on_the_silent_after_a_grace() -> None:
    run = drive({"id": "a"})
    run.begin()
    run.cancel()
    assert run.tick(1).events == ()
    run.tick(STOP_GRACE.total_seconds())
    assert run.types[-2:] == ["step.cancelled:a", "run.cancelled"]


def test_a_stop_that_is_not_answered_is_repeated_until_the_grace_is_over() -> None:
    run = drive({"id": "a"}, {"id": "b"})
    run.begin()
    run.cancel()
    run.stopped("b")
    orders = [item.message_id for item in run.directives if isinstance(item, StopTask)]
    while not run.state.terminal:
        assert run.wake_at is not None
        assert EPOCH < run.wake_at <= EPOCH + STOP_GRACE
        made = run.tick((run.wake_at - run.now).total_seconds())
        (again,) = made.directives
        assert isinstance(again, StopTask)
        assert (again.command.step, again.command.task_id) == ("a", run.task("a").task_id)
        orders.append(again.message_id)
    assert run.now == EPOCH + STOP_GRACE
    assert len(set(orders)) == len(orders) == 2 + STOP_GRACE // STOP_AGAIN


def test_a_cancel_before_the_run_has_begun_changes_nothing() -> None:
    run = drive({"id": "a"})
    assert run.cancel().events == ()
    run.begin()
    assert run.state.status is RunStatus.RUNNING


def test_cancel_of_a_run_that_only_waits_ends_it_at_once() -> None:
    run = drive({"id": "a", "retry": {"max_attempts": 2}})
    run.begin()
    run.fail("a", FLAKY)
    run.cancel()
    assert run.types[-3:] == ["run.cancelling", "step.cancelled:a", "run.cancelled"]
    assert run.stops == []


def test_cancelling_twice_or_too_late_changes_nothing() -> None:
    run = drive({"id": "a"})
    run.begin()
    run.cancel()
    assert run.cancel().events == ()
    run.stopped("a")
    assert run.cancel().events == ()


def test_a_task_stopped_from_outside_fails_its_step() -> None:
    run = drive({"id": "a"})
    run.begin()
    run.stopped("a")
    assert run.state.status is RunStatus.FAILED
    assert run.state.error is not None
    assert run.state.error.code == "cancelled"


def test_a_silent_task_is_handed_out_again_under_another_message_id() -> None:
    run = drive({"id": "a"})
    run.begin()
    assert run.wake_at == EPOCH + REDISPATCH
    made = run.tick(REDISPATCH.total_seconds())
    (again,) = made.directives
    assert isinstance(again, DispatchTask)
    assert made.events == ()
    assert again.task == run.task("a")
    assert again.message_id != again.task.task_id
    assert made.wake_at == EPOCH + 3 * REDISPATCH


def test_copies_of_a_task_that_stays_silent_become_rare() -> None:
    run = drive({"id": "a"})
    run.begin()
    ids: set[str] = set()
    while run.now < EPOCH + timedelta(days=1):
        assert run.wake_at is not None
        made = run.tick((run.wake_at - run.now).total_seconds())
        ids.update(item.message_id for item in made.directives if isinstance(item, DispatchTask))
        assert made.wake_at is not None
        assert REDISPATCH <= made.wake_at - run.now <= LONGEST_SILENCE
    assert 100 < len(ids) < 150
    assert repeats(timedelta(0)) == (0, REDISPATCH)


def test_what_does_not_fit_into_a_message_fails_the_step_or_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the task could never be handed out, and the run would be running for ever."""
    monkeypatch.setattr("paracle_domain.run.nodes.MOST_BYTES", 1000)
    both = {"x": "{{ steps.a.output }}", "y": "{{ steps.a.output }}"}
    run = drive({"id": "a"}, {"id": "b", "needs": ["a"], "input": both})
    run.begin()
    run.finish("a", "x" * 600)
    assert run.types[-3:] == ["step.failed:b", "run.failing", "run.failed"]
    assert run.state.error is not None
    assert run.state.error.code == "expression_failed"
    run = drive({"id": "a"}, output=both)
    run.begin()
    run.finish("a", "x" * 600)
    assert run.types[-2:] == ["run.failing", "run.failed"]


def test_what_nests_too_deep_to_be_read_again_fails_the_step() -> None:
    """Otherwise nobody could read the task, nor the history of the run, which then could not even be cancelled."""
    run = drive({"id": "l", "loop": {"tool": "t", "input": ["{{ last }}"], "max": 1000, "until": "{{ false }}"}})
    run.begin()
    while not run.state.terminal:
        path = f"l[{len(run.directives) - 1}]"
        run.finish(path, run.task(path).input)
    assert [decode_event(event.encode()) for event in run.events] == run.events
    assert run.state.error is not None
    assert run.state.error.code == "expression_failed"
    assert "more than 150 levels" in run.state.error.message


def test_what_was_caused_before_can_be_said_again() -> None:
    run = drive({"id": "a"}, {"id": "b", "needs": ["a"]})
    started = run.begin()
    assert run.machine.spec("b").needs == ("a",)
    assert "b" not in run.state.steps
    assert len(run.state.steps) == 1
    assert run.machine.again(run.state, started.events) == started.directives
    run.finish("a")
    assert run.machine.again(run.state, started.events) == ()
    cancelled = run.cancel()
    (stop,) = run.machine.again(run.state, cancelled.events)
    assert isinstance(stop, StopTask)
    (said,) = cancelled.directives
    assert stop == said
    assert StopTask(stop.command, 2).message_id != stop.message_id


def test_a_second_begin_changes_nothing() -> None:
    run = drive({"id": "a"})
    run.begin()
    made = run.begin()
    assert (made.events, made.directives) == ((), ())


def test_a_tick_before_the_start_and_after_the_end_changes_nothing() -> None:
    run = drive({"id": "a"})
    assert run.tick().events == ()
    with pytest.raises(ValueError, match="not started"):
        _ = run.state.started_event
    run.begin()
    run.finish("a")
    assert run.tick(1_000).events == ()
    assert run.finish("a").events == ()


def test_usage_adds_up_over_steps_and_attempts() -> None:
    run = drive({"id": "a", "retry": {"max_attempts": 2}}, {"id": "b"})
    run.begin()
    used = Usage(input_tokens=10, output_tokens=5, model_calls=1, cost_usd=Decimal("0.01"))
    run.tell(result_of(run.task("a"), TaskStatus.FAILED, error=FLAKY, usage=used))
    run.tick(5)
    run.finish("a", usage=used)
    run.finish("b", usage=Usage(input_tokens=1, cost_usd=None))
    assert run.state.steps["a"].usage.total_tokens == 30
    assert run.state.usage.input_tokens == 21
    assert run.state.usage.cost_usd is None


def test_an_ending_run_with_nothing_open_needs_no_wake() -> None:
    run = drive({"id": "a"})
    run.begin()
    run.fail("a")
    assert isinstance(run.events[-1], RunFailed)
    assert next_wake(run.state, run.now) is None


def test_the_draft_of_a_decision_leaves_the_state_before_alone() -> None:
    run = drive(*CHAIN)
    run.begin()
    before = run.state
    seq, steps = before.seq, dict(before.steps)
    run.finish("a")
    assert (before.seq, dict(before.steps)) == (seq, steps)
