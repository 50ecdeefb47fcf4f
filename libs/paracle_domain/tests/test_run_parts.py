"""Maps and loops."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from run_driver import BROKEN, EPOCH, FLAKY, Driver, drive, result_of

from paracle_domain.errors import ErrorInfo
from paracle_domain.inference.usage import Usage
from paracle_domain.run.commands import RunStatus, StepStatus
from paracle_domain.run.directives import DispatchTask, StopTask
from paracle_domain.run.folding import evolve
from paracle_domain.run.places import Place, place_of
from paracle_domain.run.timing import REDISPATCH, STOP_AGAIN, STOP_GRACE
from paracle_domain.task.messages import TaskStatus

BODY = {"tool": "t", "input": {"n": "{{ item }}", "i": "{{ index }}"}}


def mapped(count: int = 3, **more: Any) -> Driver:
    """A run of a map over so many numbers and a step after it, which has begun."""
    step: dict[str, Any] = {key: more.pop(key) for key in ("on_error", "timeout_s") if key in more}
    spec = {key: more.pop(key) for key in ("concurrency",) if key in more}
    run = drive(
        {"id": "each", "map": {**BODY, "over": "{{ input.list }}", **more.pop("map", {}), **more}, **step},
        {"id": "b", "input": "{{ steps.each.output }}"},
        **spec,
        output="{{ steps.each.output }}",
    )
    run.begin({"list": [10 * n for n in range(count)]})
    return run


def test_a_map_works_on_each_item_and_gives_the_outputs_in_order() -> None:
    run = mapped()
    assert run.task("each[1]").input == {"n": 10, "i": 1}
    assert run.task("each[1]").effect_scope == "each[1]"
    for index in (2, 0, 1):
        run.finish(f"each[{index}]", output=f"out {index}", usage=Usage(input_tokens=1))
    assert run.task("b").input == ["out 0", "out 1", "out 2"]
    assert run.state.steps["each"].usage.input_tokens == 3
    run.finish("b")
    assert (run.state.status, run.state.output) == (RunStatus.COMPLETED, ["out 0", "out 1", "out 2"])
    assert run.state.usage.input_tokens == 3


def test_a_map_over_nothing_completes_at_once() -> None:
    run = mapped(0)
    assert run.types[1:4] == ["step.opened:each", "step.completed:each", "step.started:b"]
    assert run.task("b").input == []


def test_a_map_keeps_within_its_concurrency() -> None:
    run = drive({"id": "each", "map": {**BODY, "over": [1, 2, 3, 4], "concurrency": 2}})
    run.begin()
    assert [run.status(f"each[{n}]") for n in range(4)] == ["running", "running", None, None]
    run.finish("each[1]")
    assert run.status("each[2]") == "running"
    assert run.status("each[3]") is None


def test_an_item_is_retried_for_itself_and_timed_for_itself() -> None:
    retry = {"max_attempts": 2, "initial_s": 1, "jitter": 0, "on": ["tool_unavailable"]}
    run = mapped(retry=retry, map={"timeout_s": 60})
    run.fail("each[1]", FLAKY)
    assert run.status("each[1]") == "waiting"
    run.tick(1)
    assert run.task("each[1]").attempt == 2
    for index in (0, 1):
        run.finish(f"each[{index}]")
    assert run.task("each[2]").deadline_at == EPOCH + timedelta(seconds=60)
    run.tick(59)
    assert run.stops == ["each[2]"]
    assert run.types[-4:] == ["step.timed_out:each[2]", "step.failed:each", "run.failing", "run.failed"]


def test_items_that_began_at_different_times_are_looked_at_together() -> None:
    """Each look hands out again all that is silent; one for each item would be quadratic."""
    run = mapped(60, concurrency=30)
    for second in range(30):
        run.now += timedelta(seconds=1)
        run.finish(f"each[{second}]")
    looks = 0
    while run.now < EPOCH + timedelta(minutes=10):
        assert run.wake_at is not None
        run.tick((run.wake_at - run.now).total_seconds())
        looks += 1
    assert looks < 40


def test_an_item_that_fails_for_good_fails_the_map_and_the_run() -> None:
    run = mapped()
    run.finish("each[0]")
    run.fail("each[1]")
    assert run.types[-3:] == ["step.failed:each[1]", "step.failing:each", "run.failing"]
    assert run.stops == ["each[2]"]
    run.stopped("each[2]")
    assert run.types[-3:] == ["step.cancelled:each[2]", "step.failed:each", "run.failed"]
    assert run.state.error is not None
    assert run.state.error.path == "steps.each"
    assert "each[1]" in run.state.error.message


def test_what_fails_while_its_map_is_failing_changes_nothing_of_the_reason() -> None:
    run = mapped(retry={"max_attempts": 3})
    run.fail("each[0]")
    run.fail("each[1]", FLAKY)
    run.finish("each[2]")
    assert run.types[-3:] == ["step.completed:each[2]", "step.failed:each", "run.failed"]
    assert run.state.error is not None
    assert "each[0]" in run.state.error.message


@pytest.mark.parametrize("attempts", [1, 2])
def test_a_map_that_the_run_can_do_without_stops_by_itself(attempts: int) -> None:
    run = mapped(4, on_error="continue", retry={"max_attempts": attempts, "on": ["tool_unavailable"]})
    run.fail("each[3]", FLAKY)
    run.fail("each[1]")
    assert run.state.ending is None
    assert sorted(run.stops) == ["each[0]", "each[2]"] if attempts == 2 else ["each[0]", "each[1]", "each[2]"]
    assert run.wake_at is not None
    assert run.wake_at <= run.now + STOP_AGAIN
    made = run.tick(STOP_AGAIN.total_seconds())
    assert {item.command.step for item in made.directives if isinstance(item, StopTask)} >= {"each[0]", "each[2]"}
    run.tick(STOP_GRACE.total_seconds())
    assert run.status("each") == "failed"
    assert run.status("each[0]") == "cancelled"
    run.finish("b")
    assert run.state.status is RunStatus.DEGRADED


def test_a_map_closes_at_once_if_nothing_of_it_runs() -> None:
    run = mapped(2, on_error="continue", retry={"max_attempts": 2, "on": ["tool_unavailable"]})
    run.fail("each[0]", FLAKY)
    run.fail("each[1]")
    assert run.types[-5:-1] == [
        "step.failed:each[1]",
        "step.failing:each",
        "step.cancelled:each[0]",
        "step.failed:each",
    ]


def test_items_may_fail_where_that_is_tolerated() -> None:
    run = mapped(map={"on_error": "continue"})
    run.fail("each[0]")
    run.finish("each[1]", output=1)
    run.fail("each[2]", BROKEN, TaskStatus.TIMED_OUT)
    assert run.task("b").input == [None, 1, None]
    run.finish("b")
    assert run.types[-1] == "run.degraded"
    assert run.state.tolerated == ("each",)


def test_expressions_of_items_may_fail_by_the_thousand() -> None:
    """Each is an item that failed; none of them may cost a level of recursion."""
    run = drive(
        {"id": "each", "map": {"tool": "t", "over": [{}] * 3_000, "input": "{{ item.x }}", "on_error": "continue"}}
    )
    run.begin()
    assert run.state.status is RunStatus.DEGRADED
    assert run.state.output is None
    run = drive({"id": "each", "map": {"tool": "t", "over": [{}, {}], "input": "{{ item.x }}"}})
    run.begin()
    assert run.types[-4:] == ["step.failed:each[0]", "step.failed:each", "run.failing", "run.failed"]


def test_what_is_no_list_fails_the_map() -> None:
    run = drive({"id": "each", "map": {"tool": "t", "over": "{{ input.list }}"}})
    run.begin({"list": "abc"})
    assert run.state.error is not None
    assert "must give a list (it gave 'abc')" in run.state.error.message


def test_too_long_a_list_fails_the_map(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paracle_domain.run.parts.MOST_ITEMS", 2)
    run = mapped(3)
    assert run.state.error is not None
    assert "a map of 3 items; at most 2 are allowed" in run.state.error.message


def test_a_map_has_a_time_for_all_of_it() -> None:
    run = mapped(2, timeout_s=30, map={"timeout_s": 60})
    assert run.task("each[0]").deadline_at == EPOCH + timedelta(seconds=30)
    run.finish("each[0]")
    run.tick(30)
    assert run.types[-2:] == ["step.failing:each", "run.failing"]
    run.stopped("each[1]")
    assert run.types[-2:] == ["step.timed_out:each", "run.failed"]


@pytest.mark.parametrize("on_error", ["fail", "continue"])
def test_a_map_times_out_whoever_is_first_to_see_that_its_time_is_up(on_error: str) -> None:
    each = {"tool": "t", "over": [1, 2, 3], "concurrency": 2, "on_error": "continue"}
    run = drive({"id": "each", "map": each, "timeout_s": 10, "on_error": on_error})
    run.begin()
    run.now += timedelta(seconds=10)
    run.fail("each[0]", status=TaskStatus.TIMED_OUT)
    assert run.status("each[2]") is None
    assert "each[1]" in run.stops
    run.stopped("each[1]")
    assert run.status("each") == "timed_out"
    assert run.state.status is (RunStatus.DEGRADED if on_error == "continue" else RunStatus.FAILED)


def test_a_loop_times_out_whoever_is_first_to_see_that_its_time_is_up() -> None:
    again = {"tool": "t", "max": 3, "until": "{{ false }}"}
    run = drive({"id": "again", "loop": again, "timeout_s": 10, "on_error": "continue"})
    run.begin()
    run.now += timedelta(seconds=10)
    run.fail("again[0]", status=TaskStatus.TIMED_OUT)
    assert run.status("again") == "timed_out"


def test_silent_items_are_handed_out_again() -> None:
    run = mapped(2)
    run.finish("each[0]")
    made = run.tick(REDISPATCH.total_seconds())
    (again,) = made.directives
    assert isinstance(again, DispatchTask)
    assert again.task == run.task("each[1]")
    assert again.again == 1


def test_cancel_stops_items_and_then_the_map() -> None:
    run = mapped(3, retry={"max_attempts": 2})
    run.fail("each[1]", FLAKY)
    run.cancel()
    assert run.stops == ["each[0]", "each[2]"]
    run.stopped("each[0]")
    assert run.status("each") == "running"
    run.stopped("each[2]")
    assert run.types[-3:] == ["step.cancelled:each[2]", "step.cancelled:each", "run.cancelled"]


def test_orders_to_items_can_be_said_again() -> None:
    run = mapped(3, on_error="continue")
    failing = run.fail("each[1]")
    assert run.machine.again(run.state, failing.events) == failing.directives
    run = mapped(3)
    cancelled = run.cancel()
    assert run.machine.again(run.state, cancelled.events) == cancelled.directives
    assert len(cancelled.directives) == 3


def test_items_that_are_late_together_fail_their_map_once() -> None:
    run = mapped(3, map={"timeout_s": 5})
    run.tick(5)
    assert run.types[-3:] == ["step.timed_out:each[0]", "step.failing:each", "run.failing"]
    assert set(run.stops) == {"each[0]", "each[1]", "each[2]"}


def test_cancel_gives_up_on_silent_items() -> None:
    run = mapped(2)
    run.cancel()
    run.tick(STOP_GRACE.total_seconds())
    assert run.types[-2:] == ["step.cancelled:each", "run.cancelled"]


def test_a_replayed_run_goes_on_with_the_same_items() -> None:
    run = mapped(3, map={"concurrency": 1})
    state = run.machine.new()
    for at, events in run.pages:
        state = evolve(state, events, at)
    assert state == run.state
    run.state = state
    run.finish("each[0]")
    assert run.task("each[1]").input == {"n": 10, "i": 1}


def test_an_item_stopped_from_outside_fails() -> None:
    run = mapped(1)
    run.stopped("each[0]")
    assert run.state.status is RunStatus.FAILED


@pytest.mark.parametrize("path", ["each[7]", "b[0]", "nobody[0]", "each.compensate", "each[01]", "", "each[0]."])
def test_results_for_what_is_not_there_are_ignored(path: str) -> None:
    run = mapped(2)
    wrong = result_of(run.task("each[0]"), TaskStatus.COMPLETED).model_copy(update={"step": path})
    assert run.tell(wrong).events == ()


def looped(**more: Any) -> Driver:
    loop = {
        "tool": "t",
        "max": 3,
        "until": "{{ output.done }}",
        "input": {"n": "{{ iteration }}", "last": "{{ last }}"},
    }
    step: dict[str, Any] = {key: more.pop(key) for key in ("on_error", "timeout_s") if key in more}
    run = drive({"id": "again", "loop": {**loop, **more}, **step}, output="{{ steps.again.output }}")
    run.begin()
    return run


def test_a_loop_goes_on_until_its_condition_holds() -> None:
    run = looped()
    assert run.task("again[0]").input == {"n": 0, "last": None}
    run.finish("again[0]", output={"done": False})
    assert run.task("again[1]").input == {"n": 1, "last": {"done": False}}
    run.finish("again[1]", output={"done": True})
    assert (run.state.status, run.state.output) == (RunStatus.COMPLETED, {"done": True})


@pytest.mark.parametrize(("on_limit", "status"), [("fail", RunStatus.FAILED), ("complete", RunStatus.COMPLETED)])
def test_a_loop_ends_at_its_limit(on_limit: str, status: RunStatus) -> None:
    run = looped(on_limit=on_limit)
    for index in range(3):
        run.finish(f"again[{index}]", output={"done": False, "n": index})
    assert run.state.status is status
    assert run.state.error is None or run.state.error.code == "limit_exceeded"
    assert status is RunStatus.FAILED or run.state.output == {"done": False, "n": 2}


def test_an_iteration_that_fails_fails_the_loop() -> None:
    run = looped(retry={"max_attempts": 2, "initial_s": 1, "jitter": 0})
    run.fail("again[0]", FLAKY)
    run.tick(1)
    run.fail("again[0]")
    assert run.types[-4:] == ["step.failed:again[0]", "step.failed:again", "run.failing", "run.failed"]


def test_a_loop_whose_expressions_fail_fails() -> None:
    run = looped(until="{{ output.nothing.here }}")
    run.finish("again[0]", output={})
    assert run.types[-3:] == ["step.failed:again", "run.failing", "run.failed"]
    assert run.state.error is not None
    assert run.state.error.code == "expression_failed"


def test_what_a_loop_gives_while_its_run_ends_is_kept_but_starts_nothing() -> None:
    run = looped()
    run.cancel()
    run.finish("again[0]", output={"done": True})
    assert run.types[-3:] == ["step.completed:again[0]", "step.cancelled:again", "run.cancelled"]


def test_a_loop_has_a_time_for_all_of_it() -> None:
    run = looped(timeout_s=10, on_error="continue")
    run.finish("again[0]", output={"done": False})
    run.tick(10)
    run.fail("again[1]", ErrorInfo(code="x", message="y"))
    assert run.status("again") is StepStatus.TIMED_OUT
    assert run.state.status is RunStatus.DEGRADED


def test_paths() -> None:
    for text in ("a", "a[0]", "a[12]", "a.compensate"):
        assert str(place_of(text)) == text
    assert place_of("a[3]") == Place("a", 3)
    assert place_of("A") is None


def test_items_that_are_silent_are_looked_for_together() -> None:
    """Each look is at all that is open: with one for each of thousands of items, a run would keep a replica busy."""
    run = drive({"id": "a", "map": {"over": "{{ input.items }}", "concurrency": 50, "tool": "t"}})
    run.begin({"items": list(range(100))})
    for item in range(50):  # the next 50 begin one after the other
        run.now += timedelta(milliseconds=10)
        run.finish(f"a[{item}]")
    begun = run.now
    looks = 0
    while run.now < begun + REDISPATCH * 2:
        assert run.wake_at is not None
        run.now = run.wake_at
        run.tick()
        looks += 1
    assert looks <= 3
    assert {item.task.step for item in run.directives if isinstance(item, DispatchTask) and item.again} == {
        f"a[{item}]" for item in range(50, 100)
    }


def test_outputs_that_do_not_fit_together_fail_the_map(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the list could be told or handed on."""
    monkeypatch.setattr("paracle_domain.run.nodes.MOST_BYTES", 1000)
    run = mapped(3)
    for item in range(3):
        run.finish(f"each[{item}]", output="x" * 400)
    assert run.state.status is RunStatus.FAILED
    assert run.state.error is not None
    assert "at most 1,000 fit into a message" in run.state.error.message
