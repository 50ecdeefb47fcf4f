"""Workflow manifests: which steps there are, and what is refused of each."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from paracle_domain.plan import Plan, PlannedWorkflow
from paracle_domain.workflow.spec import KINDS, StepSpec, WorkflowSpec

BODY = {"tool": "t"}
STEPS: dict[str, dict[str, Any]] = {
    "agent": {"agent": "a"},
    "tool": {"tool": "t", "retry": {"max_attempts": 2}, "compensate": {"tool": "undo", "input": {"a": 1}}},
    "workflow": {"workflow": "w", "input": {"a": 1}},
    "map": {"map": {**BODY, "over": "{{ input.list }}", "concurrency": 10, "on_error": "continue"}},
    "loop": {"loop": {**BODY, "max": 3, "until": "{{ output.done }}", "on_limit": "complete"}},
    "switch": {"switch": {"cases": [{"name": "bug", "when": "input.bug", "then": ["fix"]}], "default": ["other"]}},
    "approval": {
        "approval": {
            "ask": "Refund?",
            "principals": ["ann"],
            "expires_s": 60,
            "on_expiry": "escalate",
            "escalate_to": {"roles": ["finance"]},
        }
    },
    "wait": {"wait": {"for_s": 60}},
    "emit": {"emit": {"event": "order_paid", "data": {"id": "{{ input.id }}"}}},
}


def step(**fields: Any) -> StepSpec:
    return StepSpec.model_validate({"id": "a", **fields})


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_read_and_survives_a_plan(kind: str) -> None:
    """A plan writes every default out; reading it again must not take those for something that was given."""
    read = step(**STEPS[kind])
    assert read.kind == kind
    plan = Plan.pin(PlannedWorkflow(name="w", revision=1, spec=WorkflowSpec(steps=(read,))), {}, {})
    assert Plan.decode(plan.encode()) == plan


def test_work_is_found_wherever_it_stands() -> None:
    spec = WorkflowSpec.model_validate(
        {"steps": [{"id": f"s{n}", **fields} for n, fields in enumerate(STEPS.values())]}
    )
    assert [(path, work.target_kind, work.target) for path, work in spec.works()] == [
        ("steps[0]", "agent", "a"),
        ("steps[1]", "tool", "t"),
        ("steps[1].compensate", "tool", "undo"),
        ("steps[2]", "workflow", "w"),
        ("steps[3].map", "tool", "t"),
        ("steps[4].loop", "tool", "t"),
    ]
    assert step(tool="t", on_error={"fallback": "b"}).fallback == "b"
    assert step(tool="t", on_error="continue").fallback is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "give exactly one of agent, tool, workflow, map, loop, switch, approval, wait and emit"),
        ({"agent": "a", "map": {**BODY, "over": []}}, "got agent and map"),
        ({"map": {"over": []}}, "give exactly one of agent, tool and workflow"),
        ({"map": {**BODY, "agent": "a", "over": []}}, "got agent and tool"),
        ({"map": {**BODY, "over": "input.list"}}, "over must be a list"),
        ({"map": {**BODY, "over": 3}}, "should be a valid list"),
        ({"loop": {**BODY, "max": 0, "until": "x"}}, "greater than or equal to 1"),
        ({"switch": {"cases": [{"name": "x", "when": "a"}, {"name": "x", "when": "b"}]}}, "two cases are called 'x'"),
        ({"approval": {"ask": "?", "principals": ["ann", "ann"], "quorum": 2}}, "a quorum of 2 cannot be reached by 1"),
        ({"approval": {"ask": "?", "principals": ["an n"]}}, "should match pattern"),
        ({"approval": {"ask": "?", "on_expiry": "escalate", "expires_s": 1}}, "belong together"),
        ({"approval": {"ask": "?", "escalate_to": {}, "expires_s": 1}}, "belong together"),
        ({"approval": {"ask": "?", "escalate_to": {}, "on_expiry": "escalate"}}, "needs expires_s"),
        ({"wait": {}}, "give exactly one of for_s, until and signal"),
        ({"wait": {"for_s": 1, "signal": "x"}}, "got for_s and signal"),
        ({"wait": {"for_s": "soon"}}, "for_s must be a number of seconds"),
        ({"wait": {"until": "tomorrow"}}, "until must be a time with its zone"),
        ({"wait": {"until": "2026-05-01T09:00:00"}}, "until must be a time with its zone"),
        ({"emit": {"event": "Order.Paid"}}, "should match pattern"),
        ({"wait": {"for_s": 1}, "input": {"a": 1}}, "input belongs to agent, tool or workflow, not to wait"),
        ({"wait": {"for_s": 1}, "retry": {"max_attempts": 2}}, "retry belongs to"),
        ({"emit": {"event": "e"}, "compensate": BODY}, "compensate belongs to"),
        ({"tool": "t", "compensate": {}}, "give exactly one of agent, tool and workflow"),
    ],
)
def test_refusals(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        step(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"map": {**BODY, "over": [1, 2]}},
        {"approval": {"ask": "?", "principals": ["auth0|5f7c", "user:ann"], "roles": ["cn=finance"], "quorum": 2}},
        {"wait": {"for_s": "{{ input.n }}"}},
        {"wait": {"until": "{{ input.when }}"}},
        {"wait": {"until": "2026-05-01T09:00:00Z"}},
        {"wait": {"signal": "paid"}},
    ],
)
def test_what_is_accepted(fields: dict[str, Any]) -> None:
    assert step(**fields).kind in fields


def test_a_plan_covers_its_children() -> None:
    def plan(name: str, target: dict[str, Any], children: dict[str, Plan]) -> Plan:
        spec = WorkflowSpec.model_validate({"steps": [{"id": "a", **target}]})
        return Plan.pin(PlannedWorkflow(name=name, revision=1, spec=spec), {}, {}, children)

    grandchild = plan("g", {"tool": "t"}, {})
    child = plan("c", {"workflow": "g"}, {"g": grandchild})
    parent = plan("p", {"workflow": "c"}, {"c": child, "g": grandchild})
    assert {one.workflow.name for one in parent.family()} == {"p", "c", "g"}
    assert len(list(parent.family())) == 3
    edited = plan("g", {"tool": "other"}, {})
    assert plan("p", {"workflow": "c"}, {"c": child, "g": edited}).digest != parent.digest
    assert Plan.decode(parent.encode()) == parent
