"""What differs between the pins of two runs."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from paracle_domain.agent.spec import AgentSpec
from paracle_domain.plan import Plan, PlannedAgent, PlannedTool, PlannedWorkflow
from paracle_domain.run.diff import Difference, differences
from paracle_domain.tool.spec import ToolSpec
from paracle_domain.workflow.spec import WorkflowSpec


def plan(
    *steps: dict[str, Any],
    revision: int = 1,
    agents: dict[str, tuple[int, str]] | None = None,
    tools: dict[str, int] | None = None,
    children: dict[str, Plan] | None = None,
    **spec: Any,
) -> Plan:
    full = [{"tool": "t", **step} for step in steps or ({"id": "a"},)]
    return Plan.pin(
        PlannedWorkflow(name="w", revision=revision, spec=WorkflowSpec.model_validate({"steps": full, **spec})),
        {
            name: PlannedAgent(name=name, revision=number, spec=AgentSpec(instructions=text))
            for name, (number, text) in (agents or {}).items()
        },
        {name: PlannedTool(name=name, revision=number, spec=_tool()) for name, number in (tools or {}).items()},
        children,
    )


def _tool() -> ToolSpec:
    return ToolSpec.model_validate({"description": "d", "backend": {"type": "builtin", "function": "noop"}})


def told(left: Plan, right: Plan) -> list[tuple[Any, ...]]:
    return [(one.part, one.path, one.change, one.left, one.right) for one in differences(left, right)]


def test_the_same_plan_does_not_differ() -> None:
    assert differences(plan(), plan()) == ()


def test_values_differ_by_path_and_revision() -> None:
    left = plan({"id": "a", "input": {"n": 1, "old": True}}, {"id": "b"}, timeout_s=5)
    right = plan({"id": "c"}, {"id": "a", "input": {"n": 2, "new": None}}, revision=2, timeout_s=5)
    found = differences(left, right)
    assert {(one.left_revision, one.right_revision) for one in found} == {(1, 2)}
    changes = {one.path: (one.change, one.left, one.right) for one in found}
    assert changes.pop("spec.steps.b")[0] == "removed"
    assert changes.pop("spec.steps.c")[0] == "added"
    assert changes == {
        "revision": ("changed", 1, 2),
        "spec.steps.a.input.n": ("changed", 1, 2),
        "spec.steps.a.input.old": ("removed", True, None),
        "spec.steps.a.input.new": ("added", None, None),
    }


def test_lists_without_names_differ_as_a_whole() -> None:
    left = plan({"id": "a"}, output=["x", {"id": {"deep": 1}}])
    right = plan({"id": "a"}, output=["x", {"id": {"deep": 2}}])
    assert told(left, right) == [
        ("workflow", "spec.output", "changed", ["x", {"id": {"deep": 1}}], ["x", {"id": {"deep": 2}}])
    ]


def test_elements_of_lists_go_by_id_or_name_and_their_order_counts() -> None:
    left = plan(output=[{"name": "x"}, {"name": "y"}])
    right = plan(output=[{"name": "y"}, {"name": "x"}])
    assert told(left, right) == [("workflow", "spec.output", "changed", ["x", "y"], ["y", "x"])]
    doubled = plan(output=[{"name": "x"}, {"name": "x"}])
    assert told(left, doubled)[0][1:3] == ("spec.output", "changed")


def test_agents_and_tools_come_go_and_change() -> None:
    left = plan(agents={"one": (3, "Be kind."), "two": (1, "x")}, tools={"t": 1})
    right = plan(agents={"one": (4, "Be brief."), "three": (1, "y")}, tools={"t": 1})
    assert told(left, right) == [
        ("agent one", "revision", "changed", 3, 4),
        ("agent one", "spec.instructions", "changed", "Be kind.", "Be brief."),
        ("agent three", "", "added", None, None),
        ("agent two", "", "removed", None, None),
    ]
    assert differences(left, right)[-1] == Difference(part="agent two", left_revision=1, path="", change="removed")


def test_children_are_looked_into() -> None:
    same, old, new = plan(), plan(tools={"charge": 1}), plan(tools={"charge": 2})
    left = plan(children={"same": same, "pay": old, "gone": same})
    right = plan(children={"same": same, "pay": new, "come": same})
    assert told(left, right) == [
        ("child come", "", "added", None, None),
        ("child gone", "", "removed", None, None),
        ("child pay / tool charge", "revision", "changed", 1, 2),
    ]


def test_the_contract_is_a_part() -> None:
    older = plan().model_copy(update={"contract": "0.9", "digest": "sha256:older"})
    assert told(older, plan()) == [("contract", "contract", "changed", "0.9", "1.0")]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | st.sampled_from("xy"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "name", "k"]), inner),
    max_leaves=8,
)


@given(JSON, JSON)
def test_plans_differ_exactly_where_their_digests_do_and_alike_from_both_sides(one: Any, other: Any) -> None:
    left, right = plan(output=one), plan(output=other)
    found = differences(left, right)
    assert bool(found) == (left.digest != right.digest)
    back = {"added": "removed", "removed": "added", "changed": "changed"}
    turned = sorted((item.path, back[item.change], str(item.right), str(item.left)) for item in found)
    assert turned == sorted(
        (item.path, item.change, str(item.left), str(item.right)) for item in differences(right, left)
    )
