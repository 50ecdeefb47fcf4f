"""How a run is shown: every kind of step, and what is within it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from paracle_domain.errors import Conflict, ErrorInfo
from paracle_domain.ids import id_from_key
from paracle_domain.plan import Plan, PlannedWorkflow
from paracle_domain.run.commands import Outputs, RunView, StartRun, StepStatus, StepView
from paracle_domain.run.directives import DispatchTask
from paracle_domain.run.inbox import Begin, Pause
from paracle_domain.run.machine import RunMachine, Transition
from paracle_domain.task.messages import Task, TaskResult, TaskStatus
from paracle_domain.workflow.spec import KINDS, WorkflowSpec
from paracle_orchestrator.facts import facts_of
from paracle_orchestrator.mail import Entry
from paracle_orchestrator.views import step_of, view_of

RUN_ID = id_from_key("run", "views")


EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


def plan_of(*steps: dict[str, Any], children: dict[str, Plan] | None = None) -> Plan:
    full = [step if set(KINDS) & set(step) else {"tool": "t", **step} for step in steps]
    spec = WorkflowSpec.model_validate({"steps": full, "timeout_s": 60})
    return Plan.pin(PlannedWorkflow(name="w", revision=1, spec=spec), {}, {}, children)


class Run:
    """A run without a service around it."""

    def __init__(self, *steps: dict[str, Any], children: dict[str, Plan] | None = None) -> None:
        self.machine = RunMachine(plan_of(*steps, children=children))
        self.state = self.machine.new()
        self.tasks: dict[str, Task] = {}
        self.tell(Begin(RUN_ID, "acme", "ann", StartRun(workflow="w", priority=2)))

    def tell(self, message: Any) -> Transition:
        made = self.machine.decide(self.state, message, EPOCH)
        self.state = made.state
        self.tasks |= {item.task.step: item.task for item in made.directives if isinstance(item, DispatchTask)}
        return made

    def end(self, path: str, status: TaskStatus = TaskStatus.COMPLETED, output: Any = None) -> None:
        task = self.tasks[path]
        error = None if status is TaskStatus.COMPLETED else ErrorInfo(code="tool_failed", message="no")
        fields = task.model_dump(include={"task_id", "run_id", "step", "attempt"})
        self.tell(TaskResult(**fields, status=status, output=output, error=error))

    @property
    def entry(self) -> Entry:
        facts = facts_of(self.machine.plan, principal="ann", request="r", labels={}, priority=2)
        return Entry(RUN_ID, "acme", self.machine, self.state, facts)

    def view(self, parts: int = 100, outputs: Outputs = Outputs.ALL) -> RunView:
        return view_of(self.entry, parts, outputs)

    def step(self, name: str, parts: int = 100) -> StepView:
        return next(step for step in self.view(parts).steps if step.id == name)


EACH = {"id": "each", "map": {"tool": "t", "over": [1, 2], "concurrency": 1}}


def test_outputs_can_be_left_out() -> None:
    run = Run({"id": "pay", "compensate": {"tool": "back"}}, EACH | {"needs": ["pay"]})
    run.end("pay", output="paid")
    run.end("each[0]", output="one")
    run.end("each[1]", TaskStatus.FAILED)
    run.end("pay.compensate", output="back")
    assert (run.view().outputs, outputs_in(run.view())) == (Outputs.ALL, ["paid", "back", "one"])
    own, none = run.view(outputs=Outputs.RUN), run.view(outputs=Outputs.NONE)
    assert [(view.outputs, view.input, outputs_in(view)) for view in (own, none)] == [
        (Outputs.RUN, {}, []),
        (Outputs.NONE, None, []),
    ]
    assert [step.status for step in none.steps] == [step.status for step in run.view().steps]


def outputs_in(view: RunView) -> list[Any]:
    within = [one for step in view.steps for one in (step, step.compensation, *step.parts) if one is not None]
    return [one.output for one in within if one.output is not None]


def test_one_step_is_shown_with_its_output_and_what_is_within_it_without() -> None:
    run = Run({"id": "pay", "compensate": {"tool": "back"}}, EACH, {"id": "late", "needs": ["each"]})
    run.end("pay", output="paid")
    run.end("each[0]", output="one")

    def shown(path: str) -> tuple[str, Any] | None:
        step = step_of(run.entry, path, 100)
        return None if step is None else (step.id, step.output)

    assert [shown(path) for path in ("pay", "each[0]", "late")] == [("pay", "paid"), ("each[0]", "one"), ("late", None)]
    each = step_of(run.entry, "each", 100)
    assert each is not None
    assert [(part.id, part.output) for part in each.parts] == [("each[0]", None), ("each[1]", None)]
    nothing = ("", "nope", "each[2]", "pay[0]", "late[0]", "pay.compensate", "each[x]")
    assert [path for path in nothing if shown(path) is not None] == []
    run.end("each[1]", TaskStatus.FAILED)
    run.end("pay.compensate", output="back")
    assert shown("pay.compensate") == ("pay.compensate", "back")


def test_a_map_shows_its_items_as_many_as_are_wanted() -> None:
    run = Run({"id": "each", "map": {"tool": "t", "over": [1, 2, 3], "concurrency": 2}})
    run.end("each[1]", output="two")
    shown = run.step("each")
    assert (shown.target_kind, shown.parts_total, shown.parts_ended) == ("map", 3, 1)
    assert [(part.id, part.status, part.target, part.output) for part in shown.parts] == [
        ("each[0]", StepStatus.RUNNING, "t", None),
        ("each[1]", StepStatus.COMPLETED, "t", "two"),
        ("each[2]", StepStatus.RUNNING, "t", None),
    ]
    assert [part.id for part in run.step("each", parts=1).parts] == ["each[0]"]


def test_a_loop_shows_the_iterations_that_it_came_to() -> None:
    run = Run({"id": "again", "loop": {"tool": "t", "max": 9, "until": "{{ output == 1 }}"}})
    run.end("again[0]", output=0)
    shown = run.step("again")
    assert (shown.parts_total, shown.parts_ended, len(shown.parts)) == (2, 1, 2)


def test_what_is_waited_for_is_shown() -> None:
    run = Run(
        {"id": "ok", "approval": {"ask": "?", "expires_s": 60}},
        {"id": "paid", "wait": {"signal": "paid"}, "timeout_s": 9},
        {"id": "later", "wait": {"for_s": 5}},
        {"id": "child", "workflow": "c"},
        children={"c": plan_of({"id": "a"})},
    )
    ok, paid, later, child = (run.step(name) for name in ("ok", "paid", "later", "child"))
    assert ok.approval_id is not None
    assert ok.due_at == EPOCH + timedelta(seconds=60)
    assert (paid.signal, paid.due_at) == ("paid", EPOCH + timedelta(seconds=9))
    assert (later.signal, later.due_at) == (None, EPOCH + timedelta(seconds=5))
    assert (child.task_id, child.child_run_id is None) == (None, False)
    run.tell(Pause("bob"))
    assert run.view().paused


def test_compensations_are_shown_with_their_steps() -> None:
    undo = {"tool": "undo"}
    run = Run(
        {"id": "a", "compensate": undo}, {"id": "b", "needs": ["a"], "compensate": undo}, {"id": "c", "needs": ["b"]}
    )
    run.end("a")
    run.end("b")
    run.end("c", TaskStatus.FAILED)
    run.end("b.compensate", TaskStatus.FAILED)
    run.end("a.compensate")
    a, b = run.step("a"), run.step("b")
    assert (a.compensated, b.compensated) == (True, False)
    assert b.compensation is not None
    assert (b.compensation.id, b.compensation.status, b.compensation.target) == ("b.compensate", "failed", "undo")
    assert run.view().uncompensated == ("b",)


def test_a_run_that_is_about_to_end_says_why_and_has_no_time_of_its_own_any_more() -> None:
    run = Run({"id": "a", "compensate": {"tool": "undo"}}, {"id": "b", "needs": ["a"]})
    assert run.view().deadline_at == EPOCH + timedelta(seconds=60)
    run.end("a")
    run.end("b", TaskStatus.FAILED)
    undoing = run.view()
    assert (undoing.run.status, undoing.deadline_at) == ("running", None)
    assert undoing.error is not None
    assert undoing.error.path == "steps.b"
    refusal = run.machine.objection(run.state, Pause("ann"), EPOCH)
    assert isinstance(refusal, Conflict)
    assert "stops, and undoes what it did" in refusal.message
    run.end("a.compensate")
    ended = run.view()
    assert (ended.run.status, ended.error) == ("failed", undoing.error)
