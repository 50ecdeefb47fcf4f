"""Messages of users, from the stream to the run."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from trigger_desk import ANN, TriggerDesk

from paracle_chassis.bus import Outgoing
from paracle_chassis.dead_letters import Letter
from paracle_chassis.delivery import Delivery
from paracle_chassis.inlet import Incoming
from paracle_chassis.receipts import NoReceipt
from paracle_domain import subjects
from paracle_domain.envelope import Context
from paracle_domain.errors import Conflict, DeadlineExceeded, InputInvalid, InvalidInput, Unavailable
from paracle_domain.messages import Encoded
from paracle_domain.trigger.commands import (
    Cause,
    GetTrigger,
    PauseTrigger,
    ResumeTrigger,
    TriggerCounts,
)

ORDERS = {"topic": "orders.*"}


@pytest.fixture
def desk(trigger_desk: TriggerDesk) -> TriggerDesk:
    return trigger_desk


async def test_a_message_starts_a_run(desk: TriggerDesk) -> None:
    desk.apply(subject=ORDERS, input={"n": "{{ message.n }}", "of": "{{ trigger.subject }} {{ trigger.id }}"})
    await desk.say("orders.new", {"n": 1}, key="m-1")
    (run,) = await desk.runs()
    assert run.input == {"n": 1, "of": "orders.new m-1"}
    assert (run.principal, run.run.labels) == ("trigger:t", {"trigger": "t"})
    view = await desk.view()
    assert (view.trigger.counts, view.last_runs[0].cause) == (TriggerCounts(fired=1), Cause.MESSAGE)
    assert desk.bus.dead == []


async def test_a_message_is_answered_with_the_runs_that_it_starts(desk: TriggerDesk) -> None:
    desk.apply("all", subject={"topic": ">"})
    desk.apply("large", subject={**ORDERS, "filter": "{{ message.total > 100 }}"})
    small, large = await desk.ask("orders.new", {"total": 1}), await desk.ask("orders.new", {"total": 101})
    begun = {(run.run.labels["trigger"], run.run.run_id) for run in await desk.runs()}
    told = [{(run["trigger"], run["run_id"]) for run in answer["runs"]} for answer in (small, large)]
    assert (told[0] | told[1], [len(one) for one in told]) == (begun, [1, 2])
    assert (small["stream"], small["seq"], large["seq"]) == ("INTAKE", 1, 2)


async def test_a_message_that_comes_again_is_answered_with_the_same_run_and_a_duplicate_with_none(
    desk: TriggerDesk,
) -> None:
    desk.apply(subject={**ORDERS, "dedupe": "{{ message.id }}"})
    first, again = [(await desk.ask("orders.new", {"id": 1}, key="m-1"))["runs"] for _ in range(2)]
    assert (first, len(await desk.runs())) == (again, 1)
    assert (await desk.ask("orders.new", {"id": 1}))["runs"] == []
    assert (await desk.ask("invoices.new", {"id": 1}))["runs"] == []


async def test_a_message_that_comes_twice_at_once_is_answered_with_its_one_run(desk: TriggerDesk) -> None:
    desk.apply(subject=ORDERS)
    answers = await asyncio.gather(*(desk.ask("orders.new", {}, key="m-1") for _ in range(3)))
    (run,) = await desk.runs()
    assert [answer["runs"] for answer in answers] == [[{"trigger": "t", "run_id": run.run.run_id}]] * 3


async def test_a_message_is_no_duplicate_of_one_that_came_after_it_whichever_is_delivered_first(
    desk: TriggerDesk,
) -> None:
    """As after a crash: what a replica had in hand comes again in any order."""
    desk.apply(subject={**ORDERS, "dedupe": "{{ message.id }}"})
    first = (await desk.ask("orders.new", {"id": 1}, key="m-1"))["runs"]
    later, again = await asyncio.gather(*(desk.ask("orders.new", {"id": 1}, key=key) for key in ("m-2", "m-1")))
    assert (later["runs"], again["runs"]) == ([], first)
    assert (await desk.view()).trigger.counts == TriggerCounts(fired=1, duplicates=1)


async def test_a_message_that_is_not_taken_is_answered_with_the_reason(desk: TriggerDesk) -> None:
    desk.apply(subject=ORDERS, input={"n": "{{ message.n }}"})
    with pytest.raises(InvalidInput, match="trigger 't': input of workflow 'w'"):
        await desk.ask("orders.new", {"n": "x"})
    assert len(desk.bus.dead) == 1


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


async def test_a_message_that_comes_again_after_an_edit_is_still_the_same_run(desk: TriggerDesk) -> None:
    for number in (1, 2):
        desk.apply(subject=ORDERS, input={"n": number})
        await desk.say("orders.new", {}, key="m-1")
    assert [run.input for run in await desk.runs()] == [{"n": 1}]
    assert (await desk.view()).trigger.counts == TriggerCounts(fired=1)
    assert desk.bus.dead == []


async def test_another_conflict_is_a_dead_letter(desk: TriggerDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: Any) -> Any:
        raise Conflict("something else stands in the way")

    monkeypatch.setattr(desk.watch.starter, "begin", refuse)
    desk.apply(subject=ORDERS)
    await desk.say("orders.new", {})
    assert (await desk.view()).trigger.counts == TriggerCounts(failed=1)
    assert len(desk.bus.dead) == 1


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
        ({"subject": ORDERS, "input": {"n": "{{ message.n }}"}}, {"n": "x"}, "input of workflow 'w'"),
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


async def test_a_bare_message_that_is_redriven_starts_nothing_twice(desk: TriggerDesk) -> None:
    """One trigger took it, and the other could not; nobody gave it an id, and it is stored anew."""
    desk.apply("good", subject=ORDERS)
    desk.apply("bad", subject={**ORDERS, "filter": "message.x.y == 1"})
    desk.bus._put(subjects.INTAKE, subjects.intake("acme", "orders.new"), b"{}", {})
    await desk.settled()
    ((subject, body, headers),) = desk.bus.dead
    letter = Letter.read(Delivery(Incoming(subject, "", body, headers=headers), NoReceipt(), stored_ns=1))
    assert letter.about.subject is not None
    desk.apply("bad", subject=ORDERS)
    await desk.bus.publish([Outgoing(letter.about.subject, Encoded(letter.body), letter.redriven())])
    await desk.settled()
    assert [run.run.labels["trigger"] for run in await desk.runs()] == ["good", "bad"]


async def test_the_key_of_what_was_refused_is_free_again(desk: TriggerDesk) -> None:
    desk.apply(subject={**ORDERS, "dedupe": "{{ message.id }}"}, input={"n": "{{ message.n }}"})
    await desk.say("orders.new", {"id": 1, "n": "x"})
    await desk.say("orders.new", {"id": 1, "n": 2})
    assert [run.input for run in await desk.runs()] == [{"n": 2}]


async def test_the_key_of_what_was_refused_is_that_of_the_next_which_came_with_it(desk: TriggerDesk) -> None:
    desk.apply(subject={**ORDERS, "dedupe": "{{ message.id }}"}, input={"n": "{{ message.n }}"})
    answers = await asyncio.gather(
        *(desk.ask("orders.new", {"id": 1, "n": n}) for n in ("x", "y", 3, 4)), return_exceptions=True
    )
    (run,) = await desk.runs()
    assert run.input == {"n": 3}
    assert [type(answer) for answer in answers[:2]] == [InputInvalid] * 2
    assert [answer["runs"] for answer in answers[2:]] == [[{"trigger": "t", "run_id": run.run.run_id}], []]  # type: ignore[index]
    assert (await desk.view()).trigger.counts == TriggerCounts(fired=1, failed=2, duplicates=1)


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


async def test_a_message_whose_start_is_not_answered_waits(desk: TriggerDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.apply(subject=ORDERS)
    command, silences = desk.bus.command, [DeadlineExceeded("no answer")]

    async def silent_once(*given: Any, **more: Any) -> Any:
        if silences:
            raise silences.pop()
        return await command(*given, **more)

    monkeypatch.setattr(desk.bus, "command", silent_once)
    await desk.say("orders.new", {})
    assert (await desk.view()).trigger.counts == TriggerCounts(fired=1)
    assert desk.bus.dead == []


async def test_what_cannot_start_now_waits_and_holds_up_nothing_else(
    desk: TriggerDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One message of a batch waits; its neighbours are done with, one as a dead letter."""
    desk.apply(subject=ORDERS, input={"n": "{{ message.n }}"})
    begin, times = desk.watch.starter.begin, {"late": 0}

    async def late(start: Any, context: Context) -> Any:
        assert start.command is not None
        if start.command.input == {"n": 1} and not times["late"]:
            times["late"] += 1
            raise Unavailable("not now")
        return await begin(start, context)

    monkeypatch.setattr(desk.watch.starter, "begin", late)
    await asyncio.gather(*(desk.say("orders.new", {"n": n}) for n in (1, 2, "x")))
    inputs = sorted(run.input["n"] for run in await desk.runs())  # type: ignore[index,call-overload,type-var]
    assert (inputs, times["late"], len(desk.bus.dead)) == ([1, 2], 1, 1)
    assert (await desk.view()).trigger.counts == TriggerCounts(fired=2, failed=1)
