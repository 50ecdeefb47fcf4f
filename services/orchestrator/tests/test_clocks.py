"""Clocks that jump, and replicas whose clocks differ: runs are delayed or hastened, and neither lost nor doubled."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from paracle_domain.envelope import Context
from paracle_domain.errors import ErrorInfo
from paracle_domain.ids import derive_id
from paracle_domain.run.commands import GetRun, GetRunEvents, RunStatus

CALL = Context("acme")
HOUR = 3600.0
SKEW = timedelta(seconds=5)
BUSY = ErrorInfo(code="tool_unavailable", message="busy", retryable=True)
RETRY = {"max_attempts": 2, "initial_s": 10, "jitter": 0}


async def whole(desk: Any, run_id: str) -> Counter[str]:
    """How often each kind of event happened, if the history has no gap."""
    told = await desk.service.get_run_events(GetRunEvents(run_id=run_id), CALL)
    assert [event.seq for event in told.events] == list(range(1, len(told.events) + 1))
    return Counter(event.type for event in told.events)


async def status(desk: Any, run_id: str) -> RunStatus:
    found: RunStatus = (await desk.service.get_run(GetRun(run_id=run_id), CALL)).run.status
    return found


@pytest.mark.parametrize("jump_s", [HOUR, -HOUR])
async def test_a_run_goes_on_after_a_jump(desk: Any, tools: Any, jump_s: float) -> None:
    run_id = await desk.start()
    (first,) = tools.tasks(desk.bus.take())
    desk.now += timedelta(seconds=jump_s)
    await desk.finish(first)
    (second,) = tools.tasks(desk.bus.take())
    await desk.finish(second, output="done")
    assert await status(desk, run_id) is RunStatus.COMPLETED
    assert await whole(desk, run_id) == {
        "run.started": 1, "step.started": 2, "step.completed": 2, "run.completed": 1,
    }  # fmt: skip


async def test_a_jump_forward_hands_a_task_out_again_once(desk: Any, tools: Any) -> None:
    run_id = await desk.start()
    (first,) = tools.tasks(desk.bus.take())
    assert await desk.tick(HOUR) == 1
    (again,) = tools.tasks(desk.bus.take())
    assert again == first
    assert await desk.tick(1) == 0
    await desk.finish(first)
    await desk.finish(again)
    assert {(item.envelope.id, item.message.step) for item in desk.bus.take() if ".task." in item.subject} == {
        (derive_id("task", run_id, "b", 1), "b")  # said twice, under one id
    }
    assert (await whole(desk, run_id))["step.completed"] == 1


async def test_after_a_jump_back_what_stays_silent_is_handed_out_again_in_its_time(desk: Any, tools: Any) -> None:
    await desk.start()
    (first,) = tools.tasks(desk.bus.take())
    assert await desk.tick(-HOUR) == 0
    assert await desk.tick(HOUR + 16) == 1
    assert tools.tasks(desk.bus.take()) == [first]


@pytest.mark.parametrize("jump_s", [HOUR, -HOUR])
async def test_a_cancel_reaches_its_end_whatever_the_clock_does(desk: Any, tools: Any, jump_s: float) -> None:
    run_id = await desk.start()
    (first,) = tools.tasks(desk.bus.take())
    await desk.cancel(run_id)
    desk.bus.take()
    await desk.tick(jump_s)
    await desk.finish(first, tools.cancelled)
    assert await status(desk, run_id) is RunStatus.CANCELLED
    assert (await whole(desk, run_id))["run.cancelled"] == 1


async def test_a_retry_waits_for_its_time_and_happens_once(desk: Any, tools: Any) -> None:
    desk.knows("flaky", tools.plan_of({"id": "a", "retry": RETRY}))
    await desk.start("flaky")
    (first,) = tools.tasks(desk.bus.take())
    await desk.finish(first, tools.failed, error=BUSY)
    assert await desk.tick(-HOUR) == 0
    assert await desk.tick(2 * HOUR) == 1
    assert [task.attempt for task in tools.tasks(desk.bus.take())] == [2]
    desk.now -= timedelta(seconds=HOUR)
    assert await desk.tick(1) == 0
    assert tools.tasks(desk.bus.take()) == []


async def test_a_replica_behind_does_not_lose_what_one_ahead_has_woken(desk: Any, replica: Any, tools: Any) -> None:
    """The tick of whoever is ahead comes too early for the other: nothing happens, and the run is woken again."""
    desk.knows("flaky", tools.plan_of({"id": "a", "retry": RETRY}))
    run_id = await desk.start("flaky")
    replica.now = desk.now + SKEW
    (first,) = tools.tasks(desk.bus.take())
    await desk.finish(first, tools.failed, error=BUSY)
    desk.bus.take()

    replica.now += timedelta(seconds=6)
    assert await replica.ticker.fire() == 1
    desk.now += timedelta(seconds=6)
    await desk.deliver(desk.bus.take())
    assert tools.tasks(desk.bus.take()) == []

    assert await desk.tick(4) == 1
    (second,) = tools.tasks(desk.bus.take())
    await replica.finish(second)
    assert await status(desk, run_id) is RunStatus.COMPLETED
    assert (await whole(desk, run_id))["step.started"] == 2


async def test_replicas_whose_clocks_differ_finish_a_run_together(desk: Any, replica: Any, tools: Any) -> None:
    replica.now = desk.now + SKEW
    run_id = await desk.start()
    (first,) = tools.tasks(desk.bus.take())
    await replica.finish(first)
    (second,) = tools.tasks(desk.bus.take())
    await desk.finish(second, output="done")
    assert await status(replica, run_id) is RunStatus.COMPLETED
    view = await replica.service.get_run(GetRun(run_id=run_id), CALL)
    assert (view.output, view.last_seq) == ("done", 6)
