"""Child runs: started, cancelled, and told of, in both directions."""

from __future__ import annotations

from datetime import timedelta

import pytest
from run_driver import CHILD, EPOCH, RUN_ID, Driver, drive, end_of

from paracle_domain.errors import ErrorInfo
from paracle_domain.ids import id_from_key, is_id
from paracle_domain.inference.usage import Usage
from paracle_domain.run.commands import Parent, RunStatus, StartRun
from paracle_domain.run.directives import CancelChild, StartChild, TellParent
from paracle_domain.run.inbox import Begin
from paracle_domain.run.machine import RunMachine
from paracle_domain.run.timing import REDISPATCH, STOP_AGAIN, STOP_GRACE

STEP = {"id": "child", "workflow": "child", "input": {"x": "{{ input.x }}"}}
ROOT = id_from_key("run", "root")
PARENT = Parent(run_id=id_from_key("run", "parent"), step="child", attempt=1, root_run_id=ROOT, depth=3)


def parent(**more: object) -> Driver:
    run = drive({**STEP, **more}, output="{{ steps.child.output }}")
    run.begin({"x": 1}, {"team": "a"})
    return run


def test_a_child_runs_and_its_output_is_the_steps() -> None:
    run = parent()
    child = run.child("child")
    assert is_id(child.run_id, "run")
    assert (child.workflow, child.plan, child.input, child.principal) == ("child", CHILD.digest, {"x": 1}, "ada")
    assert child.labels == {"team": "a"}
    assert child.parent == Parent(run_id=RUN_ID, step="child", attempt=1, root_run_id=RUN_ID, depth=1)
    run.child_ended("child", output=7, usage=Usage(input_tokens=3))
    assert (run.state.status, run.state.output, run.state.usage.input_tokens) == (RunStatus.COMPLETED, 7, 3)
    assert run.child_ended("child", output=8).events == ()


def test_work_and_children_are_accounted_under_who_started_the_run_and_its_project() -> None:
    run = drive(STEP, {"id": "ask", "agent": "look"}, {"id": "call", "tool": "calc"})
    run.begin({"x": 1}, {"project": "atlas", "team": "a"})
    assert (run.task("ask").principal, run.task("ask").project) == ("ada", "atlas")
    assert (run.task("call").principal, run.task("call").project) == (None, None), "a tool asks no model"
    start = run.child("child")
    assert (start.principal, start.labels) == ("ada", {"project": "atlas", "team": "a"})


def test_a_degraded_child_degrades_its_parent() -> None:
    run = parent()
    run.child_ended("child", RunStatus.DEGRADED, output=7)
    assert (run.state.status, run.state.tolerated) == (RunStatus.DEGRADED, ("child",))


def test_a_child_that_fails_fails_the_step() -> None:
    run = parent()
    run.child_ended("child", RunStatus.FAILED, error=ErrorInfo(code="tool_failed", message="step 'a': no"))
    assert run.state.error is not None
    assert (run.state.error.code, run.state.error.path) == ("tool_failed", "steps.child")


@pytest.mark.parametrize(
    ("status", "event"),
    [(RunStatus.TIMED_OUT, "step.timed_out:child"), (RunStatus.CANCELLED, "step.failed:child")],
)
def test_a_child_that_times_out_or_is_cancelled_by_others(status: RunStatus, event: str) -> None:
    run = parent()
    run.child_ended("child", status)
    assert run.types[-3:] == [event, "run.failing", "run.failed"]


def test_a_retry_starts_another_child() -> None:
    run = parent(retry={"max_attempts": 2, "on": ["tool_failed"], "initial_s": 1, "jitter": 0})
    first = run.child("child")
    run.child_ended("child", RunStatus.FAILED, error=ErrorInfo(code="tool_failed", message="no"))
    run.tick(1)
    second = run.child("child")
    assert (second.parent.attempt, second.run_id != first.run_id) == (2, True)
    assert run.tell(end_of(first, RunStatus.COMPLETED)).events == ()
    run.child_ended("child", output=2)
    assert run.state.output == 2


def test_what_is_no_end_changes_nothing() -> None:
    run = parent()
    assert run.child_ended("child", RunStatus.RUNNING).events == ()
    stranger = end_of(run.child("child"), RunStatus.COMPLETED).model_copy(update={"child_run_id": RUN_ID})
    assert run.tell(stranger).events == ()


def test_the_deadline_of_a_parent_bounds_its_child() -> None:
    run = drive({**STEP, "timeout_s": 50}, timeout_s=30)
    run.begin({"x": 1})
    assert run.child("child").deadline_at == EPOCH + timedelta(seconds=30)
    run = parent(timeout_s=20)
    assert run.child("child").deadline_at == EPOCH + timedelta(seconds=20)
    run.tick(20)
    assert run.cancelled_children == ["child"]
    assert run.state.status is RunStatus.FAILED


def test_a_silent_child_is_asked_again() -> None:
    run = parent()
    (again,) = run.tick(REDISPATCH.total_seconds()).directives
    assert isinstance(again, StartChild)
    assert (again.message, again.again) == (run.child("child"), 1)
    assert again.message_id != StartChild(again.message).message_id
    assert run.machine.again(run.state, run.events) == (StartChild(again.message),)


def test_cancel_waits_for_children_however_long_they_take() -> None:
    """A child always ends, and only then is it sure that nothing of it runs."""
    run = parent()
    run.cancel()
    (first,) = (item for item in run.directives if isinstance(item, CancelChild))
    assert first.message.start == run.child("child")
    made = run.tick(STOP_AGAIN.total_seconds())
    (again,) = made.directives
    assert isinstance(again, CancelChild)
    assert again.message_id != first.message_id
    run.tick(STOP_GRACE.total_seconds())
    assert run.status("child") == "running"
    assert run.wake_at is not None
    assert run.wake_at > run.now
    run.child_ended("child", RunStatus.CANCELLED)
    assert run.types[-2:] == ["step.cancelled:child", "run.cancelled"]


def test_children_in_a_map_are_cancelled_too() -> None:
    run = drive({"id": "each", "map": {"over": [1, 2], "workflow": "child"}})
    run.begin()
    run.child_ended("each[0]")
    run.cancel()
    assert run.cancelled_children == ["each[1]"]
    run.child_ended("each[1]", RunStatus.CANCELLED)
    assert run.state.status is RunStatus.CANCELLED


def child() -> Driver:
    return Driver(RunMachine(CHILD))


def begin(run: Driver, **more: object) -> Begin:
    command = StartRun(workflow="child", input={"x": 1}, priority=5)
    return Begin(RUN_ID, "default", "ada", command, parent=PARENT, **more)  # type: ignore[arg-type]  # fields of Begin


def test_a_child_tells_its_parent_how_it_ended_as_often_as_that_asks() -> None:
    run = child()
    message = begin(run)
    started = run.tell(message)
    assert run.state.started_event.parent == PARENT
    assert run.tell(message).directives == ()
    made = run.finish("a", output=None)
    (told,) = made.directives
    assert isinstance(told, TellParent)
    assert told.message.run_id == PARENT.run_id
    assert (told.message.step, told.message.attempt, told.message.status) == ("child", 1, RunStatus.COMPLETED)
    assert run.machine.again(run.state, (*started.events, *made.events)) == (told,)
    (again,) = run.tell(message).directives
    assert isinstance(again, TellParent)
    assert again.message == told.message
    assert again.message_id != told.message_id


def test_a_child_of_a_child_knows_its_root() -> None:
    run = drive(STEP)
    run.tell(begin(run))
    found = run.child("child").parent
    assert (found.root_run_id, found.depth, run.child("child").priority) == (ROOT, 4, 5)


def test_a_child_ends_by_the_time_of_its_parent() -> None:
    run = child()
    run.tell(begin(run, deadline_at=EPOCH + timedelta(seconds=9)))
    run.tick(9)
    run.stopped("a")
    assert run.state.status is RunStatus.TIMED_OUT


def test_a_child_whose_input_is_wrong_fails_as_it_begins() -> None:
    run = child()
    made = run.tell(begin(run, refused=ErrorInfo(code="input_schema_mismatch", message="x is missing")))
    assert run.types == ["run.started", "run.failing", "run.failed"]
    (told,) = made.directives
    assert isinstance(told, TellParent)
    assert told.message.error is not None
    assert told.message.error.code == "input_schema_mismatch"


def test_a_child_that_is_cancelled_before_it_began_begins_cancelled() -> None:
    run = child()
    made = run.tell(begin(run, cancelled="parent cancelled"))
    assert run.types == ["run.started", "run.cancelling", "run.cancelled"]
    assert isinstance(made.directives[0], TellParent)
    assert run.tell(begin(run)).events == ()


def test_a_child_that_runs_is_cancelled_by_its_parent() -> None:
    run = child()
    run.tell(begin(run))
    run.tell(begin(run, cancelled="parent cancelled"))
    assert run.stops == ["a"]
    assert run.tell(begin(run, cancelled="parent cancelled")).events == ()
    run.stopped("a")
    assert run.state.status is RunStatus.CANCELLED


def test_a_run_that_has_the_id_of_a_child_and_is_none_is_said_to_be_another_s() -> None:
    """Whoever guesses the id must not keep the parent waiting for ever."""
    run = child()
    run.begin()
    for message in (begin(run), begin(run, cancelled="parent cancelled")):
        made = run.tell(message)
        (told,) = made.directives
        assert isinstance(told, TellParent)
        assert (told.message.run_id, told.message.step) == (PARENT.run_id, PARENT.step)
        assert (told.message.child_run_id, told.message.status) == (RUN_ID, RunStatus.FAILED)
        assert told.message.error is not None
        assert told.message.error.code == "conflict"
        assert made.events == ()
    assert run.state.status is RunStatus.RUNNING
