"""Which worker pool a task goes to, whoever of those that may say so names it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from run_driver import EPOCH, FLAKY, Driver

from paracle_domain.agent.inheritance import Layer, Origin, resolve
from paracle_domain.agent.manifest import AgentManifest
from paracle_domain.agent.spec import AgentSpec
from paracle_domain.plan import Plan, PlannedAgent, PlannedTool, PlannedWorkflow
from paracle_domain.run.directives import DispatchTask, StartChild
from paracle_domain.run.events import StepStarted
from paracle_domain.run.machine import RunMachine
from paracle_domain.tool.spec import ToolSpec
from paracle_domain.workflow.spec import StepSpec, WorkflowSpec, WorkSpec

NAMES = st.sampled_from([None, "agents", "gpu", "browser"])
CHILD = Plan.pin(
    PlannedWorkflow(
        name="child", revision=1, spec=WorkflowSpec.model_validate({"steps": [{"id": "a", "agent": "writer"}]})
    ),
    {},
    {},
)


def planned(*steps: dict[str, Any], agent: str | None = None, tool: str | None = None) -> Plan:
    """A plan of these steps, whose agent and tool name these pools."""
    writer = PlannedAgent(name="writer", revision=1, spec=AgentSpec(pool=agent))
    look = {"description": "Looks.", "backend": {"type": "builtin", "function": "now"}, "pool": tool}
    looker = PlannedTool(name="look", revision=1, spec=ToolSpec.model_validate(look))
    spec = WorkflowSpec.model_validate({"steps": steps})
    return Plan.pin(
        PlannedWorkflow(name="w", revision=1, spec=spec), {"writer": writer}, {"look": looker}, {"child": CHILD}
    )


def pools(run: Driver) -> dict[str, str]:
    """Where the newest task of each step went."""
    return {item.task.step: item.pool for item in run.directives if isinstance(item, DispatchTask)}


def begun(plan: Plan) -> Driver:
    run = Driver(RunMachine(plan))
    run.begin()
    return run


@given(step=NAMES, agent=NAMES, tool=NAMES)
def test_the_step_goes_before_the_agent_or_tool_and_agents_is_where_all_else_goes(
    step: str | None, agent: str | None, tool: str | None
) -> None:
    own = {} if step is None else {"pool": step}
    plan = planned({"id": "a", "agent": "writer", **own}, {"id": "t", "tool": "look", **own}, agent=agent, tool=tool)
    run = begun(plan)
    assert pools(run) == {"a": step or agent or "agents", "t": step or tool or "agents"}
    told = {event.step: event.pool for event in run.events if isinstance(event, StepStarted)}
    assert told == {name: None if pool == "agents" else pool for name, pool in pools(run).items()}


def test_retries_repetitions_items_and_iterations_stay_in_their_pool() -> None:
    work = {"agent": "writer", "pool": "gpu"}
    run = begun(
        planned(
            {"id": "a", **work, "retry": {"max_attempts": 2}},
            {"id": "each", "map": {**work, "over": [1]}},
            {"id": "round", "loop": {**work, "max": 1, "until": "true"}},
        )
    )
    assert pools(run) == {"a": "gpu", "each[0]": "gpu", "round[0]": "gpu"}
    run.directives.clear()
    run.tick(60)
    assert pools(run) == {"a": "gpu", "each[0]": "gpu", "round[0]": "gpu"}, "they were silent"
    run.fail("a", FLAKY)
    run.directives.clear()
    run.tick(5)
    assert pools(run)["a"] == "gpu"


def test_what_undoes_a_step_goes_to_its_own_pool() -> None:
    undo = {"tool": "look", "pool": "undo"}
    last = {"id": "b", "tool": "look", "needs": ["a"]}
    run = begun(planned({"id": "a", "agent": "writer", "compensate": undo}, last))
    run.finish("a")
    run.fail("b")
    assert pools(run) == {"a": "agents", "b": "agents", "a.compensate": "undo"}


def test_only_tasks_of_the_default_pool_travel_together() -> None:
    run = begun(planned({"id": "a", "tool": "look"}, {"id": "b", "tool": "look", "pool": "gpu"}))
    light = {item.task.step: item.light for item in run.directives if isinstance(item, DispatchTask)}
    assert light == {"a": True, "b": False}


def test_a_child_run_goes_to_no_pool_and_its_steps_to_theirs() -> None:
    run = begun(planned({"id": "c", "workflow": "child"}))
    assert [type(item) for item in run.directives] == [StartChild]
    (started,) = [event for event in run.events if isinstance(event, StepStarted)]
    assert started.pool is None
    assert run.now == EPOCH


@pytest.mark.parametrize("pool", ["", "GPU", "1st", "a.b", "a b", "a*", ">", "x" * 32, "übung"])
def test_what_cannot_be_a_part_of_a_subject_names_no_pool(pool: str) -> None:
    for kind, spec in ((StepSpec, {"id": "a", "agent": "x"}), (WorkSpec, {"tool": "x"}), (AgentManifest, {})):
        with pytest.raises(ValidationError, match="pool"):
            kind.model_validate({**spec, "pool": pool})


@pytest.mark.parametrize(
    "step",
    [
        {"id": "a", "workflow": "w", "pool": "gpu"},
        {"id": "a", "wait": {"for_s": 1}, "pool": "gpu"},
        {"id": "a", "map": {"agent": "x", "over": [1]}, "pool": "gpu"},
        {"id": "a", "map": {"workflow": "x", "over": [1], "pool": "gpu"}},
    ],
)
def test_a_pool_belongs_to_what_an_agent_or_tool_does(step: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="pool belongs to agent"):
        StepSpec.model_validate(step)


def test_an_agent_inherits_its_pool_and_null_takes_it_away() -> None:
    line = {
        "base": AgentManifest(pool="gpu"),
        "heir": AgentManifest(extends="base"),
        "rebel": AgentManifest(extends="base", pool=None),
    }

    def lookup(name: str) -> Layer | None:
        return Layer(Origin(name, 1), line[name])

    heir = resolve("heir", lookup)
    assert (heir.spec.pool, heir.origins["pool"].name) == ("gpu", "base")
    assert resolve("rebel", lookup).spec.pool is None
