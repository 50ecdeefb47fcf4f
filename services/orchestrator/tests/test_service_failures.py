"""Crashes, outages and replicas: what was committed is done once, whoever does it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from paracle_domain.envelope import Context
from paracle_domain.errors import (
    DeadlineExceeded,
    ErrorInfo,
    InvalidInput,
    Unavailable,
)
from paracle_domain.ids import new_id
from paracle_domain.run.commands import (
    CancelRun,
    GetRun,
    PauseRun,
    ResumeRun,
    RunStatus,
    StartRun,
)
from paracle_domain.task.messages import TaskStatus
from paracle_orchestrator import service
from paracle_orchestrator.ticks import RunTick

CALL = Context("acme")


async def test_a_start_that_there_is_no_room_for_beside_is_left_to_the_mailbox(
    desk: Any, tools: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_args: Any, **_options: Any) -> None:
        raise Unavailable("no registry")

    monkeypatch.setattr(service, "MOST_WAITING", 1)
    desk.bus.call = away
    receipts = [tools.receipt(), tools.receipt()]
    batch = [desk.command(StartRun(workflow="w"), receipt, key=str(n)) for n, receipt in enumerate(receipts)]
    async with desk.service.waiting:
        with pytest.raises(Unavailable):
            await desk.service.obey(batch)
        assert [delivery.open for delivery in batch] == [False, True]
    assert [(receipt.answers, receipt.acked) for receipt in receipts] == [([], 0)] * 2


async def test_only_starts_wait_for_the_registry(desk: Any, tools: Any) -> None:
    run_id = await desk.start()
    answer = desk.bus.call

    async def hang(*_args: Any, **_options: Any) -> None:
        raise DeadlineExceeded("registry.resolve_plan did not answer")

    desk.bus.call = hang
    start, cancel, bad = tools.receipt(), tools.receipt(), tools.receipt()
    later = desk.command(StartRun(workflow="w"), start, key="s")
    batch = [
        later,
        desk.command(CancelRun(run_id=run_id), cancel, key="c"),
        desk.command(StartRun(), bad, key="b"),
    ]
    await desk.service.obey(batch)  # it returns, so that the mailbox brings what comes next
    assert cancel.answers[0].status is RunStatus.CANCELLING
    assert isinstance(bad.answers[0], InvalidInput)
    assert [delivery.kept for delivery in batch] == [True, False, False]
    assert start.answers == []
    desk.bus.call = answer
    await desk.service.waiting.idle()
    assert start.answers[0].created
    assert start.acked == 1


async def test_what_is_ordered_of_a_run_whose_start_waits_is_obeyed_behind_it_in_order(desk: Any, tools: Any) -> None:
    run_id = new_id("run")
    answer = desk.bus.call

    async def hang(*_args: Any, **_options: Any) -> None:
        raise DeadlineExceeded("registry.resolve_plan did not answer")

    desk.bus.call = hang
    orders = [
        StartRun(workflow="w", run_id=run_id),
        PauseRun(run_id=run_id),
        ResumeRun(run_id=run_id),
        CancelRun(run_id=run_id),
    ]
    receipts = [tools.receipt() for _ in orders]
    for number, (order, receipt) in enumerate(zip(orders, receipts, strict=True)):
        await desk.service.obey([desk.command(order, receipt, key=f"o{number}")])
    assert [receipt.answers for receipt in receipts] == [[]] * 4
    desk.bus.call = answer
    await desk.service.waiting.idle()
    assert [receipt.answers[0].status for receipt in receipts] == [
        RunStatus.RUNNING,
        RunStatus.PAUSED,
        RunStatus.RUNNING,
        RunStatus.CANCELLING,
    ]
    assert [receipt.acked for receipt in receipts] == [1] * 4
    late = tools.receipt()
    await desk.service.obey([desk.command(CancelRun(run_id=run_id), late, key="late")])
    assert late.answers[0].status is RunStatus.CANCELLING, "nothing waits in line any more"


async def test_a_start_that_an_outage_put_behind_its_cancel_still_starts(desk: Any, tools: Any) -> None:
    run_id = new_id("run")
    start, cancel = tools.receipt(), tools.receipt()
    await desk.service.obey(
        [
            desk.command(CancelRun(run_id=run_id), cancel, key="c"),
            desk.command(StartRun(workflow="w", run_id=run_id), start, key="s"),
        ]
    )
    assert start.answers[0].created
    assert cancel.answers[0].status is RunStatus.CANCELLING
    events = [event["type"] for event in tools.events(desk.bus.take())]
    assert events == ["run.started", "step.started", "run.cancelling"]


async def test_a_crash_between_commit_and_publish_loses_nothing(desk: Any, tools: Any) -> None:
    run_id = await desk.start()
    (task,) = tools.tasks(desk.bus.take())
    desk.bus.broken = 1
    with pytest.raises(Unavailable):
        await desk.finish(task)
    assert (await desk.store.load([run_id]))[run_id].version == 4
    await desk.finish(task, deliveries=2)
    outbox = desk.bus.take()
    assert [event["seq"] for event in tools.events(outbox)] == [3, 4]
    assert [found.step for found in tools.tasks(outbox)] == ["b"]
    assert (await desk.store.load([run_id]))[run_id].version == 4


@pytest.mark.parametrize("cached", [1, 100])
async def test_what_an_outage_broke_off_is_said_in_the_next_round(desk: Any, tools: Any, cached: int) -> None:
    """The mailbox waits with the deliveries in hand: they are no redelivery, and some runs may be cached no more."""
    small = tools.desk(desk, cached=cached)
    small.knows("flaky", tools.plan_of({"id": "a", "retry": {"max_attempts": 2, "initial_s": 1, "jitter": 0}}))
    for key in ("1", "2"):
        await small.start("flaky", key=key)
    for task in tools.tasks(desk.bus.take()):
        await small.finish(task, TaskStatus.FAILED, error=ErrorInfo(code="x", message="x", retryable=True))
    desk.bus.take()
    small.now += timedelta(seconds=1)
    await small.ticker.fire()
    batch = [
        tools.delivery(tick.subject, tick.message.encode(), tools.receipt(), key=tick.envelope.id, type_name="run.tick")
        for tick in desk.bus.take()
    ]
    assert len(batch) == 2
    desk.bus.broken = 1
    for delivery in batch:
        delivery.handed_over = 1
    with pytest.raises(Unavailable):
        await small.service.take_in(batch)
    for delivery in batch:
        delivery.handed_over = 2
    await small.service.take_in(batch)
    outbox = desk.bus.take()
    assert sorted((task.run_id, task.attempt) for task in tools.tasks(outbox)) == sorted(
        (item.decode(RunTick).run_id, 2) for item in batch
    )
    assert [event["type"] for event in tools.events(outbox)] == ["step.started", "step.started"]


async def test_another_replica_takes_over_after_a_crash(desk: Any, replica: Any, tools: Any) -> None:
    await desk.start()
    (task,) = tools.tasks(desk.bus.take())
    desk.bus.broken = 1
    with pytest.raises(Unavailable):
        await desk.finish(task)
    await replica.finish(task, deliveries=2)
    assert [found.step for found in tools.tasks(replica.bus.take())] == ["b"]


async def test_replicas_may_take_turns_on_a_run(desk: Any, replica: Any, tools: Any) -> None:
    wide = tools.plan_of(*({"id": f"s{n}"} for n in range(6)), {"id": "z", "needs": [f"s{n}" for n in range(6)]})
    desk.knows("wide", wide)
    run_id = await desk.start("wide")
    for number, task in enumerate(tools.tasks(desk.bus.take())):
        await (desk if number % 2 else replica).finish(task)
    (last,) = tools.tasks(desk.bus.take())
    await replica.finish(last)
    view = await desk.service.get_run(GetRun(run_id=run_id), CALL)
    assert view.run.status is RunStatus.COMPLETED
    assert view.last_seq == 16


async def test_a_run_that_is_not_cached_is_read_from_its_history(desk: Any, tools: Any) -> None:
    small = tools.desk(desk, cached=1)
    first, second = await small.start(key="1"), await small.start(key="2")
    for task in tools.tasks(desk.bus.take()):
        await small.finish(task)
    assert {task.run_id for task in tools.tasks(desk.bus.take())} == {first, second}


async def test_duplicates_of_results_change_nothing(desk: Any, tools: Any) -> None:
    run_id = await desk.start()
    (task,) = tools.tasks(desk.bus.take())
    for _ in range(3):
        await desk.finish(task)
    assert (await desk.store.load([run_id]))[run_id].version == 4
    assert len({found.task_id for found in tools.tasks(desk.bus.take())}) == 1
