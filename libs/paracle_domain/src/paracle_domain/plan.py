"""A plan: all that a run needs to know, pinned when it starts.

It holds the workflow and every agent (with its inheritance resolved) and tool that the workflow can reach, each with
its revision. One digest over the whole names it: what has the same digest is the same in every part, so edits never
change a live run, and any service may cache plans by digest for ever.
"""

from __future__ import annotations

import hashlib
import json
from typing import Final, Self

from paracle_domain.agent.spec import AgentSpec
from paracle_domain.messages import JsonObject, Message, Value
from paracle_domain.tool.spec import ToolSpec
from paracle_domain.workflow.spec import WorkflowSpec

CONTRACT_VERSION: Final = "1.0"


class PlannedWorkflow(Value):
    """The workflow of a plan. `revision` is 0 for one made up for an `invoke`."""

    name: str
    revision: int
    spec: WorkflowSpec


class PlannedAgent(Value):
    """An agent of a plan: `spec` is resolved, its `extends` and list edits applied and gone."""

    name: str
    revision: int
    spec: AgentSpec


class PlannedTool(Value):
    """A tool of a plan."""

    name: str
    revision: int
    spec: ToolSpec


class Plan(Message, type_name="plan"):
    """Everything a run uses, under one digest."""

    digest: str
    contract: str = CONTRACT_VERSION
    workflow: PlannedWorkflow
    agents: dict[str, PlannedAgent] = {}
    tools: dict[str, PlannedTool] = {}

    @classmethod
    def pin(
        cls,
        workflow: PlannedWorkflow,
        agents: dict[str, PlannedAgent],
        tools: dict[str, PlannedTool],
    ) -> Self:
        """The plan of these parts, its digest computed."""
        parts: JsonObject = {
            "contract": CONTRACT_VERSION,
            "workflow": workflow.model_dump(mode="json"),
            "agents": {name: agent.model_dump(mode="json") for name, agent in agents.items()},
            "tools": {name: tool.model_dump(mode="json") for name, tool in tools.items()},
        }
        return cls(digest=digest_of(parts), workflow=workflow, agents=agents, tools=tools)


def digest_of(value: JsonObject) -> str:
    """SHA-256 of `value` as canonical JSON (sorted keys, no spaces), as `sha256:…`."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
