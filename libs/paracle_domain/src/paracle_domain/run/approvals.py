"""Approvals: people are asked, and what they decide counts only for exactly what they were shown."""

from __future__ import annotations

from datetime import datetime, timedelta

from paracle_domain.errors import (
    ApprovalExpired,
    ApprovalRejected,
    DeadlineExceeded,
    ExpressionFailed,
    NotFound,
    ParacleError,
    quote,
)
from paracle_domain.messages import JsonObject
from paracle_domain.plan import digest_of
from paracle_domain.run import deciding, orders
from paracle_domain.run.commands import ApprovalStatus, ApprovalView
from paracle_domain.run.draft import Draft
from paracle_domain.run.events import ApprovalAsked, ApprovalDecided, ApprovalEscalated
from paracle_domain.run.inbox import Decide
from paracle_domain.run.nodes import Node
from paracle_domain.run.state import Asked, RunState, StepState
from paracle_domain.run.timing import due, repeats, soonest


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
    _let_expire(draft, message.approval_id)
    view = _shown(draft.state, message.approval_id)
    after = deciding.decided(view, message, draft.now) if view is not None else None
    if view is None or after is view or not isinstance(after, ApprovalView):
        return
    node = draft.nodes[view.step]
    draft.happen(
        ApprovalDecided(
            step=node.name,
            approval_id=message.approval_id,
            principal=message.principal,
            decision=message.decision,
            reason=message.reason,
        )
    )
    if after.status is ApprovalStatus.REJECTED:
        reason = f": {message.reason}" if message.reason else ""
        draft.fail(node, ApprovalRejected(f"{message.principal} rejected{reason}").to_info())
    elif after.status is ApprovalStatus.APPROVED:
        decisions = [decision.model_dump(mode="json") for decision in after.decisions]
        draft.complete(node, {"approved": True, "decisions": list(decisions)})
    draft.send(orders.show_approval(draft.state, node.name))


def objection(draft: Draft, message: Decide) -> ParacleError | None:
    """Why a decision does not count, or nothing if it does, or did. `draft` is nobody's: time has its due in it."""
    _let_expire(draft, message.approval_id)
    view = _shown(draft.state, message.approval_id)
    if view is None:
        return NotFound(f"there is no approval {quote(message.approval_id)} in this run", path="approval_id")
    return deciding.objection(view, message)


def _let_expire(draft: Draft, approval_id: str) -> None:
    """What has expired is over, though nobody has looked at the clock: decisions may wait while services are away."""
    name = draft.state.aside.approvals.get(approval_id)
    if name is None:
        return
    step = draft.state.steps[name]
    assert isinstance(step.detail, Asked)
    if not step.ended and due(soonest((step.deadline_at, step.detail.expires_at)), draft.now):
        tick(draft, draft.nodes[name], step, step.detail)


def _shown(state: RunState, approval_id: str) -> ApprovalView | None:
    """The approval as it is shown."""
    name = state.aside.approvals.get(approval_id)
    return None if name is None else orders.show_approval(state, name).approval


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
