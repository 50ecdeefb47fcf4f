"""The example is data: it has to be what the models take, and its mails what its README says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from paracle_domain.agent.inheritance import Layer, Origin, Resolved, resolve
from paracle_domain.manifest import AgentDocument, Manifest, ToolDocument, WorkflowDocument, parse_document
from paracle_domain.workflow.spec import WorkflowSpec

TRIAGE = Path(__file__).parents[2] / "examples" / "triage"


def _manifests() -> list[Manifest]:
    found = []
    for path in sorted(TRIAGE.glob("*.yaml")):
        documents: list[Any] = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
        found += [parse_document(document, index, path.name) for index, document in enumerate(documents, 1)]
    return found


@pytest.fixture(scope="module")
def agents() -> dict[str, Resolved]:
    layers = {
        one.metadata.name: Layer(Origin(one.metadata.name, 1), one.spec)
        for one in _manifests()
        if isinstance(one, AgentDocument)
    }
    return {name: resolve(name, layers.get) for name in layers}


@pytest.fixture(scope="module")
def workflow() -> WorkflowSpec:
    return next(one.spec for one in _manifests() if isinstance(one, WorkflowDocument))


def test_agents_inherit_from_one_base(agents: dict[str, Resolved]) -> None:
    base = agents["support-base"].spec
    children = [one for name, one in agents.items() if name != "support-base"]
    assert len(children) >= 2
    for child in children:
        assert [origin.name for origin in child.lineage][1:] == ["support-base"]
        assert child.spec.limits == base.limits
        assert base.instructions.strip() in child.spec.instructions, "the parent's instructions are included"
        assert "{{ parent }}" not in child.spec.instructions


def test_an_agent_calls_a_tool_by_itself(agents: dict[str, Resolved], workflow: WorkflowSpec) -> None:
    called = {agent for step in workflow.steps if (agent := step.agent) is not None}
    assert any(agents[name].spec.tools for name in called)


def test_every_name_is_there(agents: dict[str, Resolved], workflow: WorkflowSpec) -> None:
    tools = {one.metadata.name for one in _manifests() if isinstance(one, ToolDocument)}
    assert {step.tool for step in workflow.steps if step.tool} <= tools
    assert {step.agent for step in workflow.steps if step.agent} <= set(agents)
    assert {tool for agent in agents.values() for tool in agent.spec.tools} <= tools


def test_the_workflow_forks_joins_and_branches(workflow: WorkflowSpec) -> None:
    assert any(step.when for step in workflow.steps)
    assert sum(step.agent is not None and step.when is None for step in workflow.steps) >= 3


def test_tools_may_read_the_mails_and_nothing_else() -> None:
    readers = [one.spec for one in _manifests() if isinstance(one, ToolDocument) and one.spec.permissions.paths]
    assert [spec.permissions.paths for spec in readers] == [("examples/triage/mails",)]


def test_mails_are_of_every_kind() -> None:
    mails = sorted((TRIAGE / "mails").iterdir())
    sizes = {path.name: path.stat().st_size for path in mails}
    assert 12 <= len(mails) <= 16
    assert min(sizes.values()) == 0
    assert max(sizes.values()) > 200_000
    assert {path.suffix for path in mails} == {".eml", ".txt"}
    with pytest.raises(UnicodeDecodeError):
        (TRIAGE / "mails" / "04-kuendigung.eml").read_text(encoding="utf-8")
