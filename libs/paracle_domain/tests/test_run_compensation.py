"""Compensation: what completed is undone when the run cannot go on."""

from __future__ import annotations

from datetime import timedelta

from run_driver import EPOCH, FLAKY, drive

from paracle_domain.run.commands import RunStatus
from paracle_domain.run.directives import DispatchTask
from paracle_domain.run.events import RunFailed
from paracle_domain.run.timing import REDISPATCH


def undo(step: str, **more: object) -> dict[str, object]:
    return {"tool": "undo", "input": {"id": f"{{{{ steps.{step}.output }}}}"}, **more}


A = {"id": "a", "compensate": undo("a")}
B = {"id": "b", "needs": ["a"], "compensate": undo("b")}
C = {"id": "c", "needs": ["b"], "compensate": undo("c")}


def test_what_completed_is_undone_newest_first_one_after_the_other() -> None:
    run = drive(A, B, C)
    run.begin()
    run.finish("a", output=1)
    run.finish("b", output=2)
    run.fail("c")
    assert run.types[-3:] == ["run.failing", "run.compensating", "step.started:b.compensate"]
    task = run.task("b.compensate")
    assert (task.target, task.input, task.effect_scope, task.deadline_at) == ("undo", {"id": 2}, "b.compensate", None)
    assert run.status("a.compensate") is None
    run.finish("b.compensate")
    assert run.task("a.compensate").input == {"id": 1}
    run.finish("a.compensate")
    assert run.types[-2:] == ["step.completed:a.compensate", "run.failed"]
    assert run.state.error is not None
    assert run.state.error.path == "steps.c"


def test_the_order_is_that_of_completion() -> None:
    run = drive(A, {**B, "needs": []}, {"id": "c", "needs": ["a", "b"]})
    run.begin()
    run.finish("b")
    run.finish("a")
    run.fail("c")
    assert run.status("a.compensate") == "running"
    assert run.status("b.compensate") is None


def test_undoing_waits_for_what_still_runs() -> None:
    run = drive(A, {"id": "x"}, {"id": "c", "needs": ["a"]})
    run.begin()
    run.finish("a")
    run.fail("c")
    assert run.status("a.compensate") is None
    run.finish("x")
    assert run.status("a.compensate") == "running"


def test_cancel_and_timeout_undo_too() -> None:
    run = drive(A, {"id": "c", "needs": ["a"]}, timeout_s=60)
    run.begin()
    run.finish("a")
    run.cancel()
    run.stopped("c")
    assert run.state.status is RunStatus.CANCELLING
    assert run.cancel().events == ()
    run.finish("a.compensate")
    assert run.types[-1] == "run.cancelled"
    run = drive(A, {"id": "c", "needs": ["a"]}, timeout_s=60)
    run.begin()
    run.finish("a")
    run.tick(60)
    run.stopped("c")
    run.finish("a.compensate")
    assert run.state.status is RunStatus.TIMED_OUT


def test_a_bad_output_expression_undoes_too() -> None:
    run = drive(A, output="{{ steps.a.output.nothing }}")
    run.begin()
    run.finish("a")
    assert run.types[-3:] == ["run.failing", "run.compensating", "step.started:a.compensate"]


def test_nothing_is_undone_if_all_goes_well() -> None:
    run = drive(A)
    run.begin()
    run.finish("a")
    assert run.state.status is RunStatus.COMPLETED


def test_a_compensation_is_retried_and_its_failure_is_told_but_stops_nothing() -> None:
    retry = {"max_attempts": 2, "initial_s": 5, "jitter": 0}
    run = drive(A, {**B, "compensate": undo("b", retry=retry)}, C)
    run.begin()
    run.finish("a")
    run.finish("b")
    run.fail("c")
    run.fail("b.compensate", FLAKY)
    assert run.status("b.compensate") == "waiting"
    assert run.tick(1).events == ()
    assert run.wake_at == EPOCH + timedelta(seconds=5)
    run.tick(4)
    run.fail("b.compensate", FLAKY)
    run.finish("a.compensate")
    end = run.events[-1]
    assert isinstance(end, RunFailed)
    assert end.uncompensated == ("b",)
    assert run.status("b.compensate") == "failed"


def test_a_compensation_that_cannot_begin_has_failed() -> None:
    run = drive(
        A, {**B, "compensate": {"tool": "undo", "input": "{{ steps.c.output.id }}"}}, {"id": "c", "needs": ["b"]}
    )
    run.begin()
    run.finish("a")
    run.finish("b")
    run.fail("c")
    assert run.status("b.compensate") == "failed"
    run.finish("a.compensate")
    end = run.events[-1]
    assert isinstance(end, RunFailed)
    assert end.uncompensated == ("b",)


def test_a_compensation_has_its_own_time_and_is_handed_out_again() -> None:
    run = drive({**A, "compensate": undo("a", timeout_s=20)}, {"id": "c", "needs": ["a"]}, timeout_s=10)
    run.begin()
    run.finish("a")
    run.fail("c")
    assert run.task("a.compensate").deadline_at == EPOCH + timedelta(seconds=20)
    made = run.tick(REDISPATCH.total_seconds())
    (again,) = made.directives
    assert isinstance(again, DispatchTask)
    assert run.wake_at == EPOCH + timedelta(seconds=20)
    run.tick(5)
    assert run.types[-2:] == ["step.timed_out:a.compensate", "run.failed"]


def test_a_compensation_that_is_stopped_from_outside_has_failed() -> None:
    run = drive(A, {"id": "c", "needs": ["a"]})
    run.begin()
    run.finish("a")
    run.fail("c")
    run.stopped("a.compensate")
    assert run.types[-2:] == ["step.failed:a.compensate", "run.failed"]


def test_a_compensation_may_be_a_child_run() -> None:
    run = drive({**A, "compensate": {"workflow": "child"}}, {"id": "c", "needs": ["a"]})
    run.begin()
    run.finish("a")
    run.fail("c")
    assert run.child("a.compensate").parent.step == "a.compensate"
    run.child_ended("a.compensate")
    assert run.state.status is RunStatus.FAILED
    assert run.state.steps["a"].compensation is not None
