"""Orders to many runs: each of them is told, once, and nobody else is."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from paracle_chassis.testing.eventually import eventually
from paracle_domain.envelope import Context
from paracle_domain.errors import InvalidInput, Unavailable
from paracle_domain.run.commands import (
    CancelRuns,
    GetRun,
    ListRuns,
    ResumeRuns,
    RunFilter,
    RunsAccepted,
    RunStatus,
    StartRun,
)
from paracle_domain.run.inbox import Pause
from paracle_orchestrator import bulk
from paracle_orchestrator.mail import Handled, Mail

CALL = Context("acme")
ODD = RunFilter(labels={"odd": "yes"})


async def start(desk: Any, number: int) -> list[str]:
    """Runs, every other one with a label."""
    found = []
    for n in range(number):
        command = StartRun(workflow="w", labels={"odd": "yes"} if n % 2 else {})
        found.append((await desk.order(command, key=f"start-{desk.now}-{n}")).answers[0].run_id)
    return found


async def cancelled(desk: Any) -> set[str]:
    page = await desk.service.list_runs(ListRuns(statuses=(RunStatus.CANCELLING, RunStatus.CANCELLED)), CALL)
    return {run.run_id for run in page.runs}


@pytest.fixture(autouse=True)
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "PAGE", 2)


async def test_every_run_of_the_filter_is_cancelled_and_no_other(desk: Any) -> None:
    ids = await start(desk, 11)
    receipt = await desk.order(CancelRuns(filter=ODD, reason="enough"), key="bulk")
    assert receipt.answers == [RunsAccepted(count=5)]
    assert receipt.acked == 1
    assert await cancelled(desk) == set(ids[1::2])
    events = (await desk.store.load([ids[1]]))[ids[1]].pages
    assert events[-1].cause == f"bulk.{ids[1]}"


async def test_paused_runs_are_resumed(desk: Any) -> None:
    ids = await start(desk, 4)
    pauses = [Mail(run_id, f"pause-{run_id}", Pause("ada"), CALL) for run_id in ids[:3]]
    await desk.host.handle(pauses)
    receipt = await desk.order(ResumeRuns(filter=RunFilter(workflow="w"), reason="mended"), key="bulk")
    assert receipt.answers == [RunsAccepted(count=3)]
    page = await desk.service.list_runs(ListRuns(status=RunStatus.RUNNING), CALL)
    assert {run.run_id for run in page.runs} == set(ids)


async def test_the_same_order_again_changes_nothing(desk: Any, tools: Any) -> None:
    await start(desk, 6)
    await desk.order(CancelRuns(filter=ODD), key="bulk")
    before = desk.store.writes
    receipt = await desk.order(CancelRuns(filter=ODD), key="bulk", deliveries=2)
    assert desk.store.writes == before
    assert receipt.answers == [RunsAccepted(count=0)]


async def test_an_outage_is_waited_out_with_the_order_in_hand(desk: Any) -> None:
    """Given back it would be a dead letter after some dozens of tries, which an outage of a minute is."""
    ids = await start(desk, 6)
    desk.bus.broken = 3
    receipt = await desk.order(CancelRuns(filter=ODD), key="bulk")
    assert (len(receipt.answers), receipt.acked) == (1, 1)
    assert await cancelled(desk) == set(ids[1::2])


async def test_what_is_ordered_during_an_outage_is_not_undone(desk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first try had resumed the run, and could not tell of it. Then somebody paused it again."""
    (run_id,) = await start(desk, 1)
    await desk.host.handle([Mail(run_id, "pause-1", Pause("ada"), CALL)])
    handle = desk.host.handle

    async def handle_and_pause(mail: Sequence[Mail]) -> Any:
        try:
            return await handle(mail)
        except Unavailable:
            await handle([Mail(run_id, "pause-2", Pause("ada"), CALL)])
            raise

    monkeypatch.setattr(desk.host, "handle", handle_and_pause)
    desk.bus.broken = 1
    receipt = await desk.order(ResumeRuns(filter=RunFilter(workflow="w")), key="bulk")
    assert (await desk.service.get_run(GetRun(run_id=run_id), CALL)).run.status is RunStatus.PAUSED
    assert (len(receipt.answers), receipt.acked) == (1, 1)


async def test_an_order_that_breaks_off_is_taken_up_again(desk: Any, replica: Any, tools: Any) -> None:
    ids = await start(desk, 6)
    desk.bus.broken = 1_000
    receipt = tools.receipt()
    async with desk.bulk.beside:
        await desk.service.obey([desk.command(CancelRuns(filter=ODD), receipt, key="bulk")])
        await eventually(lambda: desk.bus.broken < 1_000)
    assert (receipt.answers, receipt.acked) == ([], 0)
    desk.bus.broken = 0
    again = await replica.order(CancelRuns(filter=ODD), key="bulk", deliveries=2)
    assert await cancelled(desk) == set(ids[1::2])
    assert again.acked == 1


async def test_a_bug_is_not_swallowed_and_the_order_stays(
    desk: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await start(desk, 2)

    async def fails(mail: Any) -> Any:
        if mail:
            raise ZeroDivisionError
        return Handled()

    monkeypatch.setattr(desk.host, "handle", fails)
    receipt = await desk.order(CancelRuns(filter=ODD), key="bulk")
    assert (receipt.answers, receipt.acked) == ([], 0)
    assert "broke off" in caplog.text


async def test_a_dry_run_only_counts(desk: Any) -> None:
    await start(desk, 5)
    receipt = await desk.order(CancelRuns(filter=ODD, dry_run=True), key="bulk")
    assert receipt.answers == [RunsAccepted(count=2)]
    assert await cancelled(desk) == set()


async def test_runs_that_began_after_the_order_are_left_alone(desk: Any) -> None:
    """The order was stored at the time of the first ones, and is carried out late."""
    await start(desk, 2)
    desk.now += timedelta(seconds=10)
    await start(desk, 2)
    receipt = await desk.order(CancelRuns(filter=ODD), key="bulk")
    assert receipt.answers == [RunsAccepted(count=1)]


@pytest.mark.parametrize("earlier_s", [0, 1])
async def test_the_filter_s_own_time_holds_too(desk: Any, earlier_s: int) -> None:
    await start(desk, 2)
    until = ODD.model_copy(update={"created_before": desk.now + timedelta(seconds=earlier_s)})
    receipt = await desk.order(CancelRuns(filter=until), key="bulk")
    assert receipt.answers == [RunsAccepted(count=earlier_s)]


async def test_runs_that_have_ended_are_not_counted(desk: Any, tools: Any) -> None:
    (run_id,) = await start(desk, 1)
    await desk.cancel(run_id)
    by_workflow = CancelRuns(filter=RunFilter(workflow="w"))
    assert (await desk.order(by_workflow, key="b1")).answers == [RunsAccepted(count=0)]
    ended = CancelRuns(filter=RunFilter(workflow="w", statuses=(RunStatus.COMPLETED,)))
    assert (await desk.order(ended, key="b2")).answers == [RunsAccepted(count=0)]


async def test_another_tenant_s_runs_are_not_there(desk: Any) -> None:
    await start(desk, 2)
    receipt = await desk.order(CancelRuns(filter=ODD), key="bulk", tenant="evil")
    assert receipt.answers == [RunsAccepted(count=0)]
    assert await cancelled(desk) == set()


async def test_all_runs_are_asked_for_in_words(desk: Any) -> None:
    ids = await start(desk, 3)
    receipt = await desk.order(CancelRuns(filter=RunFilter()), key="bulk")
    (error,) = receipt.answers
    assert isinstance(error, InvalidInput)
    assert error.path == "filter"
    assert (receipt.acked, await cancelled(desk)) == (1, set())
    await desk.order(CancelRuns(filter=RunFilter(statuses=bulk.CANCELLABLE)), key="all")
    assert await cancelled(desk) == set(ids)


@pytest.mark.parametrize(
    ("body", "path", "means"),
    [
        (b'{"filter": {"statuses": ["running"], "workfow": "other"}}', "filter.workfow", "did you mean 'workflow'?"),
        (b'{"filter": {"statuses": ["running"]}, "dryrun": true}', "dryrun", "did you mean 'dry_run'?"),
        (b'{"filter": {"statuses": ["running"]}, "labels": {"odd": "no"}}', "labels", "known: dry_run, filter, reason"),
    ],
)
async def test_what_is_misspelt_does_not_widen_an_order(desk: Any, body: bytes, path: str, means: str) -> None:
    await start(desk, 3)
    receipt = await desk.order(CancelRuns(filter=ODD), key="bulk", body=body)
    (error,) = receipt.answers
    assert isinstance(error, InvalidInput)
    assert error.path == path
    assert error.message == f"there is no field {path.rpartition('.')[2]!r}; {means}"
    assert (receipt.acked, await cancelled(desk)) == (1, set())


async def test_other_commands_do_not_wait_for_an_order_to_many(desk: Any, tools: Any) -> None:
    (run_id,) = await start(desk, 1)
    many, one = tools.receipt(), tools.receipt()
    orders = [
        desk.command(CancelRuns(filter=ODD), many, key="bulk"),
        desk.command(StartRun(workflow="w"), one, key="next"),
    ]
    await desk.service.obey(orders)
    assert one.answers
    await eventually(lambda: many.answers == [RunsAccepted(count=0)])
    view = await desk.service.get_run(GetRun(run_id=run_id), CALL)
    assert view.run.status is RunStatus.RUNNING


async def test_leaving_stops_what_is_under_way(desk: Any, tools: Any) -> None:
    await start(desk, 2)
    receipt = tools.receipt()
    async with desk.bulk.beside:
        await desk.service.obey([desk.command(CancelRuns(filter=ODD), receipt, key="bulk")])
    assert (receipt.answers, receipt.acked) == ([], 0)
