"""Approvals of tool calls: whether people are asked before a call, whom, and about what exactly.

A tool says when it wants people to be asked. An agent may say so too for a tool of its own, only more strictly: what
either of them wants asked is asked. Whatever cannot be evaluated is asked about.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Final

from pydantic import JsonValue

from paracle_domain.errors import ExpressionFailed
from paracle_domain.expressions import evaluate, truth
from paracle_domain.ids import derive_id
from paracle_domain.messages import JsonObject
from paracle_domain.plan import PlannedTool, digest_of
from paracle_domain.run.commands import ApprovalView
from paracle_domain.tool.spec import ToolApproval
from paracle_domain.workflow.spec import Approvers

if TYPE_CHECKING:
    from paracle_domain.task.state import Job, MadeCall

NAMES: Final = frozenset({"arguments"})
"""What expressions of a tool's approval see."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of people before a call. `digest` is that of all that they decide upon."""

    approval_id: str
    ask: str
    action: JsonObject
    digest: str
    rules: ToolApproval


def question(job: Job, call: MadeCall) -> Question | None:
    """What is asked before `call`; nothing if it may go ahead."""
    cost = cost_of(job.tools[call.tool], call.arguments)
    asked = any(wanted(policy, call.arguments, cost) for policy in _policies(job, call.tool) if policy is not None)
    return exact_question(job, call) if asked else None


def _policies(job: Job, tool: str) -> tuple[ToolApproval | None, ToolApproval | None]:
    """The tool's, and the agent's for it."""
    return job.tools[tool].spec.approval, job.agent.spec.approvals.get(tool) if job.agent is not None else None


def exact_question(job: Job, call: MadeCall) -> Question:
    """What is asked about `call`, by the rules of today."""
    tool, agent = job.tools[call.tool], job.agent
    cost = cost_of(tool, call.arguments)
    rules = stricter(*_policies(job, call.tool))
    ask = _ask(rules, call)
    action: JsonObject = {
        "tool": tool.name,
        "arguments": dict(call.arguments),
        "tool_revision": tool.revision,
        "tool_digest": digest_of(tool.spec.model_dump(mode="json")),
        "agent": agent.name if agent else None,
        "agent_revision": agent.revision if agent else None,
        "cost_usd": None if cost is None else str(cost),
    }
    task = job.task
    bound: JsonObject = {
        "run": task.run_id,
        "plan": task.plan,
        "step": task.step,
        "task": task.task_id,
        "call": call.id,
        "ask": ask,
        "action": action,
        "rules": rules.model_dump(mode="json"),
    }
    return Question(derive_id("apr", task.task_id, call.id), ask, action, digest_of(bound), rules)


def wanted(policy: ToolApproval, arguments: JsonObject, cost: Decimal | None) -> bool:
    """Whether `policy` wants people to be asked."""
    if policy.when is None and policy.above_usd is None:
        return True
    if policy.above_usd is not None and (cost is None or cost > policy.above_usd):
        return True
    if policy.when is None:
        return False
    try:
        return truth(policy.when, {"arguments": arguments})
    except ExpressionFailed:
        return True


def cost_of(tool: PlannedTool, arguments: JsonObject) -> Decimal | None:
    """What a call costs, if that can be known."""
    if tool.spec.cost_usd is None:
        return None
    try:
        found: JsonValue = evaluate(tool.spec.cost_usd, {"arguments": arguments})
        cost = Decimal(str(found))
    except (ExpressionFailed, InvalidOperation):
        return None
    return cost if cost.is_finite() else None


def stricter(base: ToolApproval | None, own: ToolApproval | None) -> ToolApproval:
    """Whose rules hold: the agent's, unless they are looser than the tool's."""
    if base is None or own is None:
        return own or base or ToolApproval()
    return base if any(True for _ in loosened(base, own)) else own


def loosened(base: ToolApproval, own: ToolApproval) -> Iterator[tuple[str, str]]:
    """Fields in which an agent's policy is looser than the tool's, and why."""
    if own.quorum < base.quorum:
        yield "quorum", f"the tool wants {base.quorum} approvals"
    if own.own and not base.own:
        yield "own", "the tool does not let those who start a run approve it"
    if base.expires_s is not None and (own.expires_s is None or own.expires_s > base.expires_s):
        yield "expires_s", f"the tool gives {base.expires_s:g} s"
    if base.on_rejection == "fail" and own.on_rejection == "tell":
        yield "on_rejection", "the tool wants the task to fail"
    if own.escalate_to not in (None, base.escalate_to):
        yield "escalate_to", "the tool does not escalate to these"
    if _named(base) and not (_named(own) and _named(own) <= _named(base)):
        yield "principals", "only some of those whom the tool asks may be asked"


def rejection(view: ApprovalView) -> tuple[str, str]:
    """Who rejected, and what he said about it."""
    against = next((one for one in view.decisions if one.decision == "reject"), None)
    return against.principal if against else "somebody", f": {against.reason}" if against and against.reason else ""


def _named(rules: Approvers) -> frozenset[tuple[str, str]]:
    principals = {("principal", name) for name in rules.principals}
    return frozenset(principals | {("role", name) for name in rules.roles})


def _ask(rules: ToolApproval, call: MadeCall) -> str:
    plain = f"Call the tool {call.tool}?"
    if not rules.ask:
        return plain
    try:
        asked = evaluate(rules.ask, {"arguments": call.arguments})
    except ExpressionFailed:
        return plain
    return asked if isinstance(asked, str) else plain
