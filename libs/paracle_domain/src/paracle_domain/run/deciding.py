"""What a decision makes of an approval, of a step or of a tool call; and how those of tool calls stand.

The list of approvals is where those of tool calls live. Every change makes `version_of` greater, so of two who change
one at the same time, one sees that the other was first.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from paracle_domain.envelope import ANONYMOUS
from paracle_domain.errors import Conflict, Forbidden, ParacleError
from paracle_domain.run.commands import ApprovalStatus, ApprovalView, AskForCall, Decision
from paracle_domain.run.inbox import Decide
from paracle_domain.workflow.spec import Approvers


def asked(request: AskForCall, workflow: str, requested_by: str) -> ApprovalView:
    """The approval that `request` opens."""
    expires = None if request.expires_s is None else request.asked_at + timedelta(seconds=request.expires_s)
    fields = request.model_dump(exclude={"expires_s", "escalate_to"})
    return ApprovalView(
        **fields,
        workflow=workflow,
        requested_by=requested_by,
        status=ApprovalStatus.OPEN,
        expires_at=expires,
        escalate_to=request.escalate_to,
    )


def version_of(view: ApprovalView) -> int:
    """Which of its changes an approval has had last: 1 is that it was asked. Each makes it greater by one."""
    alone = view.status in {ApprovalStatus.EXPIRED, ApprovalStatus.VOID}
    return 1 + len(view.decisions) + view.escalated + alone


def at_time(view: ApprovalView, now: datetime) -> ApprovalView:
    """What time alone makes of `view` by `now`, one change at a time: others are asked, or it has expired."""
    if view.status is not ApprovalStatus.OPEN or view.expires_at is None or view.expires_at > now:
        return view
    others = None if view.escalated else view.escalate_to
    return _ended(view, ApprovalStatus.EXPIRED, now) if others is None else _escalated(view, others, view.expires_at)


def withdrawn(view: ApprovalView, now: datetime) -> ApprovalView:
    """Nobody waits for it any more."""
    return _ended(view, ApprovalStatus.VOID, now) if view.status is ApprovalStatus.OPEN else view


def decided(view: ApprovalView, message: Decide, now: datetime) -> ApprovalView | ParacleError:
    """`view` after a decision, or why that does not count. The same person deciding the same again changes nothing."""
    refused = objection(view, message)
    if refused is not None:
        return refused
    if _made_by(message.principal, view) is not None:
        return view
    decision = Decision(principal=message.principal, decision=message.decision, reason=message.reason, at=now)
    view = view.model_copy(update={"decisions": (*view.decisions, decision)})
    if message.decision == "reject":
        return _ended(view, ApprovalStatus.REJECTED, now)
    return _ended(view, ApprovalStatus.APPROVED, now) if len(view.decisions) >= view.quorum else view


def objection(view: ApprovalView, message: Decide) -> ParacleError | None:
    """Why a decision does not count, or nothing if it does, or did."""
    if message.digest != view.digest:
        return Conflict("this is not what is to be approved; look at it again, and decide upon that", path="digest")
    made = _made_by(message.principal, view)
    if made is not None:
        same = made.decision == message.decision
        return None if same else Conflict(f"{message.principal} has decided already: {made.decision}")
    if view.status is not ApprovalStatus.OPEN:
        return Conflict(f"approval {view.approval_id} is over: it is {view.status}")
    return _not_entitled(view, message)


def _made_by(principal: str, view: ApprovalView) -> Decision | None:
    """What the same person decided before."""
    return next((made for made in view.decisions if made.principal == principal), None)


def _not_entitled(view: ApprovalView, message: Decide) -> Forbidden | None:
    """Why whoever decides may not."""
    anyone = not view.principals and not view.roles
    if not anyone and message.principal not in view.principals and not set(view.roles) & set(message.roles):
        return Forbidden(f"{message.principal} is not among those who may decide this")
    if not view.own and message.decision == "approve" and message.principal == view.requested_by:
        unknown = "; say who you are to the API, as docs/people.md tells" if message.principal == ANONYMOUS else ""
        return Forbidden(f"{message.principal} started the run, and may not approve it (own: false){unknown}")
    return None


def _ended(view: ApprovalView, status: ApprovalStatus, now: datetime) -> ApprovalView:
    return view.model_copy(update={"status": status, "decided_at": now})


def _escalated(view: ApprovalView, others: Approvers, at: datetime) -> ApprovalView:
    expires = None if others.expires_s is None else at + timedelta(seconds=others.expires_s)
    who = {"principals": others.principals, "roles": others.roles, "expires_at": expires}
    return view.model_copy(update={**who, "escalated": True})
