"""The plan of the runtime's tests: agents and tools of all kinds, and tasks of them."""

from __future__ import annotations

from typing import Any

from paracle_chassis.bus import Outgoing
from paracle_domain import subjects
from paracle_domain.agent.spec import AgentSpec
from paracle_domain.envelope import Context, Envelope
from paracle_domain.ids import derive_id, new_id
from paracle_domain.plan import Plan, PlannedAgent, PlannedTool, PlannedWorkflow
from paracle_domain.task.messages import CancelTask, Task
from paracle_domain.tool.spec import ToolSpec
from paracle_domain.workflow.spec import WorkflowSpec

CONTEXT = Context("default", principal="ada")
NUMBER = {"type": "object", "properties": {"n": {"type": "integer"}}}


def tool(name: str, effect: str = "none", function: str = "noop", **spec: Any) -> PlannedTool:
    backend = {"type": "builtin", "function": function}
    found = ToolSpec.model_validate({"description": name, "backend": backend, "effect": effect, **spec})
    return PlannedTool(name=name, revision=1, spec=found)


TOOLS = {
    made.name: made
    for made in (
        tool("look", input=NUMBER),
        tool("save", "idempotent"),
        tool("pay", "at_most_once"),
        tool("nap", function="sleep"),
        tool("hang", "at_most_once", function="sleep"),
        tool("guarded", "at_most_once", approval={"when": "arguments.n > 1"}),
        tool("peek", approval={}),
        PlannedTool(
            name="page",
            revision=1,
            spec=ToolSpec.model_validate(
                {
                    "description": "5 KB of text",
                    "backend": {"type": "builtin", "function": "noop", "options": {"text": "x" * 5_000}},
                }
            ),
        ),
    )
}


def _wired(name: str, probe: str, **spec: Any) -> PlannedTool:
    """A tool that takes its time, and whose calls in doubt `probe` looks into, at once and twice at most."""
    asking = {"tool": probe, "settle_s": 0, "attempts": 2}
    return tool(name, "at_most_once", function="sleep", probe=asking, **spec)


def _looking(name: str, **options: Any) -> PlannedTool:
    backend = {"type": "builtin", "function": "noop", "options": options}
    return PlannedTool(name=name, revision=1, spec=ToolSpec.model_validate({"description": name, "backend": backend}))


PROBED = {
    made.name: made
    for made in (
        _wired("wire", "found"),
        _wired("lost", "missed"),
        _wired("odd", "found", output={"type": "string"}),
        _wired("dark", "blind"),
        _looking("found", outcome="done", output={"id": 7}),
        _looking("missed", outcome="not_done"),
        tool("blind", function="calculate"),
    )
}
"""Tools with probes that know, that know of nothing, and that cannot tell."""
AGENTS = {
    name: PlannedAgent(name=name, revision=1, spec=AgentSpec.model_validate(spec))
    for name, spec in {
        "helper": {"instructions": "Help.", "tools": list(TOOLS)},
        "strict": {"output": {"type": "object", "required": ["label"]}, "limits": {"output_repairs": 1}},
        "hasty": {"limits": {"wall_time_s": 0.05}},
        "broken": {"output": {"type": "nonsense"}, "limits": {"output_repairs": 0}},
        "boss": {
            "tools": ["look", "pay"],
            "delegates": [{"agent": "helper"}, {"agent": "boss"}, {"agent": "picky", "mode": "handoff"}],
            "limits": {"wall_time_s": 30},
        },
        "careful": {"tools": ["guarded", "save"]},
        "reader": {"tools": ["page"], "limits": {"turns": 200, "tool_calls": 200}},
        "chatty": {"compaction": {"above_tokens": 200, "keep_last": 1}},
        "brief": {"delegates": [{"agent": "boss"}], "limits": {"wall_time_s": 0.1}},
        "picky": {"input": {"type": "object", "required": ["text"]}},
    }.items()
}
PLAN = Plan.pin(
    PlannedWorkflow(
        name="w", revision=1, spec=WorkflowSpec.model_validate({"steps": [{"id": "s", "agent": "helper"}]})
    ),
    AGENTS,
    {**TOOLS, **PROBED},
)


def task(target: str, value: Any = None, **changes: Any) -> Task:
    run_id = new_id("run")
    fields = {
        "task_id": derive_id("task", run_id, "s", 1),
        "run_id": run_id,
        "step": "s",
        "attempt": 1,
        "plan": PLAN.digest,
        "target_kind": "agent" if target in AGENTS else "tool",
        "target": target,
        "input": {} if value is None else value,
        "effect_scope": "s",
    }
    return Task.model_validate({**fields, **changes})


def sent(task: Task, tenant: str = "default", id: str | None = None) -> Outgoing:  # the envelope's word
    envelope = Envelope.wrap(task.type_name, "test", Context(tenant, correlation_id=task.run_id), id=id or task.task_id)
    return Outgoing(subjects.task(tenant, "agents"), task, envelope)


def cancel(task: Task) -> CancelTask:
    return CancelTask(task_id=task.task_id, run_id=task.run_id, step=task.step, attempt=task.attempt, reason="enough")


SESSION = new_id("ses")


def turn(text: str, session: str = SESSION, **changes: Any) -> Task:
    """A turn of a session."""
    return task("helper", {"text": text, "session": session}, **changes)
