"""Approvals of tool calls: asked by the agent runtime, decided by people with the same commands as any other."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from paracle_domain.envelope import Context
from paracle_domain.errors import Conflict, Forbidden, NotFound
from paracle_domain.ids import derive_id, new_id
from paracle_domain.run.commands import (
    ApprovalStatus,
    AskForCall,
    DecideApproval,
    GetApproval,
    ListApprovals,
    WithdrawCall,
)
from paracle_domain.workflow.spec import Approvers

CALL = Context("acme", "agent_runtime")


def request(run_id: str, desk: Any, **more: Any) -> AskForCall:
    task_id = derive_id("task", run_id, "a", 1)
    fields = {"approval_id": derive_id("apr", task_id, "call"), "run_id": run_id, "task_id": task_id, "step": "a"}
    base = {"tool": "pay", "ask": "Pay?", "action": {"amount": 9}, "digest": "sha256:1", "asked_at": desk.now}
    return AskForCall.model_validate({**fields, **base, **more})


async def decide(desk: Any, asked: AskForCall, by: str = "bob", verdict: str = "approve", **more: Any) -> Any:
    command = DecideApproval.model_validate(
        {"approval_id": asked.approval_id, "digest": asked.digest, "decision": verdict, **more.pop("command", {})}
    )
    receipt = await desk.order(command, by=by, key=f"{by}-{verdict}", **more)
    [answer] = receipt.answers
    return answer


async def view(desk: Any, asked: AskForCall) -> Any:
    return await desk.service.get_approval(GetApproval(approval_id=asked.approval_id), CALL)


def told(desk: Any, tools: Any) -> list[tuple[str, int]]:
    return [(e["type"], e["seq"]) for e in tools.events(desk.bus.take()) if e["entity"] == "approval"]


async def test_a_call_is_asked_about_once_and_decided_like_any_approval(desk: Any, tools: Any) -> None:
    run_id = await desk.start()
    desk.bus.take()
    asked = request(run_id, desk)
    first = await desk.calls.ask(asked, CALL)
    assert (first.status, first.workflow, first.tool, first.action) == ("open", "w", "pay", {"amount": 9})
    assert await desk.calls.ask(asked, CALL) == first
    assert told(desk, tools) == [("approval.asked", 1)]
    page = await desk.service.list_approvals(ListApprovals(run_id=run_id), CALL)
    assert page.approvals == (first,)
    accepted = await decide(desk, asked, command={"reason": "fine"})
    assert accepted.run_id == run_id
    assert told(desk, tools) == [("approval.decided", 2)]
    ended = await desk.calls.ask(asked, CALL)
    assert (ended.status, [d.principal for d in ended.decisions]) == ("approved", ["bob"])


async def test_the_same_decision_again_is_told_again_and_changes_nothing(desk: Any, tools: Any) -> None:
    asked = request(await desk.start(), desk)
    await desk.calls.ask(asked, CALL)
    await decide(desk, asked)
    desk.bus.take()
    assert (await decide(desk, asked)).run_id == asked.run_id
    assert told(desk, tools) == [("approval.decided", 2)]


async def test_what_does_not_count_is_refused(desk: Any) -> None:
    asked = request(await desk.start(), desk, principals=("bob",), quorum=1)
    await desk.calls.ask(asked, CALL)
    assert isinstance(await decide(desk, asked, "eve"), Forbidden)
    assert isinstance(await decide(desk, asked, command={"digest": "sha256:other"}), Conflict)
    assert (await decide(desk, asked, verdict="reject")).run_id == asked.run_id
    assert isinstance(await decide(desk, asked), Conflict)
    assert (await view(desk, asked)).status is ApprovalStatus.REJECTED


async def test_who_started_the_run_may_not_approve(desk: Any) -> None:
    asked = request(await desk.start(), desk)
    await desk.calls.ask(asked, CALL)
    started_by = (await view(desk, asked)).requested_by
    assert isinstance(await decide(desk, asked, started_by), Forbidden)


async def test_two_who_decide_at_once_both_count(desk: Any, replica: Any) -> None:
    asked = request(await desk.start(), desk, quorum=2)
    await desk.calls.ask(asked, CALL)
    await asyncio.gather(decide(desk, asked, "bob"), decide(replica, asked, "carl"))
    found = await view(desk, asked)
    assert (found.status, len(found.decisions)) == ("approved", 2)


async def test_time_makes_it_expire_or_asks_others(desk: Any, tools: Any) -> None:
    run_id = await desk.start()
    asked = request(
        run_id, desk, principals=("bob",), expires_s=60, escalate_to=Approvers(roles=("boss",), expires_s=60)
    )
    await desk.calls.ask(asked, CALL)
    desk.now += timedelta(seconds=61)
    others = await view(desk, asked)
    assert (others.escalated, others.roles, others.principals) == (True, ("boss",), ())
    assert isinstance(await decide(desk, asked, "bob"), Forbidden)
    desk.now += timedelta(seconds=60)
    assert isinstance(await decide(desk, asked, "zoe", roles="boss"), Conflict)
    assert (await view(desk, asked)).status is ApprovalStatus.EXPIRED
    assert told(desk, tools)[-3:] == [("approval.asked", 1), ("approval.escalated", 2), ("approval.expired", 3)]


async def test_what_nobody_waits_for_is_void(desk: Any, tools: Any) -> None:
    asked = request(await desk.start(), desk)
    await desk.calls.ask(asked, CALL)
    for _ in range(2):
        await desk.calls.withdraw(WithdrawCall(approval_id=asked.approval_id), CALL)
    assert told(desk, tools) == [("approval.asked", 1), ("approval.void", 2)]
    assert isinstance(await decide(desk, asked), Conflict)


async def test_one_that_others_wait_for_too_is_withdrawn_by_its_asker_alone(desk: Any, tools: Any) -> None:
    asked = request(await desk.start(), desk)
    await desk.calls.ask(asked, CALL)
    await desk.calls.withdraw(WithdrawCall(approval_id=asked.approval_id, task_id=new_id("task")), CALL)
    assert (await view(desk, asked)).status is ApprovalStatus.OPEN
    await desk.calls.withdraw(WithdrawCall(approval_id=asked.approval_id, task_id=asked.task_id), CALL)
    assert (await view(desk, asked)).status is ApprovalStatus.VOID


async def test_of_a_run_that_has_ended_nothing_is_decided(desk: Any, tools: Any) -> None:
    run_id = await desk.start()
    asked = request(run_id, desk)
    await desk.calls.ask(asked, CALL)
    [task] = tools.tasks(desk.bus.take())
    await desk.cancel(run_id)
    await desk.finish(task, tools.cancelled)
    assert isinstance(await decide(desk, asked), Conflict)
    assert (await view(desk, asked)).status is ApprovalStatus.VOID


async def test_tenants_are_apart(desk: Any) -> None:
    run_id = await desk.start()
    asked = request(run_id, desk)
    with pytest.raises(NotFound):
        await desk.calls.ask(asked, Context("evil", "eve"))
    await desk.calls.ask(asked, CALL)
    assert isinstance(await decide(desk, asked, tenant="evil"), NotFound)
    with pytest.raises(NotFound):
        await desk.calls.ask(request(new_id("run"), desk), CALL)
    with pytest.raises(NotFound):
        await desk.calls.withdraw(WithdrawCall(approval_id=new_id("apr")), CALL)


async def test_what_never_stands_still_is_given_up(desk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = request(await desk.start(), desk, expires_s=1)
    await desk.calls.ask(asked, CALL)

    async def lost(*_: Any) -> None:
        """Somebody else is always faster."""

    monkeypatch.setattr(desk.approvals, "show", lost)
    with pytest.raises(Conflict, match="withdrawn"):
        await desk.calls.withdraw(WithdrawCall(approval_id=asked.approval_id), CALL)
    with pytest.raises(Conflict, match="be decided"):
        await desk.calls.decide(
            desk.command(
                DecideApproval(approval_id=asked.approval_id, digest=asked.digest, decision="approve"), None, by="bob"
            ),
            DecideApproval(approval_id=asked.approval_id, digest=asked.digest, decision="approve"),
        )
    desk.now += timedelta(seconds=2)
    with pytest.raises(Conflict, match="be read"):
        await view(desk, asked)
