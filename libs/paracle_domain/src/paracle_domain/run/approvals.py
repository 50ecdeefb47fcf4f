"""Approvals: people are asked, and what they decide counts only for exactly what they were shown."""

from __future__ import annotations

from datetime import datetime, timedelta

from paracle_domain.errors import (
    ApprovalExpired,
    ApprovalRejected,
    Conflict,
    DeadlineExceeded,
    ExpressionFailed,
    NotFound,
    ParacleError,
    quote,
)
from paracle_domain.messages import JsonObject
from paracle_domain.plan import digest_of
from paracle_domain.run import orders
from paracle_domain.run.commands import Decision, StepStatus
from paracle_domain.run.deciding import not_entitled
from paracle_domain.run.draft import Draft
from paracle_domain.run.events import ApprovalAsked, ApprovalDecided, ApprovalEscalated
from paracle_domain.run.inbox import Decide
from paracle_domain.run.nodes import Node
from paracle_domain.run.state import Asked, RunState, StepState
from paracle_domain.run.timing import due, repeats


def ask(draft: Draft, node: Node) -> None:
    """Ask. What exactly is asked is fixed now, by its digest."""
    spec, started = node.spec.approval, draft.state.started_event
    assert spec is not None
    question = node.formulas["approval.ask"].evaluate(draft.state)
    if not isinstance(question, str):
        raise ExpressionFailed(f"approval.ask must give text (it gave {quote(question)})", path="approval.ask")
    action = node.formulas["approval.action"].evaluate(draft.state)
    shown: JsonObject = {
        "tenant": started.tenant,
        "run": started.run_id,
        "plan": started.plan,
        "step": node.name,
        "ask": question,
        "action": action,
    }
    draft.happen(
        ApprovalAsked(
            step=node.name,
            approval_id=orders.approval_id_of(started.run_id, node.name),
            ask=question,
            action=action,
            digest=digest_of(shown),
            principals=spec.principals,
            roles=spec.roles,
            quorum=spec.quorum,
            own=spec.own,
            expires_at=_after(draft, spec.expires_s),
            deadline_at=_after(draft, node.spec.timeout_s),
        )
    )
    draft.send(orders.show_approval(draft.state, node.name))


def _after(draft: Draft, seconds: float | None) -> datetime | None:
    return None if seconds is None else draft.now + timedelta(seconds=seconds)


def decide(draft: Draft, message: Decide) -> None:
    """Somebody decided; what does not count changes nothing (`objection` says why)."""
    state = draft.state
    if objection(state, message) is not None or _decided(state, message) is not None:
        return
    node = draft.nodes[state.aside.approvals[message.approval_id]]
    draft.happen(
        ApprovalDecided(
            step=node.name,
            approval_id=message.approval_id,
            principal=message.principal,
            decision=message.decision,
            reason=message.reason,
        )
    )
    step = draft.step(node)
    assert step is not None
    assert isinstance(step.detail, Asked)
    _conclude(draft, node, step.detail, message)
    draft.send(orders.show_approval(draft.state, node.name))


def _conclude(draft: Draft, node: Node, approval: Asked, message: Decide) -> None:
    if message.decision == "reject":
        reason = f": {message.reason}" if message.reason else ""
        draft.fail(node, ApprovalRejected(f"{message.principal} rejected{reason}").to_info())
    elif len(approval.decisions) >= approval.asked.quorum:
        decisions = [decision.model_dump(mode="json") for decision in approval.decisions]
        draft.complete(node, {"approved": True, "decisions": list(decisions)})


def objection(state: RunState, message: Decide) -> ParacleError | None:
    """Why a decision does not count, or nothing if it does, or did."""
    name = state.aside.approvals.get(message.approval_id)
    step = state.steps.get(name) if name is not None else None
    if step is None or not isinstance(step.detail, Asked):
        return NotFound(f"there is no approval {quote(message.approval_id)} in this run", path="approval_id")
    asked = step.detail.asked
    if message.digest != asked.digest:
        return Conflict("this is not what is to be approved; look at it again, and decide upon that", path="digest")
    if (made := _decided(state, message)) is not None:
        if made.decision == message.decision:
            return None
        return Conflict(f"{message.principal} has decided already: {made.decision}")
    if step.status is not StepStatus.WAITING:
        return Conflict(f"approval {message.approval_id} is over: its step is {step.status}")
    approvers = step.detail.approvers
    return not_entitled(
        approvers.principals,
        approvers.roles,
        own=asked.own,
        requested_by=state.started_event.principal,
        message=message,
    )


def _decided(state: RunState, message: Decide) -> Decision | None:
    """What the same person decided before."""
    step = state.steps[state.aside.approvals[message.approval_id]]
    assert isinstance(step.detail, Asked)
    return next((made for made in step.detail.decisions if made.principal == message.principal), None)


def tick(draft: Draft, node: Node, step: StepState, approval: Asked) -> None:
    """Time has come to an approval: nobody decided in time, or it is to be shown again."""
    if due(step.deadline_at, draft.now):
        late = DeadlineExceeded(f"nobody decided within the step's timeout_s of {node.spec.timeout_s:g} s")
        draft.fail(node, late.to_info(), timed_out=True)
    elif due(approval.expires_at, draft.now):
        _expire(draft, node, approval)
    elif step.attempt_at is None or not repeats(draft.now - step.attempt_at)[0]:
        return
    draft.send(orders.show_approval(draft.state, node.name))


def _expire(draft: Draft, node: Node, approval: Asked) -> None:
    spec = node.spec.approval
    assert spec is not None
    others = spec.escalate_to
    if others is None or approval.escalation is not None:
        draft.fail(node, ApprovalExpired("nobody, or too few, decided in time").to_info())
        return
    draft.happen(
        ApprovalEscalated(
            step=node.name,
            approval_id=approval.asked.approval_id,
            principals=others.principals,
            roles=others.roles,
            expires_at=_after(draft, others.expires_s),
        )
    )
