"""What every bus keeps to.

A test class inherits `BusContract` and gives a fixture `make`: it starts a bus that serves some routes, and stops that
after the test.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from paracle_chassis.bus import CLAIM_THRESHOLD, PAYLOAD_LIMIT, Bus, Outgoing, outgoing
from paracle_chassis.delivery import Delivery
from paracle_chassis.routes import Routes
from paracle_chassis.testing.eventually import eventually
from paracle_chassis.testing.sample import Begin, Begun, Echo, Echoed, Note, Work
from paracle_domain import subjects
from paracle_domain.envelope import Context, Envelope
from paracle_domain.errors import (
    Conflict,
    DeadlineExceeded,
    Finding,
    InternalError,
    NotFound,
    PayloadTooLarge,
    RateLimited,
    Unavailable,
)

type MakeBus = Callable[[Routes], Awaitable[Bus]]

CONTEXT = Context("acme", "user:ann", correlation_id="run_1")


def note(number: int, *, id: str | None = None, text: str = "n") -> Outgoing:  # CloudEvents' word
    """A message for the mailbox of `mailbox`."""
    message = Note(text=text, number=number)
    return outgoing(subjects.task("acme", "agents"), message, CONTEXT, source="test", id=id or f"note-{number}")


def mailbox(handler: Callable[[Sequence[Delivery]], Awaitable[None]], **options: Any) -> Routes:
    """A service with one mailbox."""
    table = Routes("testing")
    filter_ = "paracle.v1.*.task.agents"
    table.mailbox(stream=subjects.TASKS, durable="testing", filter=filter_, handler=handler, **options)
    return table


def rpc(handler: Callable[[Any, Context], Awaitable[Any]]) -> Routes:
    """A service that answers `Echo`."""
    table = Routes("testing")
    table.rpc(Echo, handler)
    return table


class BusContract:
    """The suite."""

    # ── asking ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def test_an_answer_is_typed_and_its_context_arrives(self, make: MakeBus) -> None:
        seen: list[Context] = []

        async def echo(request: Echo, call: Context) -> Echoed:
            seen.append(call)
            return Echoed(text=request.text, tenant=call.tenant)

        bus = await make(rpc(echo))
        assert await bus.call(Echo(text="hé"), CONTEXT) == Echoed(text="hé", tenant="acme")
        assert (seen[0].principal, seen[0].correlation_id) == ("user:ann", "run_1")

    async def test_an_error_comes_out_as_the_same_class_with_everything_it_said(self, make: MakeBus) -> None:
        async def refuse(_request: Echo, _call: Context) -> Echoed:
            raise Conflict("taken", path="metadata.name", problems=[Finding(path="metadata.name", message="taken")])

        bus = await make(rpc(refuse))
        with pytest.raises(Conflict, match="taken") as caught:
            await bus.call(Echo(text="hi"), CONTEXT)
        assert caught.value.path == "metadata.name"
        assert caught.value.problems[0].message == "taken"

    async def test_an_unexpected_exception_is_internal_and_tells_nothing(self, make: MakeBus) -> None:
        async def break_down(_request: Echo, _call: Context) -> Echoed:
            raise ValueError("the password is hunter2")

        bus = await make(rpc(break_down))
        with pytest.raises(InternalError) as caught:
            await bus.call(Echo(text="hi"), CONTEXT)
        assert "hunter2" not in str(caught.value)

    async def test_a_service_that_lost_what_it_needs_is_unavailable(self, make: MakeBus) -> None:
        async def unplugged(_request: Echo, _call: Context) -> Echoed:
            raise ConnectionResetError("10.0.0.7")

        bus = await make(rpc(unplugged))
        with pytest.raises(Unavailable, match="testing cannot reach") as caught:
            await bus.call(Echo(text="hi"), CONTEXT)
        assert "10.0.0.7" not in str(caught.value)

    async def test_retry_after_survives_the_journey(self, make: MakeBus) -> None:
        async def busy(_request: Echo, _call: Context) -> Echoed:
            raise RateLimited("later", retry_after_s=2.5)

        bus = await make(rpc(busy))
        with pytest.raises(RateLimited) as caught:
            await bus.call(Echo(text="hi"), CONTEXT)
        assert caught.value.retry_after_s == 2.5

    async def test_nobody_there_and_no_such_method_are_told_apart(self, make: MakeBus) -> None:
        bus = await make(Routes("somebody"))
        with pytest.raises(Unavailable, match="no testing is running"):
            await bus.call(Echo(text="hi"), CONTEXT, timeout_s=30)

        async def echo(request: Echo, _call: Context) -> Echoed:
            return Echoed(text=request.text)

        bus = await make(rpc(echo))
        with pytest.raises(NotFound, match="no method 'work'"):
            await bus.call(Work(text="hi"), CONTEXT)

    async def test_a_deadline_is_kept(self, make: MakeBus) -> None:
        async def dawdle(_request: Echo, _call: Context) -> Echoed:
            await asyncio.Event().wait()
            raise AssertionError("never")

        bus = await make(rpc(dawdle))
        with pytest.raises(DeadlineExceeded, match=r"testing\.echo"):
            await bus.call(Echo(text="hi"), CONTEXT, timeout_s=0.05)

    # ── mailboxes ────────────────────────────────────────────────────────────────────────────────────────────────

    async def test_messages_arrive_in_order_and_once(self, make: MakeBus) -> None:
        seen: list[int] = []

        async def keep(batch: Sequence[Delivery]) -> None:
            seen.extend(delivery.decode(Note).number for delivery in batch)

        bus = await make(mailbox(keep, batch=7))
        await bus.publish([note(number) for number in range(50)])
        await bus.publish([note(49), note(50)])
        await eventually(lambda: 50 in seen)
        assert seen == list(range(51))

    async def test_events_come_under_their_kind_and_say_themselves_whose_they_are(self, make: MakeBus) -> None:
        seen: list[tuple[str, int]] = []

        async def keep(batch: Sequence[Delivery]) -> None:
            seen.extend((delivery.subject, delivery.decode(Note).number) for delivery in batch)

        table = Routes("testing")
        ends = subjects.evt("*", "run", "*", "run_completed")
        table.mailbox(stream=subjects.EVENTS, durable="testing", filter=ends, handler=keep)
        bus = await make(table)
        told = [("run_1", "run_started"), ("run_2", "run_completed"), ("run_3", "run_completed")]
        await bus.publish(
            [
                outgoing(
                    subjects.evt("acme", "run", run, kind), Note(text=run, number=nth), CONTEXT, source="t", id=run
                )
                for nth, (run, kind) in enumerate(told)
            ]
        )
        await eventually(lambda: len(seen) == 2)
        kept = subjects.evt("acme", "run", subjects.UNNAMED, "run_completed")
        assert sorted(seen) == [(kept, 1), (kept, 2)]

    async def test_a_poison_message_stops_no_neighbour_and_is_a_dead_letter_at_once(self, make: MakeBus) -> None:
        seen: list[int] = []
        refused: list[int] = []

        async def handle(batch: Sequence[Delivery]) -> None:
            numbers = [delivery.decode(Note).number for delivery in batch]
            if 3 in numbers:
                refused.append(len(numbers))
                raise Conflict("three is not welcome")
            seen.extend(numbers)

        bus = await make(mailbox(handle))
        await bus.publish([note(number) for number in range(6)])
        await eventually(lambda: sorted(seen) == [0, 1, 2, 4, 5] and refused[-1:] == [1])
        assert refused.count(1) == 1

    async def test_what_fails_is_tried_again_and_no_more_than_it_may(self, make: MakeBus) -> None:
        tries: list[int] = []

        async def fail(batch: Sequence[Delivery]) -> None:
            tries.extend(delivery.deliveries for delivery in batch)
            raise RuntimeError("again and again")

        bus = await make(mailbox(fail, max_deliver=3, backoff_s=(0.01,)))
        await bus.publish([note(1)])
        await eventually(lambda: tries == [1, 2, 3])

    async def test_an_outage_uses_up_no_tries(self, make: MakeBus) -> None:
        calls: list[int] = []
        again: list[bool] = []

        async def unplugged_at_first(batch: Sequence[Delivery]) -> None:
            calls.append(batch[0].deliveries)
            again.append(batch[0].again)
            if len(calls) < 4:
                raise Unavailable("the database restarts")

        bus = await make(mailbox(unplugged_at_first, max_deliver=1))
        await bus.publish([note(1)])
        await eventually(lambda: len(calls) == 4)
        assert set(calls) == {1}
        assert again == [False, True, True, True]

    async def test_a_kept_delivery_is_settled_by_whoever_kept_it(self, make: MakeBus) -> None:
        kept: list[Delivery] = []

        async def keep(batch: Sequence[Delivery]) -> None:
            for delivery in batch:
                delivery.keep()
                kept.append(delivery)

        bus = await make(mailbox(keep))
        await bus.publish([note(1)])
        await eventually(lambda: kept)
        assert not kept[0].settled
        await kept[0].nak()
        await eventually(lambda: len(kept) == 2)
        assert kept[1].deliveries == 2
        await kept[1].ack()

    async def test_a_message_that_is_too_large_is_refused_and_holds_up_no_other(self, make: MakeBus) -> None:
        seen: list[int] = []

        async def keep(batch: Sequence[Delivery]) -> None:
            seen.extend(delivery.decode(Note).number for delivery in batch)

        bus = await make(mailbox(keep))
        with pytest.raises(PayloadTooLarge, match="67,108,864"):
            await bus.publish([note(1), note(2, text="x" * PAYLOAD_LIMIT), note(3)])
        await eventually(lambda: seen == [1, 3])

    async def test_what_was_packed_arrives_as_if_it_had_not_been(self, make: MakeBus) -> None:
        seen: dict[int, tuple[Envelope, str]] = {}

        async def keep(batch: Sequence[Delivery]) -> None:
            for delivery in batch:
                found = delivery.decode(Note)
                seen[found.number] = (delivery.envelope, found.text)

        bus = await make(mailbox(keep))
        large = "x" * (CLAIM_THRESHOLD + 1)
        messages = [note(1), note(2, text=large)]
        pack = bus.packer()
        with pytest.raises(PayloadTooLarge):
            await bus.publish([pack(message) for message in (*messages, note(3, text="x" * PAYLOAD_LIMIT))])
        await eventually(lambda: len(seen) == 2)
        assert {number: text for number, (_, text) in seen.items()} == {1: "n", 2: large}
        for number, message in enumerate(messages, 1):
            assert seen[number][0].id == message.envelope.id
            assert seen[number][0].time == message.envelope.time
        heavy = note(4, id="y" * 80_000)
        assert pack(heavy).envelope == heavy.envelope, "what is wrong with it is said when it is published"

    # ── commands and broadcasts ──────────────────────────────────────────────────────────────────────────────────

    async def test_a_command_is_answered_once_it_is_done_also_when_sent_again(self, make: MakeBus) -> None:
        async def obey(batch: Sequence[Delivery]) -> None:
            for delivery in batch:
                name = delivery.decode(Begin).name
                await delivery.reply(Conflict("not this one") if name == "bad" else Begun(run_id=delivery.envelope.id))

        table = Routes("testing")
        commands = subjects.cmd("*", "testing", "*")
        table.mailbox(stream=subjects.COMMANDS, durable="testing", filter=commands, handler=obey)
        bus = await make(table)
        first = await bus.command(Begin(name="good"), CONTEXT, id="begin-1")
        assert first["run_id"] == "begin-1"
        assert first["stream"] == subjects.COMMANDS
        assert first["seq"] == 1
        again = await bus.command(Begin(name="good"), CONTEXT, id="begin-1")
        assert again["run_id"] == "begin-1"
        with pytest.raises(Conflict, match="not this one"):
            await bus.command(Begin(name="bad"), CONTEXT)

    async def test_a_published_command_waits_for_nobody_and_reaches_its_service(self, make: MakeBus) -> None:
        """Its stream confirms nothing, and a service that obeys it need not answer, or even be up."""
        obeyed: list[str] = []

        async def obey(batch: Sequence[Delivery]) -> None:
            obeyed.extend(delivery.decode(Begin).name for delivery in batch)

        table = Routes("testing")
        commands = subjects.cmd("*", "testing", "*")
        table.mailbox(stream=subjects.COMMANDS, durable="testing", filter=commands, handler=obey)
        bus = await make(table)
        orders = [
            outgoing(subjects.cmd("acme", service, "begin"), Begin(name=service), CONTEXT, source="test")
            for service in ("away", "testing")
        ]
        async with asyncio.timeout(20):  # less than it would wait for whoever is away
            await bus.publish(orders)
        await eventually(lambda: obeyed == ["testing"])

    async def test_a_broadcast_is_heard_by_whoever_listens(self, make: MakeBus) -> None:
        heard: list[Delivery] = []

        async def hear(delivery: Delivery) -> None:
            heard.append(delivery)

        table = Routes("testing")
        table.listen("paracle.v1.*.evt.task.*.*", hear)
        bus = await make(table)
        subject = subjects.evt("acme", "task", "task_1", "moved")
        await bus.broadcast(outgoing(subject, Note(text="psst"), CONTEXT, source="test"))
        await eventually(lambda: heard)
        assert (heard[0].tenant, heard[0].decode(Note).text) == ("acme", "psst")
