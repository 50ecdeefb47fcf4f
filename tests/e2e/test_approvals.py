"""People decide: whoever dies between the question and the answer, and only upon exactly what they were shown."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import nats
import pytest
from tests.e2e.deciding import FINANCE, LEAD, asked_for, fresh_name, manifests, person, restart
from tests.e2e.histories import assert_sound, audit
from tests.e2e.world import PATIENCE_S, System, paracle

from paracle_chassis.testing.eventually import eventually
from paracle_client import AsyncClient
from paracle_domain.errors import Conflict, Forbidden
from paracle_domain.run.commands import ApprovalStatus, RunStatus, RunView

DECIDE = "paracle.v1.default.cmd.orchestrator.decide_approval"
SHOW = "paracle.v1.default.rpc.orchestrator.get_approval"
VICTIMS = ("orchestrator", "nats", "postgres", "api_gateway")


@pytest.fixture
async def ann(system: System) -> AsyncIterator[AsyncClient]:
    """She starts runs."""
    await asyncio.to_thread(system.apply, manifests(system.effects.port))
    async with person(system, "ann") as client:
        yield client


@pytest.fixture
async def bob(system: System) -> AsyncIterator[AsyncClient]:
    """He is of finance."""
    async with person(system, "bob", *FINANCE) as client:
        yield client


@pytest.fixture
async def lea(system: System) -> AsyncIterator[AsyncClient]:
    """She leads."""
    async with person(system, "lea", *LEAD) as client:
        yield client


async def begin(ann: AsyncClient, workflow: str) -> tuple[str, str]:
    """A run that asks for a refund: its id, and the counter's name for it."""
    name = fresh_name(workflow)
    return (await ann.start_run(workflow, {"run": name, "amount": 12})).run_id, name


async def ended(client: AsyncClient, run_id: str) -> RunView:
    async with asyncio.timeout(PATIENCE_S):
        return await client.wait(run_id)


async def test_only_who_was_asked_decides_and_only_upon_what_was_shown(
    system: System, ann: AsyncClient, bob: AsyncClient, lea: AsyncClient
) -> None:
    run_id, name = await begin(ann, "refund")
    one = await asked_for(bob, run_id)
    assert (one.ask, one.action, one.requested_by) == (f"Refund 12 for {name}?", {"amount": 12}, "ann")
    assert one in (await bob.approvals(mine=True, limit=500)).approvals
    assert one not in (await lea.approvals(mine=True, limit=500)).approvals
    with pytest.raises(Forbidden, match="lea"):
        await lea.decide(one.approval_id, "approve", digest=one.digest)
    with pytest.raises(Conflict, match="look at it again"):
        await bob.decide(one.approval_id, "approve", digest="sha256:0")
    assert await bob.get_approval(one.approval_id) == one
    assert set(system.effects.times_by_step(name)) == {"reserve"}
    for _ in range(2):
        await bob.decide(one.approval_id, "approve", digest=one.digest, reason="called the customer")
    run = await ended(ann, run_id)
    assert run.run.status is RunStatus.COMPLETED
    assert system.effects.times_by_step(name) == {"reserve": 1, "pay": 1}
    with pytest.raises(Conflict):
        await bob.decide(one.approval_id, "reject", digest=one.digest)
    await assert_sound(ann, run_id)
    told = {stored.event.type: stored for stored in await audit(ann, run_id)}
    asked, decided = told["approval.asked"], told["approval.decided"]
    assert (asked.principal, asked.event.data["action"]) == ("ann", {"amount": 12})
    assert (decided.principal, decided.event.data["principal"]) == ("bob", "bob")
    assert decided.event.data["reason"] == "called the customer"


async def test_who_was_refused_decides_once_he_may(system: System, ann: AsyncClient, bob: AsyncClient) -> None:
    run_id, _ = await begin(ann, "refund")
    one = await asked_for(bob, run_id)
    async with person(system, "max") as newcomer, person(system, "max", *FINANCE) as promoted:
        with pytest.raises(Forbidden, match="max"):
            await newcomer.decide(one.approval_id, "approve", digest=one.digest)
        await promoted.decide(one.approval_id, "approve", digest=one.digest)
    assert (await ended(ann, run_id)).run.status is RunStatus.COMPLETED


async def test_a_rejection_undoes_what_was_done(system: System, ann: AsyncClient, bob: AsyncClient) -> None:
    run_id, name = await begin(ann, "refund")
    one = await asked_for(bob, run_id)
    await bob.decide(one.approval_id, "reject", digest=one.digest, reason="not our order")
    run = await ended(ann, run_id)
    assert run.error is not None
    assert (run.run.status, run.error.code) == (RunStatus.FAILED, "approval_rejected")
    assert "not our order" in run.error.message
    assert system.effects.times_by_step(name) == {"reserve": 1, "release": 1}
    assert (await bob.get_approval(one.approval_id)).status is ApprovalStatus.REJECTED


async def test_it_takes_as_many_as_the_workflow_says(ann: AsyncClient, bob: AsyncClient, system: System) -> None:
    run_id, _ = await begin(ann, "refund-by-two")
    one = await asked_for(bob, run_id)
    await bob.decide(one.approval_id, "approve", digest=one.digest)
    half = await bob.get_approval(one.approval_id)
    assert (half.status, [made.principal for made in half.decisions]) == (ApprovalStatus.OPEN, ["bob"])
    async with person(system, "cat", *FINANCE) as cat:
        await cat.decide(one.approval_id, "approve", digest=one.digest)
    assert (await ended(ann, run_id)).run.status is RunStatus.COMPLETED


async def test_what_nobody_decides_expires(ann: AsyncClient, bob: AsyncClient) -> None:
    run_id, _ = await begin(ann, "refund-soon")
    one = await asked_for(bob, run_id)
    run = await ended(ann, run_id)
    assert run.error is not None
    assert (run.run.status, run.error.code) == (RunStatus.FAILED, "approval_expired")
    assert (await bob.get_approval(one.approval_id)).status is ApprovalStatus.EXPIRED


async def test_what_nobody_decides_goes_to_others(ann: AsyncClient, bob: AsyncClient, lea: AsyncClient) -> None:
    run_id, _ = await begin(ann, "refund-escalated")
    one = await asked_for(bob, run_id)

    async def escalated() -> bool:
        return (await lea.get_approval(one.approval_id)).escalated

    await eventually(escalated)
    with pytest.raises(Forbidden):
        await bob.decide(one.approval_id, "approve", digest=one.digest)
    await lea.decide(one.approval_id, "approve", digest=one.digest)
    assert (await ended(ann, run_id)).run.status is RunStatus.COMPLETED


@pytest.mark.parametrize("victim", VICTIMS)
async def test_a_kill_between_question_and_answer_changes_nothing(
    system: System, ann: AsyncClient, bob: AsyncClient, victim: str
) -> None:
    begun = [await begin(ann, "refund") for _ in range(4)]
    asked = [await asked_for(bob, run_id) for run_id, _ in begun]
    await restart(system, victim)
    assert [await bob.get_approval(one.approval_id) for one in asked] == asked
    for one in asked:
        await bob.decide(one.approval_id, "approve", digest=one.digest)
    for run_id, name in begun:
        assert (await ended(ann, run_id)).run.status is RunStatus.COMPLETED
        await assert_sound(ann, run_id)
        keys = system.effects.keys_by_step(name)
        assert set(keys) == {"reserve", "pay"}
        assert all(len(found) == 1 for found in keys.values()), keys


async def test_a_decision_survives_the_death_of_who_took_it(system: System, ann: AsyncClient, bob: AsyncClient) -> None:
    run_id, name = await begin(ann, "refund")
    one = await asked_for(bob, run_id)
    await bob.decide(one.approval_id, "approve", digest=one.digest)
    await restart(system, "orchestrator")
    assert (await ended(ann, run_id)).run.status is RunStatus.COMPLETED
    assert set(system.effects.keys_by_step(name)) == {"reserve", "pay"}
    assert (await bob.get_approval(one.approval_id)).status is ApprovalStatus.APPROVED


async def test_from_the_command_line(system: System, ann: AsyncClient) -> None:
    run_id, _ = await begin(ann, "refund")
    one = await asked_for(ann, run_id)
    bob = {"PARACLE_PRINCIPAL": "bob", "PARACLE_ROLES": "finance"}

    async def command(*arguments: str) -> str:
        told = await asyncio.to_thread(paracle, "approvals", *arguments, url=system.url, environment=bob)
        assert told.returncode == 0, told.stderr
        return told.stdout

    assert one.approval_id in await command("--mine", "--run", run_id)
    assert '"amount": 12' in await command("show", one.approval_id)
    digest = json.loads(await command("show", one.approval_id, "-o", "json"))["digest"]
    said = await command("approve", one.approval_id, "--digest", digest, "--reason", "checked")
    assert said == f"{one.approval_id} is approved; run {run_id}\n"
    assert (await ended(ann, run_id)).run.status is RunStatus.COMPLETED


async def test_with_nothing_but_a_nats_client(system: System, ann: AsyncClient) -> None:
    run_id, _ = await begin(ann, "refund")
    one = await asked_for(ann, run_id)
    async with await nats.connect(system.stack.nats_url) as client:

        async def decide(principal: str, roles: str) -> dict[str, Any]:
            body = {"approval_id": one.approval_id, "digest": one.digest, "decision": "approve"}
            headers = {"paracle-principal": principal, "paracle-roles": roles}
            told = await client.request(DECIDE, json.dumps(body).encode(), timeout=15, headers=headers)
            answer: dict[str, Any] = json.loads(told.data)
            return answer

        assert (await decide("eve", "sales, marketing"))["code"] == "forbidden"
        assert (await decide("bob", "sales, finance"))["run_id"] == run_id
        asked = await client.request(SHOW, json.dumps({"approval_id": one.approval_id}).encode(), timeout=15)
        assert json.loads(asked.data)["status"] == "approved"
    assert (await ended(ann, run_id)).run.status is RunStatus.COMPLETED
