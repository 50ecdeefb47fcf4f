"""What is tried again, how often, and when."""

from __future__ import annotations

from datetime import timedelta

import pytest
from run_driver import BROKEN, EPOCH, FLAKY, drive, result_of

from paracle_domain.errors import ErrorInfo
from paracle_domain.run.attempts import wants
from paracle_domain.run.commands import RunStatus, StepStatus
from paracle_domain.run.events import StepRetrying
from paracle_domain.run.timing import (
    retry_delay,
    retryable,
)
from paracle_domain.task.messages import Task, TaskStatus
from paracle_domain.workflow.spec import RetrySpec


def test_retry_waits_and_then_tries_again_with_the_same_input_and_effect_scope() -> None:
    retry = {"max_attempts": 3, "initial_s": 10, "jitter": 0}
    run = drive({"id": "a", "input": "{{ input }}", "retry": retry})
    run.begin({"x": 1})
    first = run.task("a")
    run.fail("a", FLAKY)
    assert run.state.steps["a"].status is StepStatus.WAITING
    assert run.wake_at == EPOCH + timedelta(seconds=10)
    assert run.tick(5).events == ()
    run.tick(5)
    second = run.task("a")
    assert (second.attempt, second.input, second.effect_scope) == (2, {"x": 1}, first.effect_scope)
    assert second.task_id != first.task_id
    run.finish("a")
    assert run.state.status is RunStatus.COMPLETED


def test_attempts_are_bounded() -> None:
    run = drive({"id": "a", "retry": {"max_attempts": 2}})
    run.begin()
    run.fail("a", FLAKY)
    run.tick(5)
    run.fail("a", FLAKY)
    assert run.types[-3:] == ["step.failed:a", "run.failing", "run.failed"]


def test_a_result_of_an_earlier_attempt_is_ignored() -> None:
    run = drive({"id": "a", "retry": {"max_attempts": 2}})
    run.begin()
    first = run.task("a")
    run.fail("a", FLAKY)
    run.tick(5)
    assert run.tell(result_of(first, TaskStatus.COMPLETED)).events == ()
    assert run.state.steps["a"].attempt == 2


def test_a_run_that_stops_wants_nothing_done_but_what_undoes() -> None:
    run = drive({"id": "a", "compensate": {"tool": "t"}}, {"id": "b", "needs": ["a"]})

    def awaited(task: Task) -> bool:
        return wants(run.state, task.step, task.attempt, task.task_id)

    run.begin()
    run.finish("a")
    assert awaited(run.task("b"))
    run.cancel()
    assert run.status("b") == "running"
    assert not awaited(run.task("b"))
    run.stopped("b")
    assert awaited(run.task("a.compensate"))


def test_a_map_that_stops_wants_none_of_its_items_done() -> None:
    each = {"id": "m", "map": {"over": [1, 2], "tool": "t"}, "on_error": "continue"}
    run = drive(each, {"id": "b"})
    run.begin()
    run.fail("m[0]")
    assert run.status("m[1]") == "running"
    for step, wanted in (("m[1]", False), ("b", True)):
        one = run.task(step)
        assert wants(run.state, one.step, one.attempt, one.task_id) is wanted


def test_a_run_waits_for_the_attempt_that_runs_and_for_no_other() -> None:
    run = drive({"id": "a", "retry": {"max_attempts": 2}}, {"id": "b", "needs": ["a"]})

    def awaited(*tasks: Task) -> list[bool]:
        return [wants(run.state, one.step, one.attempt, one.task_id) for one in tasks]

    run.begin()
    first = run.task("a")
    assert awaited(first, first.model_copy(update={"step": "b"}), first.model_copy(update={"step": "x[1]"})) == [
        True,
        False,
        False,
    ]
    assert awaited(first.model_copy(update={"task_id": "task_other"})) == [False]
    run.fail("a", FLAKY)
    assert awaited(first) == [False]
    run.tick(5)
    second = run.task("a")
    assert awaited(first, second) == [False, True]
    run.finish("a")
    assert awaited(second, run.task("b")) == [False, True]


def test_step_timeout_can_be_retried() -> None:
    run = drive({"id": "a", "timeout_s": 5, "retry": {"max_attempts": 2, "on": ["deadline_exceeded"]}})
    run.begin()
    run.tick(5)
    assert isinstance(run.events[-1], StepRetrying)
    run.tick(10)
    run.finish("a")
    assert run.state.status is RunStatus.COMPLETED


@pytest.mark.parametrize(
    ("retry", "error", "attempt", "expected"),
    [
        (RetrySpec(max_attempts=2), FLAKY, 1, True),
        (RetrySpec(max_attempts=2), FLAKY, 2, False),
        (RetrySpec(max_attempts=2), BROKEN, 1, False),
        (RetrySpec(max_attempts=2, on=("tool_failed",)), BROKEN, 1, True),
        (RetrySpec(max_attempts=2, on=("tool_failed",)), FLAKY, 1, False),
        (RetrySpec(max_attempts=2, never_on=("tool_unavailable",)), FLAKY, 1, False),
    ],
)
def test_what_is_retried(retry: RetrySpec, error: ErrorInfo, attempt: int, expected: bool) -> None:
    assert retryable(retry, error, attempt) is expected


@pytest.mark.parametrize(
    ("backoff", "waits"),
    [("constant", [2, 2, 2, 2]), ("linear", [2, 4, 6, 7]), ("exponential", [2, 4, 7, 7])],
)
def test_backoff(backoff: str, waits: list[int]) -> None:
    retry = RetrySpec.model_validate({"max_attempts": 9, "backoff": backoff, "initial_s": 2, "max_s": 7, "jitter": 0})
    assert [retry_delay(retry, n, "k", BROKEN).total_seconds() for n in range(1, 5)] == waits


def test_jitter_stays_in_bounds_and_repeats_itself() -> None:
    retry = RetrySpec(max_attempts=9, initial_s=10, jitter=0.5)
    waits = {retry_delay(retry, 1, f"run-{n}", BROKEN).total_seconds() for n in range(50)}
    assert all(5 <= wait <= 15 for wait in waits)
    assert len(waits) > 40
    assert retry_delay(retry, 1, "k", BROKEN) == retry_delay(retry, 1, "k", BROKEN)


def test_a_server_that_names_its_time_is_not_asked_sooner() -> None:
    asked = FLAKY.model_copy(update={"retry_after_s": 30.0})
    assert retry_delay(RetrySpec(max_attempts=2), 1, "k", asked) == timedelta(seconds=30)
