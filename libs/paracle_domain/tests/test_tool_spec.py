"""Names in tools that end up in subjects, and what may be called again at will."""

import pytest
from pydantic import TypeAdapter, ValidationError

from paracle_domain.plan import Plan, PlannedTool, PlannedWorkflow
from paracle_domain.tool.spec import ToolSpec, WorkerTool
from paracle_domain.workflow.spec import WorkflowSpec

NAMES: TypeAdapter[str] = TypeAdapter(WorkerTool)


@pytest.mark.parametrize("name", ["", "a.b", "*", ">", "a b", "x" * 65])
def test_what_is_no_token_is_no_tool_of_a_worker(name: str):
    with pytest.raises(ValidationError, match="no name of a worker's tool"):
        NAMES.validate_python(name)


def test_a_token_is_a_tool_of_a_worker():
    assert NAMES.validate_python("look_up-2") == "look_up-2"


NOOP = {"type": "builtin", "function": "noop"}


@pytest.mark.parametrize(
    ("spec", "plain", "light"),
    [
        ({"backend": NOOP}, True, True),
        ({"backend": NOOP, "effect": "idempotent"}, False, False),
        ({"backend": NOOP, "approval": {"roles": ["boss"]}}, False, False),
        ({"backend": {"type": "builtin", "function": "read_text"}}, True, False),
        ({"backend": {"type": "nats", "tool": "look_up"}}, True, False),
    ],
)
def test_what_changes_nothing_is_plain_and_light_if_it_needs_nothing_but_its_arguments(
    spec: dict[str, object], plain: bool, light: bool
):
    tool = ToolSpec.model_validate({"description": "d", **spec})
    workflow = PlannedWorkflow(
        name="w", revision=1, spec=WorkflowSpec.model_validate({"steps": [{"id": "a", "tool": "t"}]})
    )
    plan = Plan.pin(workflow, {}, {"t": PlannedTool(name="t", revision=1, spec=tool)})
    assert (tool.plain, tool.light, plan.is_light("t")) == (plain, light, light)
    assert not plan.is_light("another")
