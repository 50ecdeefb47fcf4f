"""What the registry has of triggers, and what people order."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from trigger_desk import ANN, TriggerDesk

from paracle_chassis.delivery import Delivery
from paracle_chassis.testing.eventually import eventually
from paracle_domain.envelope import Context
from paracle_domain.errors import DeadlineExceeded, InputInvalid, InvalidInput, NotFound, Unavailable
from paracle_domain.run.commands import StartRun
from paracle_domain.trigger.commands import (
    Cause,
    FireStatus,
    FireTrigger,
    ListTriggers,
    PauseTrigger,
    ResumeTrigger,
    TriggerCounts,
)
from paracle_orchestrator import beside

ORDERS = {"topic": "orders.*"}


@pytest.fixture
def desk(trigger_desk: TriggerDesk) -> TriggerDesk:
    return trigger_desk


async def minutes_of(desk: TriggerDesk, name: str = "t") -> list[int]:
    """Of the times whose runs began, in order."""
    runs = (await desk.view(name)).last_runs
    return sorted(run.scheduled_at.minute for run in runs if run.scheduled_at and run.status is FireStatus.STARTED)


async def test_an_event_of_the_registry_is_enough(desk: TriggerDesk) -> None:
    desk.apply(schedule={"cron": "* * * * *"})
    await desk.told()
    await desk.look(minutes=1)
    assert len(await desk.runs()) == 1


async def test_a_lost_event_only_delays(desk: TriggerDesk) -> None:
    desk.apply(schedule={"cron": "* * * * *"})
    await desk.told()
    desk.apply(schedule={"cron": "0 0 1 1 *"})
    await desk.watch.follower.round()
    assert (await desk.store.get("acme", "t")).revision == 1  # type: ignore[union-attr]
    desk.now += timedelta(seconds=31)
    await desk.watch.follower.round()
    assert (await desk.store.get("acme", "t")).revision == 2  # type: ignore[union-attr]


async def test_many_triggers_are_learned_page_by_page(desk: TriggerDesk) -> None:
    desk.registry.page = 2
    for number in range(5):
        desk.apply(f"t{number}", subject=ORDERS)
    page = await desk.bus.call(ListTriggers(limit=3), ANN)
    assert ([one.name for one in page.triggers], page.next_cursor) == (["t0", "t1", "t2"], "t2")
    rest = await desk.bus.call(ListTriggers(limit=3, cursor=page.next_cursor), ANN)
    assert ([one.name for one in rest.triggers], rest.next_cursor) == (["t3", "t4"], None)
    assert rest.triggers[0].on == "orders.*"


async def test_a_deleted_trigger_starts_nothing_more(desk: TriggerDesk) -> None:
    await desk.schedule()
    desk.apply(deleted=True)
    await desk.told()
    await desk.look(minutes=1)
    assert await desk.runs() == []
    with pytest.raises(NotFound, match="there is no trigger 't'"):
        await desk.view()


async def test_a_changed_schedule_counts_from_its_change(desk: TriggerDesk) -> None:
    await desk.schedule("*/10 * * * *", overlap="allow")
    desk.now += timedelta(minutes=25)  # nobody looked
    await desk.schedule("*/4 * * * *", overlap="allow")
    await desk.look(minutes=4)
    assert await minutes_of(desk) == [28]


async def test_another_input_leaves_the_times_alone(desk: TriggerDesk) -> None:
    await desk.schedule(input={"n": 1})
    desk.now += timedelta(minutes=1)
    await desk.schedule(input={"n": 2})
    await desk.look()
    assert [run.input for run in await desk.runs()] == [{"n": 2}]


async def test_queries_answer_from_what_is_known_while_the_registry_is_away(desk: TriggerDesk) -> None:
    await desk.schedule()
    desk.registry.away = True
    assert (await desk.view()).trigger.name == "t"
    assert len((await desk.bus.call(ListTriggers(), ANN)).triggers) == 1
    with pytest.raises(Unavailable, match="cannot be told while the registry is away"):
        await desk.view("other")


async def test_a_registry_that_says_nothing_is_away(desk: TriggerDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(*_: Any, **__: Any) -> Any:
        raise DeadlineExceeded("no answer")

    monkeypatch.setattr(desk.bus, "call", silent)
    with pytest.raises(Unavailable, match="the registry does not answer"):
        await desk.watch.follower.follow("acme")


async def test_tenants_do_not_see_each_other_s(desk: TriggerDesk) -> None:
    await desk.schedule()
    with pytest.raises(NotFound):
        await desk.view(tenant="evil")
    assert (await desk.bus.call(ListTriggers(), Context("evil"))).triggers == ()
    with pytest.raises(NotFound):
        await desk.order(PauseTrigger(name="t"), call=Context("evil"))


# ── pausing and firing ────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_paused_trigger_starts_nothing_and_makes_up_for_nothing(desk: TriggerDesk) -> None:
    await desk.schedule(overlap="allow")
    answer = await desk.order(PauseTrigger(name="t", reason="flood"))
    assert (answer["paused_by"], answer["paused_reason"]) == ("ann", "flood")
    await desk.look(minutes=5)
    view = await desk.view()
    assert (view.trigger.paused, view.trigger.next_at, view.next_fires) == (True, None, ())
    await desk.order(ResumeTrigger(name="t"))
    await desk.look(minutes=1)
    assert await minutes_of(desk) == [6]
    assert (await desk.view()).paused_by is None


async def test_a_command_that_comes_again_late_undoes_nothing(desk: TriggerDesk) -> None:
    await desk.schedule()
    await desk.order(PauseTrigger(name="t"), key="pause-1")
    await desk.order(ResumeTrigger(name="t"), key="resume-1")
    await desk.order(PauseTrigger(name="t"), key="pause-1")
    assert not (await desk.view()).trigger.paused
    await desk.order(ResumeTrigger(name="t"), key="resume-2")
    assert [item.envelope.id for item in desk.told_of("trigger_state")] == [
        f"acme.trigger_state.t.{number}" for number in (1, 2, 3)
    ]


async def test_who_paused_it_and_why_is_told(desk: TriggerDesk) -> None:
    await desk.schedule()
    await desk.order(PauseTrigger(name="t", reason="flood"), key="pause-1")
    (told,) = desk.told_of("trigger_state")
    assert told.subject == "paracle.v1.acme.evt.trigger_state.t.paused"
    assert told.envelope.context.principal == "ann"
    assert told.envelope.context.causation_id == "pause-1"
    assert (told.message.type, told.message.seq, told.message.data) == ("trigger.paused", 1, {"reason": "flood"})


async def test_a_pause_by_command_outlasts_manifests_that_say_nothing(desk: TriggerDesk) -> None:
    await desk.schedule()
    await desk.order(PauseTrigger(name="t"))
    await desk.schedule("*/2 * * * *")
    assert (await desk.view()).trigger.paused
    await desk.schedule("*/2 * * * *", paused=False)
    assert not (await desk.view()).trigger.paused
    await desk.schedule("*/2 * * * *", paused=True)
    view = await desk.view()
    assert (view.trigger.paused, view.paused_by, view.paused_reason) == (True, "ann", "its manifest says so")
    await desk.schedule("*/2 * * * *")
    assert not (await desk.view()).trigger.paused


async def test_what_is_not_there_can_be_neither_paused_nor_fired(desk: TriggerDesk) -> None:
    for command in (PauseTrigger(name="nope"), ResumeTrigger(name="nope"), FireTrigger(name="nope")):
        with pytest.raises(NotFound, match="there is no trigger 'nope'"):
            await desk.order(command)


async def test_a_trigger_can_be_paused_while_the_registry_is_away(desk: TriggerDesk) -> None:
    await desk.schedule()
    desk.registry.away = True
    await desk.order(PauseTrigger(name="t"))
    assert (await desk.view()).trigger.paused


async def test_a_trigger_that_was_just_applied_can_be_paused(desk: TriggerDesk) -> None:
    desk.apply(subject=ORDERS)
    await desk.order(PauseTrigger(name="t"))
    assert (await desk.view()).trigger.paused


async def test_firing_starts_a_run_now_paused_or_not(desk: TriggerDesk) -> None:
    await desk.schedule("0 0 1 1 *", input={"at": "{{ trigger.scheduled_at }}"}, paused=True)
    accepted = await desk.order(FireTrigger(name="t"), key="fire-1")
    (run,) = await desk.runs()
    assert (accepted["run_id"], run.input) == (run.run.run_id, {"at": "2026-01-01T12:00:00Z"})
    assert run.principal == "trigger:t"
    assert (await desk.view()).last_runs[0].cause is Cause.COMMAND
    (told,) = desk.told_of("trigger_state")
    assert (told.message.type, told.message.data) == ("trigger.fired", {"run_id": run.run.run_id})
    assert told.envelope.context.principal == "ann"


async def test_a_run_that_was_fired_is_told_of_though_its_trigger_is_deleted_meanwhile(
    desk: TriggerDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    await desk.schedule()
    begin = desk.watch.starter.begin

    async def outlived(*given: Any) -> Any:
        accepted = await begin(*given)
        desk.apply(deleted=True)
        await desk.watch.follower.follow("acme")
        return accepted

    monkeypatch.setattr(desk.watch.starter, "begin", outlived)
    accepted = await desk.order(FireTrigger(name="t"))
    assert [run.run.run_id for run in await desk.runs()] == [accepted["run_id"]]


async def test_firing_again_with_the_same_id_is_the_same_run(desk: TriggerDesk) -> None:
    await desk.schedule(input={"at": "{{ trigger.scheduled_at }}"})
    first = await desk.order(FireTrigger(name="t"), key="fire-1")
    desk.now += timedelta(seconds=5)
    again = await desk.order(FireTrigger(name="t"), key="fire-1")
    assert (again["run_id"], again["created"]) == (first["run_id"], False)
    assert (await desk.view()).trigger.counts.fired == 1


async def test_a_trigger_with_a_schedule_takes_no_message(desk: TriggerDesk) -> None:
    """Left out, it would start a run that is not what was asked for."""
    await desk.schedule(input={"at": "{{ trigger.scheduled_at }}"})
    with pytest.raises(InvalidInput, match="trigger 't' goes by a schedule, and takes no message") as refused:
        await desk.order(FireTrigger(name="t", message={"n": 7}))
    assert refused.value.path == "message"
    assert await desk.runs() == []


async def test_a_trigger_on_messages_is_fired_with_one(desk: TriggerDesk) -> None:
    desk.apply(subject={**ORDERS, "filter": "false"}, input={"n": "{{ message.n }}"})
    await desk.order(FireTrigger(name="t", message={"n": 7}))
    assert [run.input for run in await desk.runs()] == [{"n": 7}]
    for _ in range(2):
        with pytest.raises(InvalidInput, match="message"):
            await desk.order(FireTrigger(name="t", message={}), key="bad")
    with pytest.raises(InputInvalid):
        await desk.order(FireTrigger(name="t", message={"n": "x"}))
    assert (await desk.view()).trigger.counts == TriggerCounts(fired=1, failed=2)


async def test_an_input_that_nests_too_deep_to_be_read_again_is_refused(desk: TriggerDesk) -> None:
    """It would be kept, and whoever looks what is to be started could read neither it nor what lies beside it."""
    desk.apply(subject=ORDERS, input={"n": {"m": "{{ message }}"}})
    message: Any = 1
    for _ in range(198):
        message = [message]
    with pytest.raises(InvalidInput, match="150 levels"):
        await desk.order(FireTrigger(name="t", message=message))
    assert [row.start.command for row in desk.store.starts.values()] == [None]


async def test_firing_waits_for_the_registry(desk: TriggerDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paracle_orchestrator.triggers.starter._TIMEOUT_S", 0.05)
    await desk.schedule()
    desk.registry.away = True
    asked = asyncio.ensure_future(desk.order(FireTrigger(name="t"), key="fire-1"))

    async def kept() -> bool:
        return bool(desk.store.starts)

    await eventually(kept)
    desk.registry.away = False
    accepted = await asked
    assert [run.run.run_id for run in await desk.runs()] == [accepted["run_id"]]


async def test_a_firing_that_takes_long_is_nobody_else_s(desk: TriggerDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "PULSE_S", 0)
    pulses, begin = asyncio.Event(), desk.watch.starter.begin

    async def in_progress(_: Delivery) -> None:
        pulses.set()

    async def slow(*given: Any) -> Any:
        await pulses.wait()
        return await begin(*given)

    monkeypatch.setattr(Delivery, "in_progress", in_progress)
    monkeypatch.setattr(desk.watch.starter, "begin", slow)
    await desk.schedule()
    await desk.order(FireTrigger(name="t"))
    assert len(await desk.runs()) == 1


async def test_what_is_not_fired_when_the_service_ends_is_left_to_others(
    desk: TriggerDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    await desk.schedule()
    waiting = asyncio.Event()

    async def for_ever(*_: Any) -> Any:
        waiting.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(desk.watch.starter, "begin", for_ever)
    async with desk.watch.triggers.beside:
        asked = asyncio.ensure_future(desk.order(FireTrigger(name="t")))
        await waiting.wait()
    asked.cancel()
    assert [row.start.status for row in desk.store.starts.values()] == [FireStatus.PENDING]


async def test_a_trigger_may_be_gone_before_a_command_comes_to_it(
    desk: TriggerDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    await desk.schedule()

    async def gone(*_: Any) -> None:
        return None

    monkeypatch.setattr(desk.store, "change", gone)
    with pytest.raises(NotFound, match="any more"):
        await desk.order(PauseTrigger(name="t"))


async def test_what_breaks_while_firing_is_tried_again(desk: TriggerDesk) -> None:
    await desk.schedule()
    add, failures = desk.store.add, [OSError("disk")]

    async def fail_once(*given: Any) -> Any:
        if failures:
            raise failures.pop()
        return await add(*given)

    desk.store.add = fail_once  # type: ignore[method-assign,assignment]
    await desk.order(FireTrigger(name="t"))
    assert len(await desk.runs()) == 1


async def test_commands_about_triggers_and_runs_do_not_hold_each_other_up(desk: TriggerDesk) -> None:
    await desk.schedule()
    answers = await asyncio.gather(
        desk.order(PauseTrigger(name="t")),
        desk.order(StartRun(workflow="w")),
        desk.order(PauseTrigger(name="nope")),
        desk.order(StartRun(workflow="nope")),
        return_exceptions=True,
    )
    assert [type(answer) for answer in answers] == [dict, dict, NotFound, NotFound]


async def test_what_cannot_be_told_now_holds_up_nothing_else(desk: TriggerDesk) -> None:
    await desk.schedule()
    desk.registry.away = True
    waiting = [
        asyncio.ensure_future(desk.order(command)) for command in (ResumeTrigger(name="other"), StartRun(workflow="w"))
    ]
    paused = await desk.order(PauseTrigger(name="t"))
    assert paused["paused_by"] == "ann"
    desk.apply("other", subject=ORDERS)
    desk.registry.away = False
    assert [len(answer) > 0 for answer in await asyncio.gather(*waiting)] == [True, True]
