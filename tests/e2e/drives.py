"""What people do to runs while those are under way."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from tests.e2e.desk import Desk

from paracle_chassis.testing.eventually import eventually
from paracle_domain.run.commands import (
    ApprovalView,
    CancelRun,
    DecideApproval,
    ListApprovals,
    PauseRun,
    ResumeRun,
    RunStatus,
    SignalRun,
    StepStatus,
)

type Drive = Callable[[Desk, str], Awaitable[None]]

_PATIENCE_S: Final = 90.0


async def leave_alone(_desk: Desk, _run_id: str) -> None:
    """The run goes its way."""


async def cancel(desk: Desk, run_id: str) -> None:
    """Cancel it once its step `slow` runs."""
    await _begun(desk, run_id, "slow")
    _ = await desk.order(CancelRun(run_id=run_id, reason="enough"))


async def approve(desk: Desk, run_id: str) -> None:
    """Approve what it asks for."""
    asked = await _asked(desk, run_id)
    order = DecideApproval(
        approval_id=asked.approval_id, digest=asked.digest, decision="approve", reason="it looks right"
    )
    _ = await desk.order(order)


async def reject(desk: Desk, run_id: str) -> None:
    """Reject what it asks for."""
    asked = await _asked(desk, run_id)
    order = DecideApproval(approval_id=asked.approval_id, digest=asked.digest, decision="reject", reason="too much")
    _ = await desk.order(order)


async def signal(desk: Desk, run_id: str) -> None:
    """Tell it what it waits for, perhaps before it does."""
    _ = await desk.order(SignalRun(run_id=run_id, signal="paid", payload={"amount": 7}))


async def pause(desk: Desk, run_id: str) -> None:
    """Let it rest while its step `slow` waits, until it is seen to; then it is told what it waits for."""
    await _begun(desk, run_id, "slow")
    _ = await desk.order(PauseRun(run_id=run_id))

    async def rests() -> bool:
        return (await desk.get_run(run_id)).run.status is RunStatus.PAUSED

    await eventually(rests, within_s=_PATIENCE_S)
    _ = await desk.order(ResumeRun(run_id=run_id))
    await signal(desk, run_id)


async def _asked(desk: Desk, run_id: str) -> ApprovalView:
    async def found() -> ApprovalView | None:
        page = await desk.ask(ListApprovals(run_id=run_id))
        return page.approvals[0] if page.approvals else None

    asked = await eventually(found, within_s=_PATIENCE_S)
    assert asked is not None
    return asked


async def _begun(desk: Desk, run_id: str, step: str) -> None:
    async def begun() -> bool:
        view = await desk.get_run(run_id)
        return any(one.id == step and one.status in {StepStatus.RUNNING, StepStatus.WAITING} for one in view.steps)

    await eventually(begun, within_s=_PATIENCE_S)
