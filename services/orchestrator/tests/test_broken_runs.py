"""Runs that cannot be read or decided upon: they hold up no other, are seen, and go on once they can."""

from __future__ import annotations

from typing import Any

import pytest
from runs_memory import RunsInMemory
from stuck_samples import AT, CALL, buried, mail, result_of, stuck_of
from trigger_memory import MemoryTriggerStore

from paracle_chassis.bus import Outgoing, outgoing
from paracle_chassis.dead_letters import Letter
from paracle_chassis.delivery import Delivery
from paracle_chassis.event_store import Append, Page
from paracle_chassis.inlet import Incoming
from paracle_chassis.receipts import NoReceipt
from paracle_chassis.testing.eventually import eventually
from paracle_chassis.testing.memory import MemoryBus
from paracle_domain import subjects
from paracle_domain.dead_letters import DEAD_TRIES, LetterGone
from paracle_domain.envelope import Context
from paracle_domain.errors import InternalError, NotFound
from paracle_domain.messages import Encoded
from paracle_domain.plan import Plan
from paracle_domain.run.commands import (
    CancelRun,
    CancelRuns,
    GetRun,
    RunFilter,
    RunsAccepted,
    RunStatus,
)
from paracle_orchestrator.bulk import BulkOrders
from paracle_orchestrator.call_approvals import CallApprovals
from paracle_orchestrator.handlers import routes
from paracle_orchestrator.host import RunHost
from paracle_orchestrator.plans import Plans
from paracle_orchestrator.service import Orchestrator
from paracle_orchestrator.settings import OrchestratorSettings
from paracle_orchestrator.stuck import StuckRuns
from paracle_orchestrator.ticks import RunTick
from paracle_orchestrator.triggers import Watch

# ── runs that break ──────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_run_that_cannot_be_read_holds_up_no_other_and_goes_on_when_it_can(desk: Any, tools: Any) -> None:
    """Its plan is gone, as if a bug had eaten it; a replica that does not remember the run needs it."""
    desk.knows("other", tools.plan_of({"id": "x"}))
    broken, sound = await desk.start("w", key="1"), await desk.start("other", key="2")
    first, second = tools.tasks(desk.bus.take())
    replica = tools.desk(desk)
    lost = {key: desk.shelf.plans.pop(key) for key in [("acme", first.plan)]}
    receipts = [tools.receipt(), tools.receipt()]
    batch = [
        mail(tools, task.run_id, result_of(task), receipt)
        for task, receipt in zip((first, second), receipts, strict=True)
    ]
    with pytest.raises(NotFound, match="no run has pinned"):
        await replica.service.take_in(batch)
    assert [receipt.acked for receipt in receipts] == [0, 1]
    assert (await desk.service.get_run(GetRun(run_id=sound), CALL)).run.status is RunStatus.COMPLETED
    with pytest.raises(NotFound):
        await replica.service.take_in(batch[:1])
    desk.shelf.plans.update(lost)
    await replica.service.take_in(batch[:1])
    assert [task.step for task in tools.tasks(desk.bus.take())] == ["b"]
    assert broken == first.run_id


async def damaged(desk: Any, run: str) -> None:
    """Write what is no event into the run's history."""
    version = (await desk.store.load([run]))[run].version
    nonsense = Page(version + 1, "x", AT, (b'{"type":"step.completed"}',))
    assert await desk.store.append([Append(run, "acme", version, (nonsense,), "running", AT)]) == set()


async def test_a_damaged_history_stops_its_own_run_only(desk: Any, tools: Any) -> None:
    broken, sound = await desk.start(key="1"), await desk.start(key="2")
    await damaged(desk, broken)
    replica = tools.desk(desk)
    orders = [replica.command(CancelRun(run_id=run), tools.receipt(), key=f"cancel {run}") for run in (broken, sound)]
    with pytest.raises(ValueError, match="attempt"):
        await replica.service.obey(orders)
    assert [delivery.settled for delivery in orders] == [False, True]
    assert orders[1].receipt.answers[0].status in {RunStatus.CANCELLING, RunStatus.CANCELLED}
    assert orders[0].receipt.answers == []
    with pytest.raises(ValueError, match="attempt"):
        await replica.service.get_run(GetRun(run_id=broken), CALL)
    await desk.stuck.mark([buried(subjects.result("acme", broken))])
    with pytest.raises(InternalError, match="paracle dlq show dead_"):
        await replica.service.get_run(GetRun(run_id=broken), CALL)


async def test_a_tick_that_was_given_up_is_the_last_until_its_letter_is_gone(desk: Any, tools: Any) -> None:
    run = await desk.start()
    assert await desk.tick(3600) == 1
    await desk.stuck.mark([buried(subjects.result("acme", run), RunTick(run_id=run).encode(), type_name="run.tick")])
    assert await desk.tick(3600) == 0
    stuck = await stuck_of(desk, run)
    assert stuck is not None
    await desk.service.take_in([mail(tools, run, LetterGone(run_id=run, dead_letter=stuck.dead_letter))])
    assert await desk.tick(1) == 1


async def test_mail_of_unknown_types_is_parked_and_the_others_go_on(desk: Any, tools: Any) -> None:
    run = await desk.start()
    (task,) = tools.tasks(desk.bus.take())
    strange = tools.receipt()
    unknown = tools.delivery(subjects.result("acme", run), b"{}", strange, key="x", type_name="run.sneeze")
    await desk.service.take_in([unknown, mail(tools, run, result_of(task))])
    assert [error.code for error in strange.parked] == ["malformed_message"]
    assert [task.step for task in tools.tasks(desk.bus.take())] == ["b"]


async def test_an_order_to_many_runs_passes_over_those_that_are_broken(desk: Any, tools: Any) -> None:
    broken, sound = await desk.start(key="1"), await desk.start(key="2")
    await damaged(desk, broken)
    replica = tools.desk(desk)
    receipt = await replica.order(CancelRuns(filter=RunFilter(workflow="w")), key="bulk")
    assert receipt.answers == [RunsAccepted(count=1)]
    assert (await desk.service.get_run(GetRun(run_id=sound), CALL)).run.status is not RunStatus.RUNNING


# ── all of it, over a bus ────────────────────────────────────────────────────────────────────────────────────────────


class BuggyShelf:
    """A `PlanStore` that cannot read some plan, until it is mended."""

    def __init__(self, shelf: Any) -> None:
        self._shelf = shelf
        self.unreadable = ""

    async def put(self, tenant: str, plan: Plan) -> None:
        await self._shelf.put(tenant, plan)

    async def get(self, tenant: str, digest: str) -> Plan | None:
        if digest == self.unreadable:
            raise ValueError("a bug")
        found: Plan | None = await self._shelf.get(tenant, digest)
        return found


def tick(run: str, number: int) -> Outgoing:
    context = Context("acme", "orchestrator", correlation_id=run)
    return outgoing(subjects.result("acme", run), RunTick(run_id=run), context, source="t", id=f"{run}.tick.{number}")


async def test_a_bug_in_one_run_is_seen_and_outlived(desk: Any, tools: Any) -> None:
    """Its ticks are tried, given up and stop; its neighbours go on; redriven after the bug is mended, so does it."""
    desk.knows("other", tools.plan_of({"id": "x"}))
    broken, sound = await desk.start("w", key="1"), await desk.start("other", key="2")
    first, second = tools.tasks(desk.bus.take())
    bus, shelf = MemoryBus(), BuggyShelf(desk.shelf)
    index = RunsInMemory(desk.store)
    plans = Plans(shelf, bus)
    host = RunHost(desk.store, plans, desk.approvals, bus, lambda: desk.now, cached=0)
    stuck = StuckRuns(desk.stuck_index, bus, lambda: desk.now)
    bulk = BulkOrders(index, host)
    calls = CallApprovals(host, desk.approvals, bus, lambda: desk.now)
    service = Orchestrator(host, plans, desk.store, index, desk.approvals, calls, bulk, stuck, desk.admitter)
    watch = Watch.over(MemoryTriggerStore(), bus, lambda: desk.now)
    await bus.serve(routes(service, calls, watch, stuck, OrchestratorSettings()))
    shelf.unreadable = first.plan
    result = result_of(second)
    context = Context("acme", "agent_runtime", correlation_id=sound)
    subject = subjects.result("acme", sound)
    await bus.publish([tick(broken, 1), outgoing(subject, result, context, source="t", id="r"), tick(broken, 2)])
    await eventually(lambda: len(bus.dead) == 2)
    assert {headers[DEAD_TRIES] for _, _, headers in bus.dead} == {"8"}
    assert (await desk.store.load([sound]))[sound].status == "completed"

    async def marked() -> tuple[str, int]:
        found = (await desk.stuck_index.of("acme", [broken])).get(broken)
        assert found is not None
        assert found.letters == 2
        return found.code, found.letters

    assert await eventually(marked) == ("internal", 2)
    assert (await desk.store.load([broken]))[broken].wake_at is None
    with pytest.raises(InternalError, match="paracle dlq show"):
        await service.get_run(GetRun(run_id=broken), CALL)
    shelf.unreadable = ""
    await redrive(bus, broken)

    async def goes_on() -> bool:
        released = not await desk.stuck_index.of("acme", [broken])
        return released and (await desk.store.load([broken]))[broken].wake_at is not None

    await eventually(goes_on)
    assert len(bus.dead) == 2
    assert (await service.get_run(GetRun(run_id=broken), CALL)).run.status is RunStatus.RUNNING
    await bus.drain()


async def redrive(bus: MemoryBus, run: str) -> None:
    """What observability publishes when all dead letters are redriven."""
    for subject, body, headers in tuple(bus.dead):
        letter = Letter.read(Delivery(Incoming(subject, "", body, headers=headers), NoReceipt(), stored_ns=1))
        assert letter.about.subject is not None
        gone = LetterGone(run_id=run, dead_letter=letter.about.id)
        context = Context("acme", "service:observability", correlation_id=run)
        await bus.publish(
            [
                Outgoing(letter.about.subject, Encoded(letter.body), letter.redriven()),
                outgoing(letter.about.subject, gone, context, source="t", id=f"{letter.about.id}.gone"),
            ]
        )
