"""How a run is shown: every kind of step, and what is within it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from paracle_domain.errors import ErrorInfo
from paracle_domain.ids import id_from_key
from paracle_domain.plan import Plan, PlannedWorkflow
from paracle_domain.run.commands import RunView, StartRun, StepStatus, StepView
from paracle_domain.run.directives import DispatchTask
from paracle_domain.run.inbox import Begin, Pause
from paracle_domain.run.machine import RunMachine, Transition
from paracle_domain.task.messages import Task, TaskResult, TaskStatus
from paracle_domain.workflow.spec import KINDS, WorkflowSpec
from paracle_orchestrator.facts import facts_of
from paracle_orchestrator.host import Entry
from paracle_orchestrator.views import view_of

RUN_ID = id_from_key("run", "views")


EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


def plan_of(*steps: dict[str, Any], children: dict[str, Plan] | None = None) -> Plan:
    full = [step if set(KINDS) & set(step) else {"tool": "t", **step} for step in steps]
    spec = WorkflowSpec.model_validate({"steps": full})
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

    def view(self, parts: int = 100) -> RunView:
        plan = self.machine.plan
        facts = facts_of(plan, principal="ann", request="r", labels={}, priority=2)
        return view_of(Entry(RUN_ID, "acme", self.machine, self.state, facts), parts)

    def step(self, name: str, parts: int = 100) -> StepView:
        return next(step for step in self.view(parts).steps if step.id == name)


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
