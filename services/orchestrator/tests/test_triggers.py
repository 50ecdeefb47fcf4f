"""Triggers from the registry to the run, on ports in memory and a clock that tests turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from trigger_desk import ANN, EPOCH, TriggerDesk

from paracle_chassis.testing.eventually import eventually
from paracle_domain.envelope import Context
from paracle_domain.errors import InputInvalid, InvalidInput, NotFound, Unavailable
from paracle_domain.run.commands import RunStatus, StartRun
from paracle_domain.trigger.commands import (
    Cause,
    FireStatus,
    FireTrigger,
    GetTrigger,
    ListTriggers,
    PauseTrigger,
    ResumeTrigger,
    TriggerCounts,
)

ORDERS = {"topic": "orders.*"}


@pytest.fixture
async def desk() -> AsyncIterator[TriggerDesk]:
    found = TriggerDesk()
    await found.open()
    yield found
    await found.bus.drain()


async def minutes_of(desk: TriggerDesk, name: str = "t") -> list[int]:
    """Of the times whose runs began, in order."""
    runs = (await desk.view(name)).last_runs
    return sorted(run.scheduled_at.minute for run in runs if run.scheduled_at and run.status is FireStatus.STARTED)


# ── schedules ────────────────────────────────────────────────────────────────────────────────────────────────────────


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
        await asyncio.gather(desk.look(), *(other.schedules.round() for other in others))
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
    starter = desk.another()
    now = desk.now

    async def die(*_: Any) -> None:
        raise asyncio.CancelledError

    starter.schedules._starter.drain = die  # type: ignore[method-assign]
    with pytest.raises(asyncio.CancelledError):
        await starter.schedules.round()
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


# ── what the registry has ────────────────────────────────────────────────────────────────────────────────────────────


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


async def test_tenants_do_not_see_each_other_s(desk: TriggerDesk) -> None:
    await desk.schedule()
    with pytest.raises(NotFound):
        await desk.view(tenant="evil")
    assert (await desk.bus.call(ListTriggers(), Context("evil"))).triggers == ()
    with pytest.raises(NotFound):
        await desk.order(PauseTrigger(name="t"), call=Context("evil"))


# ── pausing and firing ───────────────────────────────────────────────────────────────────────────────────────────────


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


async def test_firing_again_with_the_same_id_is_the_same_run(desk: TriggerDesk) -> None:
    await desk.schedule(input={"at": "{{ trigger.scheduled_at }}"})
    first = await desk.order(FireTrigger(name="t"), key="fire-1")
    desk.now += timedelta(seconds=5)
    again = await desk.order(FireTrigger(name="t"), key="fire-1")
    assert (again["run_id"], again["created"]) == (first["run_id"], False)
    assert (await desk.view()).trigger.counts.fired == 1


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


async def test_what_breaks_while_firing_is_tried_again(desk: TriggerDesk) -> None:
    await desk.schedule()
    add, failures = desk.store.add, [OSError("disk")]

    async def fail_once(*given: Any) -> Any:
        if failures:
            raise failures.pop()
        return await add(*given)

    desk.store.add = fail_once  # type: ignore[method-assign,assignment]
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
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


# ── messages ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_message_starts_a_run(desk: TriggerDesk) -> None:
    desk.apply(subject=ORDERS, input={"n": "{{ message.n }}", "of": "{{ trigger.subject }} {{ trigger.id }}"})
    await desk.say("orders.new", {"n": 1}, key="m-1")
    (run,) = await desk.runs()
    assert run.input == {"n": 1, "of": "orders.new m-1"}
    assert (run.principal, run.run.labels) == ("trigger:t", {"trigger": "t"})
    view = await desk.view()
    assert (view.trigger.counts, view.last_runs[0].cause) == (TriggerCounts(fired=1), Cause.MESSAGE)
    assert desk.bus.dead == []


async def test_a_message_that_nobody_wants_is_gone(desk: TriggerDesk) -> None:
    desk.apply(subject=ORDERS)
    desk.apply("clock", schedule={"cron": "0 0 1 1 *"})
    await desk.say("invoices.new", {"n": 1})
    await desk.say("orders", {"n": 1})
    assert (await desk.runs(), desk.bus.dead) == ([], [])


async def test_every_trigger_on_the_topic_takes_it(desk: TriggerDesk) -> None:
    desk.apply("a", subject=ORDERS)
    desk.apply("b", subject={"topic": ">"})
    await desk.say("orders.new", {})
    assert sorted(run.run.labels["trigger"] for run in await desk.runs()) == ["a", "b"]


async def test_a_filter_lets_messages_pass_by(desk: TriggerDesk) -> None:
    desk.apply(subject={**ORDERS, "filter": "{{ message.total > 100 }}"})
    for total in (50, 150):
        await desk.say("orders.new", {"total": total})
    assert len(await desk.runs()) == 1
    assert (await desk.view()).trigger.counts == TriggerCounts(fired=1)


async def test_messages_with_the_same_key_start_one_run_within_the_window(desk: TriggerDesk) -> None:
    desk.apply(subject={**ORDERS, "dedupe": "{{ message.id }}", "dedupe_window_s": 60})
    for number in (1, 1, 2):
        await desk.say("orders.new", {"id": number})
    assert (await desk.view()).trigger.counts == TriggerCounts(fired=2, duplicates=1)
    desk.now += timedelta(seconds=60)
    await desk.say("orders.new", {"id": 1})
    assert (await desk.view()).trigger.counts == TriggerCounts(fired=3, duplicates=1)


async def test_messages_with_the_same_key_that_come_together_start_one_run(desk: TriggerDesk) -> None:
    desk.apply(subject={**ORDERS, "dedupe": "{{ message.id }}"})
    await asyncio.gather(*(desk.say("orders.new", {"id": 1}) for _ in range(5)))
    assert (await desk.view()).trigger.counts == TriggerCounts(fired=1, duplicates=4)


async def test_a_message_that_comes_again_is_the_same_run_and_no_duplicate(desk: TriggerDesk) -> None:
    desk.apply(subject={**ORDERS, "dedupe": "{{ message.id }}"})
    for _ in range(2):
        await desk.say("orders.new", {"id": 1}, key="m-1")
    assert len(await desk.runs()) == 1
    assert (await desk.view()).trigger.counts == TriggerCounts(fired=1)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"NaN", b"[" * 500 + b"]" * 500])
async def test_what_is_no_json_is_a_dead_letter(desk: TriggerDesk, body: bytes) -> None:
    await desk.say("orders.new", body=body)
    ((subject, kept, headers),) = desk.bus.dead
    assert (subject, kept) == ("paracle.v1.acme.dlq.orchestrator", body)
    assert "messages on 'paracle.v1.acme.in.orders.new' are JSON" in " ".join(headers.values())


@pytest.mark.parametrize(
    ("spec", "message", "reason"),
    [
        ({"subject": {**ORDERS, "filter": "message.total > 100"}}, {}, "trigger 't': "),
        ({"subject": {**ORDERS, "dedupe": "{{ message.id }}"}}, {"id": None}, "is null"),
        ({"subject": ORDERS, "input": {"n": "{{ message.n }}"}}, {}, "trigger 't': "),
        ({"subject": ORDERS, "input": {"n": "{{ message.n }}"}}, {"n": "x"}, "the input of workflow 'w'"),
        ({"subject": ORDERS, "workflow": "nope"}, {}, "no workflow 'nope'"),
    ],
)
async def test_what_a_trigger_cannot_take_is_a_dead_letter(
    desk: TriggerDesk, spec: dict[str, Any], message: Any, reason: str
) -> None:
    desk.apply(**spec)
    await desk.say("orders.new", message)
    ((_, _, headers),) = desk.bus.dead
    assert reason in " ".join(headers.values())
    assert (await desk.view()).trigger.counts == TriggerCounts(failed=1)


async def test_one_trigger_s_failure_is_no_other_s(desk: TriggerDesk) -> None:
    desk.apply("bad", subject={**ORDERS, "filter": "message.x.y == 1"})
    desk.apply("worse", subject={**ORDERS, "filter": "message.z.y == 1"})
    desk.apply("good", subject=ORDERS)
    await desk.say("orders.new", {"n": 1})
    assert [run.run.labels["trigger"] for run in await desk.runs()] == ["good"]
    ((_, _, headers),) = desk.bus.dead
    assert "trigger 'bad': `message.x` is undefined" in " ".join(headers.values())
    assert "trigger 'worse': `message.z` is undefined" in " ".join(headers.values())


async def test_the_key_of_what_was_refused_is_free_again(desk: TriggerDesk) -> None:
    desk.apply(subject={**ORDERS, "dedupe": "{{ message.id }}"}, input={"n": "{{ message.n }}"})
    await desk.say("orders.new", {"id": 1, "n": "x"})
    await desk.say("orders.new", {"id": 1, "n": 2})
    assert [run.input for run in await desk.runs()] == [{"n": 2}]


async def test_a_paused_trigger_lets_messages_go(desk: TriggerDesk) -> None:
    desk.apply(subject=ORDERS)
    await desk.order(PauseTrigger(name="t"))
    await desk.say("orders.new", {})
    await desk.order(ResumeTrigger(name="t"))
    assert await desk.runs() == []
    assert (await desk.view()).trigger.counts == TriggerCounts(dropped=1)


async def test_messages_wait_for_the_registry(desk: TriggerDesk) -> None:
    desk.apply(subject=ORDERS)
    desk.registry.away = True
    saying = asyncio.ensure_future(desk.say("orders.new", {}))
    with pytest.raises(Unavailable):
        await desk.bus.call(GetTrigger(name="t"), ANN)
    desk.registry.away = False
    await saying
    assert len(await desk.runs()) == 1


async def test_what_cannot_start_now_waits_and_holds_up_nothing_else(
    desk: TriggerDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One message of a batch waits; its neighbours are done with, one as a dead letter."""
    desk.apply(subject=ORDERS, input={"n": "{{ message.n }}"})
    begin, times = desk.watch.intake._starter.begin, {"late": 0}

    async def late(start: Any, context: Context) -> Any:
        assert start.command is not None
        if start.command.input == {"n": 1} and not times["late"]:
            times["late"] += 1
            raise Unavailable("not now")
        return await begin(start, context)

    monkeypatch.setattr(desk.watch.intake._starter, "begin", late)
    await asyncio.gather(*(desk.say("orders.new", {"n": n}) for n in (1, 2, "x")))
    inputs = sorted(run.input["n"] for run in await desk.runs())  # type: ignore[index,call-overload,type-var]
    assert (inputs, times["late"], len(desk.bus.dead)) == ([1, 2], 1, 1)
    assert (await desk.view()).trigger.counts == TriggerCounts(fired=2, failed=1)
