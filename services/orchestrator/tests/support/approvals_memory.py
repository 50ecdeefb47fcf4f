"""The list of approvals in memory, and samples of what stands in it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from paracle_chassis.event_store import EventStore
from paracle_domain.envelope import Context
from paracle_domain.errors import InvalidInput
from paracle_domain.ids import derive_id
from paracle_domain.run.commands import ApprovalPage, ApprovalStatus, ApprovalView, ListApprovals
from paracle_orchestrator.ports import Shown, newest

AT = datetime(2026, 1, 1, tzinfo=UTC)


def approval(run_id: str, step: str = "ok", second: int = 0, **more: Any) -> ApprovalView:
    """What a run asks, `second` seconds after the first."""
    given = {
        "approval_id": derive_id("apr", run_id, step),
        "run_id": run_id,
        "workflow": "w",
        "step": step,
        "status": ApprovalStatus.OPEN,
        "ask": "Refund?",
        "action": {"amount": 12},
        "digest": f"sha256:{step}",
        "requested_by": "ann",
        "asked_at": AT + timedelta(seconds=second),
        **more,
    }
    return ApprovalView.model_validate(given)


class ApprovalsInMemory:
    """`Approvals` in a dictionary. It keeps what is said of any run; its store says which have ended."""

    def __init__(self, store: EventStore) -> None:
        self._store = store
        self._shown: dict[str, Shown] = {}

    async def show(self, approvals: Sequence[Shown]) -> None:
        for one in newest((*self._shown.values(), *approvals)):
            if self._shown.setdefault(one.approval.approval_id, one).tenant == one.tenant:
                self._shown[one.approval.approval_id] = one

    async def get(self, tenant: str, approval_id: str) -> ApprovalView | None:
        found = self._shown.get(approval_id)
        return found.approval if found is not None and found.tenant == tenant else None

    async def left_open(self, after: str, limit: int) -> list[tuple[str, str]]:
        shown = [one.approval for one in self._shown.values() if one.approval.status is ApprovalStatus.OPEN]
        runs = await self._store.load({one.run_id for one in shown})
        ended = {run.id for run in runs.values() if run.finished_at is not None}
        found = sorted((one.approval_id, one.run_id) for one in shown if one.run_id in ended)
        return [one for one in found if one[0] > after][:limit]

    async def page(self, query: ListApprovals, call: Context) -> ApprovalPage:
        ours = (one.approval for one in self._shown.values() if one.tenant == call.tenant)
        found = sorted((one for one in ours if _matches(one, query, call)), key=_place, reverse=True)
        if query.cursor is not None:
            places = [str(_place(one)) for one in found]
            if query.cursor not in places:
                raise InvalidInput("is no cursor", path="cursor")
            found = found[places.index(query.cursor) + 1 :]
        shown = tuple(found[: query.limit])
        return ApprovalPage(approvals=shown, next_cursor=str(_place(shown[-1])) if len(found) > query.limit else None)


def _place(one: ApprovalView) -> tuple[bool, datetime, str]:
    return one.status is ApprovalStatus.OPEN, one.asked_at, one.approval_id


def _matches(one: ApprovalView, query: ListApprovals, call: Context) -> bool:
    asked = {*one.principals, *one.roles}
    return (
        query.status in {None, one.status}
        and query.run_id in {None, one.run_id}
        and query.workflow in {None, one.workflow}
        and (query.approver is None or query.approver in asked)
        and (not query.mine or _may_decide(one, call))
    )


def _may_decide(one: ApprovalView, call: Context) -> bool:
    asked = not (one.principals or one.roles)
    asked |= call.principal in one.principals or bool(set(call.roles) & set(one.roles))
    decided = any(decision.principal == call.principal for decision in one.decisions)
    return (
        one.status is ApprovalStatus.OPEN and asked and not decided and (one.own or one.requested_by != call.principal)
    )
