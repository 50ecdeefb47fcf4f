"""Delegation: other agents as tools. What a delegate is asked, how far it may go, and when the asking goes in a circle.

A delegate works on a task of its own, with a journal of its own. Its limits are its agent's, and never more than what
is left of its parent's: so the limits of a task hold for all that it sets going.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from pydantic import JsonValue

from paracle_domain.agent.spec import Delegate, Limits
from paracle_domain.errors import LimitExceeded, LoopDetected, ParacleError
from paracle_domain.ids import derive_id
from paracle_domain.inference.usage import Usage
from paracle_domain.messages import JsonObject
from paracle_domain.plan import PlannedAgent
from paracle_domain.task.fingerprints import fingerprint
from paracle_domain.task.messages import Allowance, Task, TaskParent

if TYPE_CHECKING:
    from paracle_domain.task.state import MadeCall, TaskState

MAX_DEPTH: Final = 5
SAME_QUESTIONS: Final = 3
"""How often an agent may be asked the same in one line of delegation before it is a loop."""
_TEXT: Final[JsonObject] = {
    "type": "object",
    "properties": {"text": {"type": "string", "description": "what to do, with all that has to be known for it"}},
    "required": ["text"],
    "additionalProperties": False,
}


@dataclass(frozen=True, slots=True)
class Helper:
    """A delegate of the agent at work, as its model sees it."""

    delegate: Delegate
    agent: PlannedAgent

    @property
    def handoff(self) -> bool:
        return self.delegate.mode == "handoff"

    @property
    def description(self) -> str:
        said = self.delegate.description or self.agent.spec.description or f"The agent {self.agent.name}."
        if self.handoff:
            return f"Hands the task over, for good. Who answers then: {said}"
        return said

    @property
    def input_schema(self) -> JsonObject:
        """Models call with named arguments: an input that is anything else goes under `input`."""
        schema = self.agent.spec.input
        if not schema:
            return _TEXT
        if self._named:
            return {"type": "object", **schema}
        return {"type": "object", "properties": {"input": schema}, "required": ["input"]}

    @property
    def _named(self) -> bool:
        schema = self.agent.spec.input
        return schema.get("type", "object") == "object" and ("type" in schema or "properties" in schema)

    def input_of(self, arguments: JsonObject) -> JsonValue:
        """What the delegate gets when it is called with `arguments`."""
        return arguments if self._named or not self.agent.spec.input else arguments.get("input")


def limits_of(agent: PlannedAgent, allowance: Allowance | None) -> Limits:
    """How far a task of `agent` may go: as far as its spec says, and no further than it was allowed."""
    own = agent.spec.limits
    if allowance is None:
        return own
    costs = [cost for cost in (own.cost_usd, allowance.cost_usd) if cost is not None]
    return own.model_copy(
        update={
            "turns": min(own.turns, allowance.turns),
            "tool_calls": min(own.tool_calls, allowance.tool_calls),
            "tokens": min(own.tokens, allowance.tokens),
            "wall_time_s": min(own.wall_time_s, allowance.wall_time_s),
            "cost_usd": min(costs, default=None),
        }
    )


def share(limits: Limits, turns_used: int, used: Usage, left_s: float, helpers: int) -> Allowance | ParacleError:
    """What each of `helpers` delegates that begin together may use of what is left, or why none may begin.

    One turn is kept for the agent itself, which has to make something of the answers.
    """
    turns = (limits.turns - turns_used - 1) // helpers
    tokens = (limits.tokens - used.total_tokens) // helpers
    if turns < 1:
        return LimitExceeded(f"limits.turns: {turns_used} of {limits.turns} are used, none is left for a delegate")
    if tokens < 1:
        return LimitExceeded(f"limits.tokens: {used.total_tokens:,} of {limits.tokens:,} are used, none is left")
    cost: Decimal | None = None
    if limits.cost_usd is not None:
        if used.cost_usd is None:
            return LimitExceeded("limits.cost_usd: the price of a call is unknown, so the limit cannot be held")
        cost = max(limits.cost_usd - used.cost_usd, Decimal(0)) / helpers
        if not cost and used.cost_usd:
            return LimitExceeded(f"limits.cost_usd: {used.cost_usd} of {limits.cost_usd} USD are spent")
    calls = max(limits.tool_calls - used.tool_calls, 0) // helpers
    return Allowance(turns=turns, tool_calls=calls, tokens=tokens, cost_usd=cost, wall_time_s=max(left_s, 0.001))


def asked_again(task: Task, agent: str, value: JsonValue) -> ParacleError | None:
    """Why the agent of `task` may not ask `agent` for `value`: it is too deep down, or all of this was asked before."""
    line = (*task.lineage, fingerprint(task.target, task.input))
    if len(line) > MAX_DEPTH:
        return LimitExceeded(f"delegation goes {MAX_DEPTH} agents deep at most; do it yourself")
    if line.count(fingerprint(agent, value)) >= SAME_QUESTIONS - 1:
        return LoopDetected(f"agent {agent!r} was asked the very same {SAME_QUESTIONS - 1} times on the way here")
    return None


def child_id(task: Task, call_id: str) -> str:
    """The id of the task that `call_id` of `task` sets going."""
    return derive_id("task", task.task_id, "delegate", call_id)


def child_task(state: TaskState, call: MadeCall) -> Task:
    """The task of the delegate that `call` asked: the same whenever it is asked for.

    Its effects are keyed by the way that leads to it, whatever the attempt of the step.
    """
    task, given = state.job.task, call.delegated
    assert given is not None
    helper = state.job.helpers[call.tool]
    before = state.calls[: state.calls.index(call)]
    nth = sum(one.fingerprint == call.fingerprint for one in before)
    return Task(
        task_id=given.task_id,
        run_id=task.run_id,
        step=task.step,
        attempt=task.attempt,
        plan=task.plan,
        target_kind="agent",
        target=given.agent,
        input=helper.input_of(call.arguments),
        effect_scope=f"{task.effect_scope}>{call.tool}.{call.fingerprint}.{nth}",
        deadline_at=task.deadline_at,
        parent=TaskParent(
            task_id=task.task_id,
            call_id=call.id,
            agent=task.target,
            depth=len(task.lineage) + 1,
            lineage=(*task.lineage, fingerprint(task.target, task.input)),
            root=task.root,
        ),
        allowance=given.allowance,
        forked_from=task.forked_from,
        principal=task.principal,
        project=task.project,
    )
