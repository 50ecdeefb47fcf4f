"""A plan: all that a run needs to know, pinned when it starts.

It holds the workflow and all that it can reach: agents (with their inheritance resolved), tools, and child workflows
(each as a plan of its own), each with its revision. One digest over the whole names it: what has the same digest is the
same in every part, so edits never change a live run, and any service may cache plans by digest for ever.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Final, Self

from pydantic import Field

from paracle_domain.agent.spec import AgentSpec
from paracle_domain.messages import JsonObject, Message, Value
from paracle_domain.subjects import DEFAULT_POOL
from paracle_domain.tool.spec import ToolSpec
from paracle_domain.workflow.spec import WorkflowSpec, WorkSpec

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
    children: dict[str, Plan] = Field(default={}, description="plans of the workflows that steps start, by name")

    @classmethod
    def pin(
        cls,
        workflow: PlannedWorkflow,
        agents: dict[str, PlannedAgent],
        tools: dict[str, PlannedTool],
        children: dict[str, Plan] | None = None,
    ) -> Self:
        """The plan of these parts, its digest computed. It covers the children by their digests."""
        children = children or {}
        parts: JsonObject = {
            "contract": CONTRACT_VERSION,
            "workflow": workflow.model_dump(mode="json"),
            "agents": {name: agent.model_dump(mode="json") for name, agent in agents.items()},
            "tools": {name: tool.model_dump(mode="json") for name, tool in tools.items()},
            "children": {name: child.digest for name, child in children.items()},
        }
        return cls(digest=digest_of(parts), workflow=workflow, agents=agents, tools=tools, children=children)

    def is_light(self, tool: str) -> bool:
        """Whether calls of `tool` cost so little that many can be handed out, and done again, together."""
        found = self.tools.get(tool)
        return found is not None and found.spec.light

    def pool_of(self, work: WorkSpec) -> str | None:
        """The worker pool that tasks of `work` go to, if it is not the default one."""
        planned = self.agents.get(work.target) if work.agent else self.tools.get(work.target) if work.tool else None
        pool = work.pool or (planned.spec.pool if planned is not None else None)
        return None if pool == DEFAULT_POOL else pool

    def family(self) -> Iterator[Plan]:
        """This plan and those of all children, at any depth, each once."""
        found: dict[str, Plan] = {}
        ahead = [self]
        while ahead:
            plan = ahead.pop()
            if plan.digest not in found:
                found[plan.digest] = plan
                ahead.extend(plan.children.values())
        yield from found.values()


def digest_of(value: JsonObject) -> str:
    """SHA-256 of `value` as canonical JSON (sorted keys, no spaces), as `sha256:…`."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
