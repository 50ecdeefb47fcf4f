"""The list of approvals: one suite for the one in memory and the one in PostgreSQL."""

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from approvals_memory import AT, ApprovalsInMemory, approval

from paracle_chassis.event_store import Append, EventStore, Page, PostgresEventStore
from paracle_chassis.postgres import Queries
from paracle_chassis.testing.memory_store import MemoryEventStore
from paracle_domain.envelope import Context
from paracle_domain.errors import InvalidInput, NotFound
from paracle_domain.ids import derive_id, new_id
from paracle_domain.run.commands import ApprovalStatus, ApprovalView, AskForCall, Decision, GetApproval, ListApprovals
from paracle_orchestrator.adapters.approvals import PostgresApprovals
from paracle_orchestrator.adapters.postgres import RUN_TABLES
from paracle_orchestrator.host import RunHost
from paracle_orchestrator.left_open import LeftOpen
from paracle_orchestrator.ports import Approvals, Shown

CALL = Context("acme", "bob")
OPEN, APPROVED = ApprovalStatus.OPEN, ApprovalStatus.APPROVED


class World:
    """A list, and a way to make runs that ask."""

    def __init__(self, approvals: Approvals, store: EventStore) -> None:
        self.approvals = approvals
        self._store = store

    async def run(self, tenant: str = "acme", ended_at: datetime | None = None) -> str:
        given: dict[str, Any] = {"text": "x", "int": 1, "float8": 1.0, "json": "{}", "boolean": False}
        facts = {name: given[kind] for name, kind in RUN_TABLES.facts.items()}
        run_id, page = new_id("run"), Page(1, "c", AT, (b'{"type":"x"}',))
        one = Append(run_id, tenant, 0, (page,), "running", finished_at=ended_at, facts=facts)
        assert not await self._store.append([one])
        return run_id

    async def show(self, *approvals: ApprovalView, version: int = 3, tenant: str = "acme") -> None:
        await self.approvals.show([Shown(tenant, one, version) for one in approvals])

    async def ids(self, call: Context = CALL, **query: Any) -> list[str]:
        page = await self.approvals.page(ListApprovals(**query), call)
        assert page.next_cursor is None
        return [one.step for one in page.approvals]


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.connected)])
def world(request: pytest.FixtureRequest) -> World:
    if request.param == "memory":
        store = MemoryEventStore()
        return World(ApprovalsInMemory(store), store)
    return _in_postgres(request.getfixturevalue("pool"))


def _in_postgres(pool: Any) -> World:
    return World(PostgresApprovals(pool, Queries.load("paracle_orchestrator")), PostgresEventStore(pool, RUN_TABLES))


async def test_what_is_shown_comes_back_whole(world: World) -> None:
    one = approval(
        await world.run(),
        principals=("bob", "d'or"),
        roles=("finance",),
        quorum=2,
        expires_at=AT,
        action={"text": 'é"\\\n', "n": [1, None]},
        decisions=(Decision(principal="bob", decision="approve", reason="fine", at=AT),),
    )
    await world.show(one)
    assert await world.approvals.get("acme", one.approval_id) == one
    assert (await world.approvals.page(ListApprovals(), CALL)).approvals == (one,)


async def test_any_text_may_be_asked_about(world: World) -> None:
    """U+0000 is a character of JSON, and PostgreSQL has no such text."""
    nul = "a\x00b"
    decided = Decision(principal="bob", decision="approve", reason=nul, at=AT)
    one = approval(await world.run(), ask=nul, action={nul: nul}, quorum=2, roles=("x",), decisions=(decided,))
    await world.show(one)
    assert await world.approvals.get("acme", one.approval_id) == one
    assert await world.ids(Context("acme", "carl", roles=("x",)), mine=True) == ["ok"]
    assert await world.ids(Context("acme", "bob", roles=("x",)), mine=True) == []


async def test_nobody_sees_another_tenants(world: World) -> None:
    one = approval(await world.run("evil"))
    await world.show(one, tenant="evil")
    assert await world.approvals.get("acme", one.approval_id) is None
    assert await world.ids() == []
    assert await world.ids(Context("evil", "bob")) == ["ok"]


async def test_what_a_run_asks_is_not_shown_to_a_tenant_that_has_taken_its_id(world: World) -> None:
    """Ids of approvals follow from those of runs, and those from names and times where a schedule starts them."""
    one = approval(await world.run())
    taken = approval(await world.run("evil"), approval_id=one.approval_id, ask="Well?")
    await world.show(taken, version=1, tenant="evil")
    await world.show(one)
    assert await world.approvals.get("evil", one.approval_id) == taken
    assert await world.approvals.get("acme", one.approval_id) is None


async def test_what_the_run_said_last_is_right_in_whatever_order_it_comes(world: World) -> None:
    run_id = await world.run()
    first = approval(run_id, roles=("desk",))
    last = approval(run_id, status=APPROVED, roles=("lead",), decided_at=AT)
    await world.show(last, version=9)
    await world.show(first, version=4)
    assert await world.approvals.get("acme", last.approval_id) == last
    assert await world.ids(approver="desk") == []
    assert await world.ids(approver="lead") == ["ok"]
    await world.approvals.show([Shown("acme", first, 10), Shown("acme", last, 12), Shown("acme", first, 11)])
    assert await world.approvals.get("acme", last.approval_id) == last


async def test_open_ones_come_first_then_the_newest_page_by_page(world: World) -> None:
    run_id = await world.run()
    shown = [approval(run_id, f"s{n}", n, status=OPEN if n % 2 else APPROVED) for n in range(6)]
    twins = [approval(run_id, f"t{n}", 9) for n in range(2)]
    await world.show(*shown, *twins)
    found: list[ApprovalView] = []
    cursor = None
    for _ in range(4):
        page = await world.approvals.page(ListApprovals(limit=2, cursor=cursor), CALL)
        found += page.approvals
        cursor = page.next_cursor
    assert cursor is None
    assert {one.step for one in found[:2]} == {"t0", "t1"}
    assert [one.step for one in found[2:]] == ["s5", "s3", "s1", "s4", "s2", "s0"]


async def test_lists_are_filtered(world: World) -> None:
    run_id, other = await world.run(), await world.run()
    await world.show(
        approval(run_id, "a", 3, principals=("bob",)),
        approval(run_id, "b", 2, status=APPROVED, roles=("finance",)),
        approval(other, "c", 1, workflow="v"),
    )
    assert await world.ids() == ["a", "c", "b"]
    assert await world.ids(status=APPROVED) == ["b"]
    assert await world.ids(run_id=run_id) == ["a", "b"]
    assert await world.ids(workflow="v") == ["c"]
    assert await world.ids(approver="bob") == ["a"]
    assert await world.ids(approver="finance") == ["b"]
    assert await world.ids(approver="nobody") == []


async def test_mine_are_those_that_i_may_decide_now(world: World) -> None:
    run_id = await world.run()
    decided = Decision(principal="bob", decision="approve", at=AT)
    await world.show(
        approval(run_id, "anybody", 9),
        approval(run_id, "named", 8, principals=("bob", "carl")),
        approval(run_id, "by_role", 7, principals=("carl",), roles=("x", "finance")),
        approval(run_id, "others", 6, principals=("carl",), roles=("legal",)),
        approval(run_id, "done", 5, quorum=2, decisions=(decided,)),
        approval(run_id, "ended", 4, status=APPROVED),
        approval(run_id, "mine", 3, requested_by="bob"),
        approval(run_id, "mine_but_may", 2, requested_by="bob", own=True),
    )
    assert await world.ids(mine=True) == ["anybody", "named", "mine_but_may"]
    finance = Context("acme", "bob", roles=("finance",))
    assert await world.ids(finance, mine=True) == ["anybody", "named", "by_role", "mine_but_may"]
    assert await world.ids(Context("acme", "ann", roles=("legal",)), mine=True) == ["mine", "mine_but_may"]
    carol = Context("acme", "carol", roles=("legal",))
    assert await world.ids(carol, mine=True) == ["anybody", "others", "done", "mine", "mine_but_may"]


YEAR_0 = base64.urlsafe_b64encode(b"open 0001-01-01T00:00:00+14:00 apr_x").decode()
NUL = base64.urlsafe_b64encode(b"open 2026-01-01T00:00:00+00:00 a\x00").decode()


@pytest.mark.parametrize("cursor", ["x", "eA==", "é", "b3BlbiBub3cgeA==", YEAR_0, NUL])
async def test_a_made_up_cursor_is_refused(world: World, cursor: str) -> None:
    with pytest.raises(InvalidInput, match="is no cursor"):
        await world.approvals.page(ListApprovals(cursor=cursor), CALL)


async def test_nothing_to_show_is_nothing_to_do(world: World) -> None:
    await world.show()
    assert await world.ids() == []


@pytest.mark.connected
async def test_approvals_go_with_their_run(pool: Any) -> None:
    world = _in_postgres(pool)
    kept, dropped = approval(await world.run()), approval(await world.run())
    await world.show(kept, dropped)
    await pool.execute("delete from runs where id = $1", dropped.run_id)
    await world.show(dropped, version=9)
    assert (await world.approvals.page(ListApprovals(), CALL)).approvals == (kept,)


async def test_approvals_are_asked_for_by_id(desk: Any) -> None:
    one = approval(new_id("run"))
    await desk.approvals.show([Shown("acme", one, 3)])
    assert await desk.service.get_approval(GetApproval(approval_id=one.approval_id), CALL) == one
    assert (await desk.service.list_approvals(ListApprovals(mine=True), CALL)).approvals == (one,)
    with pytest.raises(NotFound, match="there is no approval"):
        await desk.service.get_approval(GetApproval(approval_id=one.approval_id), Context("evil"))


async def test_those_that_are_left_open_are_found_page_by_page(world: World) -> None:
    ended = [approval(await world.run(tenant, AT)) for tenant in ("acme", "other", "acme")]
    decided, under_way = approval(await world.run("acme", AT), status=APPROVED), approval(await world.run())
    for one, tenant in zip(ended, ("acme", "other", "acme"), strict=True):
        await world.show(one, tenant=tenant)
    await world.show(decided, under_way)
    wanted = sorted((one.approval_id, one.run_id) for one in ended)
    assert await world.approvals.left_open("", 2) == wanted[:2]
    assert await world.approvals.left_open(wanted[1][0], 2) == wanted[2:]


async def left_behind(desk: Any, tools: Any) -> tuple[ApprovalsInMemory, list[ApprovalView]]:
    """A list that heard of two approvals only that they were asked, and how they ended."""
    desk.knows("w", tools.plan_of({"id": "ok", "approval": {"ask": "Refund?"}}))
    for key in ("1", "2"):
        await desk.cancel(await desk.start(key=key))
    ended = list((await desk.approvals.page(ListApprovals(), CALL)).approvals)
    approvals = ApprovalsInMemory(desk.store)
    asked = [one.model_copy(update={"status": OPEN, "decided_at": None}) for one in ended]
    await approvals.show([Shown("acme", one, 1) for one in asked])
    return approvals, ended


async def test_what_lost_messages_left_open_is_closed_as_its_run_has_it(desk: Any, tools: Any) -> None:
    approvals, ended = await left_behind(desk, tools)
    await desk.start(key="3")
    await LeftOpen(approvals, desk.calls, desk.host).round()
    assert list((await approvals.page(ListApprovals(), CALL)).approvals) == ended
    assert [one.status for one in ended] == [ApprovalStatus.VOID] * 2
    [still_asked] = (await desk.approvals.page(ListApprovals(status=OPEN), CALL)).approvals
    assert await approvals.left_open("", 10) == []
    await LeftOpen(desk.approvals, desk.calls, desk.host).round()
    assert await desk.approvals.get("acme", still_asked.approval_id) == still_asked


async def test_a_run_that_cannot_be_read_keeps_no_other_open(
    desk: Any, tools: Any, caplog: pytest.LogCaptureFixture
) -> None:
    approvals, ended = await left_behind(desk, tools)
    broken = desk.store.actors[ended[0].run_id]
    desk.store.actors[broken.id] = replace(broken, pages=(replace(broken.pages[0], events=(b"nonsense",)),))
    host = RunHost(desk.store, desk.plans, approvals, desk.bus, lambda: desk.now, cached=10)
    await LeftOpen(approvals, desk.calls, host).round()
    assert await approvals.left_open("", 10) == [(ended[0].approval_id, broken.id)]
    assert f"cannot close approval {ended[0].approval_id}" in caplog.text


async def test_a_call_that_a_run_left_behind_is_void(desk: Any, tools: Any) -> None:
    desk.knows("w", tools.plan_of({"id": "ok", "approval": {"ask": "Refund?"}}))
    run_id = await desk.start()
    task_id = derive_id("task", run_id, "a", 1)
    asked = AskForCall(
        approval_id=derive_id("apr", task_id, "call"),
        run_id=run_id,
        task_id=task_id,
        step="a",
        tool="pay",
        ask="Pay?",
        action={},
        digest="sha256:1",
        asked_at=desk.now,
    )
    await desk.calls.ask(asked, CALL)
    await desk.cancel(run_id)
    await LeftOpen(desk.approvals, desk.calls, desk.host).round()
    found = await desk.approvals.get("acme", asked.approval_id)
    assert found is not None
    assert found.status is ApprovalStatus.VOID
