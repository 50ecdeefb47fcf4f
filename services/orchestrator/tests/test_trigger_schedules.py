"""Schedules from their time to the run, on ports in memory and a clock that tests turn."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from trigger_desk import EPOCH, TriggerDesk, look_of

from paracle_chassis.testing.eventually import eventually
from paracle_domain.errors import InputInvalid, Unavailable
from paracle_domain.ids import new_id
from paracle_domain.run.commands import CancelRun, RunStatus, StartRun
from paracle_domain.trigger.commands import (
    Cause,
    FireStatus,
    TriggerCounts,
)
from paracle_orchestrator.triggers.ports import Start


@pytest.fixture
def desk(trigger_desk: TriggerDesk) -> TriggerDesk:
    return trigger_desk


async def minutes_of(desk: TriggerDesk, name: str = "t") -> list[int]:
    """Of the times whose runs began, in order."""
    runs = (await desk.view(name)).last_runs
    return sorted(run.scheduled_at.minute for run in runs if run.scheduled_at and run.status is FireStatus.STARTED)


async def test_a_schedule_starts_a_run_at_its_time(desk: TriggerDesk) -> None:
    await desk.schedule(input={"n": 3, "at": "{{ trigger.scheduled_at }}"}, labels={"team": "a"})
    await desk.look()
    assert await desk.runs() == []
    await desk.look(minutes=1)
    (run,) = await desk.runs()
    assert run.input == {"n": 3, "at": "2026-01-01T12:01:00Z"}
    assert run.principal == "trigger:t"
    assert run.run.labels == {"team": "a", "trigger": "t"}
    view = await desk.view()
    assert (view.trigger.counts, view.trigger.last_at) == (TriggerCounts(fired=1), desk.now)
    (last,) = view.last_runs
    assert (last.run_id, last.cause, last.status) == (run.run.run_id, Cause.SCHEDULE, FireStatus.STARTED)
    assert last.run_status is RunStatus.RUNNING
    assert last.scheduled_at == EPOCH + timedelta(minutes=1)
    assert view.next_fires[0] == EPOCH + timedelta(minutes=2)


async def test_however_many_replicas_look_each_time_is_one_run(desk: TriggerDesk) -> None:
    await desk.schedule(overlap="allow")
    others = [desk.another() for _ in range(3)]
    for _ in range(4):
        desk.now += timedelta(minutes=1)
        await asyncio.gather(desk.look(), *map(look_of, others))
    assert len(await desk.runs()) == 4
    assert (await desk.view()).trigger.counts.fired == 4


async def test_what_was_missed_is_made_up_for_and_what_is_too_old_is_counted(desk: TriggerDesk) -> None:
    await desk.schedule(overlap="allow", catch_up_s=180)
    await desk.look(minutes=10)
    assert [run.run.labels for run in await desk.runs()] == [{"trigger": "t"}] * 4
    assert await minutes_of(desk) == [7, 8, 9, 10]
    assert (await desk.view()).trigger.counts == TriggerCounts(fired=4, dropped=6)


async def test_a_clock_that_jumps_back_fires_nothing_twice(desk: TriggerDesk) -> None:
    await desk.schedule(overlap="allow")
    await desk.look(minutes=3)
    await desk.look(minutes=-2)
    await desk.look(minutes=1)
    assert await minutes_of(desk) == [1, 2, 3]
    await desk.look(minutes=2)
    assert await minutes_of(desk) == [1, 2, 3, 4]


async def test_a_replica_that_dies_after_deciding_is_taken_over(desk: TriggerDesk) -> None:
    await desk.schedule()
    desk.now += timedelta(minutes=1)
    now = desk.now
    await desk.another().schedules.round()
    assert await desk.runs() == []
    await desk.look()
    assert [run.created_at for run in [one.run for one in await desk.runs()]] == [now]


async def test_one_that_dies_after_starting_starts_nothing_twice(desk: TriggerDesk) -> None:
    await desk.schedule()
    settle, lost = desk.store.settle, []

    async def forget(*given: Any) -> None:
        lost.append(given)

    desk.store.settle = forget  # type: ignore[method-assign,assignment]
    await desk.look(minutes=1)
    desk.store.settle = settle  # type: ignore[method-assign]
    assert len(lost) == 1
    await desk.look(minutes=0.2)
    assert (await desk.view()).trigger.counts.fired == 0
    await desk.look(minutes=0.1)
    assert (await desk.view()).trigger.counts.fired == 1
    assert len(await desk.runs()) == 1


async def test_by_default_a_time_is_skipped_while_a_run_is_under_way(desk: TriggerDesk) -> None:
    await desk.schedule()
    await desk.look(minutes=1)
    await desk.look(minutes=2)
    (run,) = await desk.runs()
    await desk.finish(run.run.run_id)
    await desk.look(minutes=1)
    assert await minutes_of(desk) == [1, 4]
    assert (await desk.view()).trigger.counts == TriggerCounts(fired=2, skipped=2)


async def test_a_queued_time_starts_after_the_run_before_it(desk: TriggerDesk) -> None:
    await desk.schedule(overlap="queue")
    await desk.look(minutes=1)
    await desk.look(minutes=1)
    (run,) = await desk.runs()
    await desk.finish(run.run.run_id)
    await desk.look(minutes=1 / 60)
    assert await minutes_of(desk) == [1, 2]
    assert (await desk.view()).trigger.counts == TriggerCounts(fired=2)


async def test_a_time_may_cancel_the_run_before_it(desk: TriggerDesk) -> None:
    await desk.schedule(overlap="cancel_previous")
    await desk.look(minutes=1)
    await desk.look(minutes=1)
    first, second = await desk.runs()
    assert first.run.status in {RunStatus.CANCELLING, RunStatus.CANCELLED}
    assert second.run.status is RunStatus.RUNNING


async def test_what_was_missed_is_cancelled_in_turn(desk: TriggerDesk) -> None:
    await desk.schedule(overlap="cancel_previous")
    await desk.look(minutes=3)
    runs = await desk.runs()
    assert [run.run.status is RunStatus.RUNNING for run in runs] == [False, False, True]


async def test_a_run_that_is_gone_need_not_be_cancelled(desk: TriggerDesk) -> None:
    await desk.schedule(overlap="cancel_previous")
    await desk.look(minutes=1)
    (run,) = await desk.runs()
    await desk.finish(run.run.run_id)
    await desk.look(minutes=1)
    assert await minutes_of(desk) == [1, 2]


async def test_a_run_that_cannot_begin_is_told(desk: TriggerDesk) -> None:
    await desk.schedule(input={"n": "{{ trigger.scheduled_at }}"})
    await desk.look(minutes=1)
    view = await desk.view()
    assert view.trigger.counts == TriggerCounts(failed=1)
    (last,) = view.last_runs
    assert (last.status, last.run_status) == (FireStatus.FAILED, None)
    assert last.error is not None
    assert (last.error.code, last.error.path) == (InputInvalid.code, "input.n")
    await desk.look(minutes=1)  # and the next one is not held up
    assert (await desk.view()).trigger.counts == TriggerCounts(failed=2)


async def test_an_input_that_cannot_be_computed_is_told(desk: TriggerDesk) -> None:
    await desk.schedule(input={"n": ["{{ 1 // (trigger.name | length - 1) }}"]})
    await desk.look(minutes=1)
    view = await desk.view()
    assert view.trigger.counts == TriggerCounts(failed=1)
    assert view.last_runs[0].error is not None
    assert view.last_runs[0].error.path == "spec.input.n[0]"


async def test_while_the_registry_is_away_starts_wait(desk: TriggerDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paracle_orchestrator.triggers.starter._TIMEOUT_S", 0.05)
    await desk.schedule()
    desk.registry.away = True
    await desk.look(minutes=1)
    assert await desk.runs() == []
    assert (await desk.view()).last_runs[0].status is FireStatus.PENDING
    desk.registry.away = False
    await desk.settled()
    await desk.look(minutes=0.3)
    assert len(await desk.runs()) == 1
    assert (await desk.view()).trigger.counts == TriggerCounts(fired=1)


async def test_a_start_that_hangs_delays_no_other_schedule(desk: TriggerDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look goes on while what an earlier one decided is being started."""
    await desk.schedule(overlap="allow")
    begin, answered = desk.watch.starter.begin, asyncio.Event()

    async def slow(*given: Any) -> Any:
        await answered.wait()
        return await begin(*given)

    monkeypatch.setattr(desk.watch.starter, "begin", slow)
    rounds = desk.watch.rounds
    async with rounds["starting"], rounds["schedules"]:
        desk.now += timedelta(minutes=1)
        await eventually(lambda: len(desk.store.starts) == 1)
        desk.now += timedelta(minutes=1)
        await eventually(lambda: len(desk.store.starts) == 2)
        answered.set()
        await eventually(lambda: len(desk.events.actors) == 2)


async def test_the_next_look_is_when_something_is_due(desk: TriggerDesk) -> None:
    assert await desk.watch.schedules.round() == 1.0
    await desk.schedule("* * * * * *")
    desk.now += timedelta(milliseconds=600)
    assert await desk.watch.schedules.round() == pytest.approx(0.4)


async def test_a_schedule_that_cannot_be_told_here_says_so(desk: TriggerDesk) -> None:
    await desk.schedule(timezone="Mars/Olympus")
    view = await desk.view()
    assert view.trigger.problem is not None
    assert "Mars/Olympus" in view.trigger.problem
    assert (view.next_fires, view.trigger.next_at) == ((), None)
    await desk.store.change("acme", "t", lambda trigger: _due(trigger, desk))
    await desk.look(minutes=1)
    assert await desk.store.soonest() is None


def _due(trigger: Any, desk: TriggerDesk) -> Any:
    from dataclasses import replace

    return replace(trigger, due_at=desk.now)


async def test_many_that_are_due_at_once_all_fire(desk: TriggerDesk) -> None:
    for number in range(45):
        desk.apply(f"t{number}", schedule={"cron": "* * * * *"})
    await desk.watch.follower.follow("acme")
    await desk.look(minutes=1)
    assert len(await desk.runs()) == 45


def pending(desk: TriggerDesk, *cancels: str) -> Start:
    run_id = new_id("run")
    return Start(run_id, "acme", "t", Cause.SCHEDULE, desk.now, StartRun(workflow="w", run_id=run_id), cancels=cancels)


async def test_a_run_that_never_was_need_not_make_way(desk: TriggerDesk) -> None:
    await desk.schedule()
    await desk.store.add(pending(desk, new_id("run")), desk.now)
    await desk.look()
    assert len(await desk.runs()) == 1


async def test_nothing_starts_before_what_must_make_way_was_told(
    desk: TriggerDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    await desk.schedule("0 0 1 1 *")
    before = await desk.order(StartRun(workflow="w"))
    await desk.store.add(pending(desk, str(before["run_id"])), desk.now)
    command = desk.bus.command

    async def no_cancels(given: Any, *rest: Any, **more: Any) -> Any:
        if isinstance(given, CancelRun):
            raise Unavailable("not now")
        return await command(given, *rest, **more)

    monkeypatch.setattr(desk.bus, "command", no_cancels)
    await desk.look()
    assert len(await desk.runs()) == 1
    monkeypatch.setattr(desk.bus, "command", command)
    await desk.look(minutes=1)
    first, second = await desk.runs()
    assert first.run.status is not RunStatus.RUNNING
    assert second.run.status is RunStatus.RUNNING
