"""What the journal of a long task takes: an agent that reads 5 KB a turn, for up to 400 turns.

`make bench ONLY=journal`, or by itself: `.venv/bin/python bench/journal.py`. The task machine is driven as the agent
runtime drives it, and the bytes of its events are counted as they are stored. Beside them stands what storing the
conversation anew with each turn would take, which is what ends such tasks elsewhere.
"""

from __future__ import annotations

from datetime import UTC, datetime

from paracle_domain.agent.spec import AgentSpec
from paracle_domain.inference.chat import ChatMessage, ToolCallPart
from paracle_domain.inference.response import Completion, FinishReason
from paracle_domain.inference.usage import Usage
from paracle_domain.machine import fold
from paracle_domain.plan import Plan, PlannedAgent, PlannedTool, PlannedWorkflow
from paracle_domain.task import inputs as told
from paracle_domain.task.events import dump_event
from paracle_domain.task.machine import decide
from paracle_domain.task.messages import Task, TaskStatus
from paracle_domain.task.state import Job, TaskState, evolve
from paracle_domain.tool.spec import ToolSpec
from paracle_domain.workflow.spec import WorkflowSpec

TURNS = (25, 50, 100, 200, 400)
OUTPUT = "x" * 5_000
AT = datetime(2026, 1, 1, tzinfo=UTC)


def run() -> dict[str, float]:
    """The curve, printed and as figures."""
    figures: dict[str, float] = {}
    print(f"\n{'turns':>8}{'journal bytes':>16}{'a turn':>10}{'stored anew each turn':>24}")
    for turns in TURNS:
        deltas, snapshots = _stored(turns)
        print(f"{turns:>8,}{deltas:>16,}{deltas // turns:>10,}{snapshots:>24,}")
        figures[f"journal.bytes_{turns}_turns"] = deltas
    return figures


def _stored(turns: int) -> tuple[int, int]:
    """Bytes of the events of a task of so many turns, and of its conversation if each turn stored all of it."""
    state = TaskState(Job.of(_task(), _plan()))
    deltas = snapshots = 0
    found: told.TaskInput = told.AcceptTask(AT)
    while not state.status.terminal:
        decision = decide(state, found)
        state = fold(evolve, state, decision.events)
        deltas += sum(len(dump_event(event)) for event in decision.events)
        if isinstance(found, told.ReplyCame):
            snapshots += sum(len(one.model_dump_json()) for one in state.messages)
        found = _next(state, turns)
    assert state.status is TaskStatus.COMPLETED, state.error
    return deltas, snapshots


def _next(state: TaskState, turns: int) -> told.TaskInput:
    """The tool's page, the model's wish for the next one, or, in the last turn, its answer."""
    if state.open_calls:
        return told.ToolSucceeded(AT, state.open_calls[0].id, OUTPUT, 0.1)
    if state.turn == turns - 1:
        return told.ReplyCame(AT, state.model_call_id, _says(ChatMessage.assistant("done")))
    wish = ToolCallPart(id=f"c{state.turn}", name="read", arguments={"page": state.turn})
    return told.ReplyCame(AT, state.model_call_id, _says(ChatMessage.assistant("", wish)))


def _says(message: ChatMessage) -> Completion:
    reason = FinishReason.TOOL_CALLS if message.tool_calls else FinishReason.STOP
    usage = Usage(input_tokens=10, output_tokens=5, model_calls=1)
    return Completion(
        message=message, finish_reason=reason, usage=usage, provider="sandbox", model="rules", latency_s=0.1
    )


def _task() -> Task:
    return Task(
        task_id="task_01JTQ000000000000000000001",
        run_id="run_01JTQ000000000000000000000",
        step="s",
        attempt=1,
        plan="sha256:0",
        target_kind="agent",
        target="reader",
        input={"text": "Read all of it."},
        effect_scope="s",
    )


def _plan() -> Plan:
    backend = {"type": "builtin", "function": "noop"}
    tool = ToolSpec.model_validate({"description": "reads a page", "backend": backend})
    limits = {"turns": 1_000, "tool_calls": 1_000}
    agent = AgentSpec.model_validate({"tools": ["read"], "limits": limits})
    workflow = WorkflowSpec.model_validate({"steps": [{"id": "s", "agent": "reader"}]})
    return Plan.pin(
        PlannedWorkflow(name="w", revision=1, spec=workflow),
        {"reader": PlannedAgent(name="reader", revision=1, spec=agent)},
        {"read": PlannedTool(name="read", revision=1, spec=tool)},
    )


if __name__ == "__main__":
    run()
