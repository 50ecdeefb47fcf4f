"""Bundles: put together and taken apart, settled as one message, and no trap for what fails in them."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paracle_chassis import bundles, frames
from paracle_chassis.bundles import ALONE, Bundles, together
from paracle_chassis.bus import Outgoing
from paracle_chassis.delivery import Delivery
from paracle_chassis.inlet import Incoming
from paracle_chassis.receipts import WORKING, JetStreamReceipt, Place
from paracle_chassis.routes import Routes
from paracle_chassis.testing.contracts.bus import mailbox, note
from paracle_chassis.testing.eventually import eventually
from paracle_chassis.testing.sample import Note
from paracle_chassis.wires import Wire
from paracle_domain import dead_letters, subjects
from paracle_domain.envelope import CE_ID, CLAIM, MSG_ID
from paracle_domain.errors import Conflict, ParacleError, Unavailable

TASKS = subjects.task("acme", "agents")
REPLY = "$JS.ACK.TASKS.testing.1.17.18.1700000000000000000.5"


def wire(number: int, body: bytes = b"{}", *, joins: str | None = TASKS) -> Wire:
    return Wire(TASKS, body, {MSG_ID: f"m{number}", CE_ID: f"m{number}"}, joins)


def delivered(sent: Wire, reply: str = REPLY) -> Incoming:
    """`sent` as a server hands it over."""
    return Incoming(sent.subject, reply, sent.body, frames.head_of(sent.headers))


class Shelf:
    """Keeps what is published, if it can be."""

    def __init__(self) -> None:
        self.published: list[Wire] = []
        self.away = False

    async def publish(self, messages: Sequence[Wire]) -> None:
        if self.away:
            raise Unavailable("NATS is away")
        self.published.extend(messages)


class Said:
    """What receipts have said, by ack subject. Nothing is fetched, answered or buried here."""

    claims: Any = None
    replies: Any = None

    def __init__(self) -> None:
        self.words: list[tuple[tuple[str, ...], bytes]] = []

    async def settle(self, replies: Sequence[str], word: bytes) -> None:
        self.words.append((tuple(replies), word))

    async def bury(self, delivery: Delivery, place: Place, error: ParacleError) -> None:
        raise AssertionError

    async def end(self, reply: str) -> None:
        raise AssertionError


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def hand(shelf: Shelf) -> Bundles:
    return Bundles(shelf)


@given(st.lists(st.integers(-20_000, 20_000), max_size=250))
def test_what_is_put_together_is_taken_apart_again(sizes: list[int]) -> None:
    wires = [
        wire(number, b"\r\n" * (abs(size) // 2), joins=TASKS if size > 0 else None) for number, size in enumerate(sizes)
    ]
    hand = Bundles(Shelf())
    packed = together(wires)
    assert all(len(one.body) <= bundles.MOST_BYTES + 200 * bundles.MOST_PARTS for one in packed)
    got = [part for number, one in enumerate(packed) for part in hand.unpack(delivered(one, f"{REPLY}{number}"))]
    assert sorted((part.headers[CE_ID], part.data) for part in got) == sorted(
        (one.headers[CE_ID], one.body) for one in wires
    )
    joined = [part.headers[CE_ID] for part in got if "#" in part.reply]
    assert joined == sorted(joined, key=lambda key: int(key[1:]))
    assert len({one.headers[MSG_ID] for one in packed}) == len(packed)


def test_a_bundle_is_no_larger_than_a_server_takes_whatever_headers_its_messages_have() -> None:
    story = "x" * 12_000
    wires = [Wire(TASKS, b"{}", {MSG_ID: f"m{number}", CE_ID: story}, TASKS) for number in range(200)]
    packed = together(wires)
    assert max(len(one.body) for one in packed) < 2 * bundles.MOST_BYTES
    assert sum(int(one.headers[bundles.HEADER]) for one in packed) == len(wires)
    large = Wire(TASKS, b"{}", {MSG_ID: "large", CE_ID: 3 * story}, TASKS)
    assert together([large, large]) == [large, large]


def test_a_lone_message_is_no_bundle() -> None:
    assert together([wire(1), wire(2, joins=None)]) == [wire(2, joins=None), wire(1)]


def test_only_the_same_messages_are_the_same_bundle() -> None:
    (first,), (same,), (other,) = (
        together([wire(1), wire(2)]),
        together([wire(1), wire(2)]),
        together([wire(1), wire(3)]),
    )
    assert first == same
    assert first.headers[MSG_ID] != other.headers[MSG_ID]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"paracle.v1.globex.task.agents 0 0\r\n",
        b"paracle.v1.acme.cmd.orchestrator.start_run 0 0\r\n",
        b"paracle.v1.acme.task.agents 0 9\r\n",
        b"paracle.v1.acme.task.agents 5 -5\r\n",
        b"paracle.v1.acme.task.agents x 0\r\n",
        b"paracle.v1.acme.task.agents",
    ],
)
def test_a_bundle_that_is_none_or_reaches_further_than_its_sender_may_is_handed_over_as_it_came(
    hand: Bundles, body: bytes
) -> None:
    forged = delivered(Wire(TASKS, body, {bundles.HEADER: "1"}))
    assert hand.unpack(forged) == (forged,)


@pytest.mark.parametrize("kind", ["cmd.orchestrator.{}", "in.mail.{}", "evt.run.run_1.{}", "dlq.{}"])
def test_whoever_may_publish_on_one_subject_reaches_no_other_with_a_bundle(hand: Bundles, kind: str) -> None:
    allowed, refused = (f"paracle.v1.acme.{kind.format(last)}" for last in ("start_run", "decide_approval"))
    forged = delivered(Wire(allowed, f"{refused} 0 2\r\n{{}}".encode(), {bundles.HEADER: "1"}))
    assert hand.unpack(forged) == (forged,)


async def test_a_bundle_is_acked_once_all_in_it_is(hand: Bundles) -> None:
    (packed,) = together([wire(1), wire(2), wire(3)])
    parts = [part.reply for part in hand.unpack(delivered(packed))]
    assert {bundles.whole_of(reply) for reply in parts} == {REPLY}
    assert await hand.settle(parts[:2], b"") == []
    assert await hand.settle(["other", parts[2]], b"") == [("other", b""), (REPLY, b"")]


async def test_what_fails_is_published_alone_before_the_others_are_acked(hand: Bundles, shelf: Shelf) -> None:
    (packed,) = together([wire(1), wire(2, b"poison"), wire(3)])
    parts = [part.reply for part in hand.unpack(delivered(packed))]
    assert await hand.settle([parts[1]], b"-NAK") == []
    assert await hand.settle([parts[0], parts[2]], b"") == [(REPLY, b"")]
    assert [(one.subject, one.body, one.headers[CE_ID]) for one in shelf.published] == [(TASKS, b"poison", "m2")]


async def test_what_is_given_back_whole_comes_again_as_it_was(hand: Bundles, shelf: Shelf) -> None:
    (packed,) = together([wire(1), wire(2)])
    parts = [part.reply for part in hand.unpack(delivered(packed))]
    assert await hand.settle(parts, b"-NAK") == [(REPLY, b"-NAK")]
    parts = [part.reply for part in hand.unpack(delivered(packed))]
    assert await hand.settle(parts, ALONE) == [(REPLY, b"")]
    assert len(shelf.published) == 2


async def test_a_bundle_comes_again_if_what_failed_of_it_cannot_be_published(hand: Bundles, shelf: Shelf) -> None:
    shelf.away = True
    (packed,) = together([wire(1), wire(2)])
    parts = [part.reply for part in hand.unpack(delivered(packed))]
    assert await hand.settle(parts[:1], b"") == []
    assert await hand.settle(parts[1:], ALONE) == [(REPLY, b"-NAK")]


async def test_what_was_put_away_stays_there_when_it_comes_again_alone(hand: Bundles, shelf: Shelf) -> None:
    claimed = Wire(TASKS, b"", {MSG_ID: "m1", CE_ID: "m1", CLAIM: "large"}, TASKS)
    (packed,) = together([claimed, wire(2)])
    large, small = hand.unpack(delivered(packed))
    large.data = b"x" * 2_000_000  # as its mailbox fetched it
    await hand.settle([large.reply], b"-NAK")
    assert await hand.settle([small.reply], b"") == [(REPLY, b"")]
    assert [(one.body, one.headers[CLAIM]) for one in shelf.published] == [(b"", "large")]


# ── over NATS ────────────────────────────────────────────────────────────────────────────────────────────────────────


def joining(number: int) -> Outgoing:
    return replace(note(number), joins=TASKS)


async def messages_of(bus) -> tuple[int, int]:
    """How many there are in the stream, and how many there ever were."""
    state = (await bus.client.jsm().stream_info(subjects.TASKS)).state
    return state.messages, state.last_seq


@pytest.mark.connected
async def test_many_travel_together_and_are_handled_each_by_itself(serve) -> None:
    seen: list[tuple[int, str]] = []

    async def handle(batch) -> None:
        seen.extend((delivery.decode(Note).number, delivery.envelope.id) for delivery in batch)

    bus = await serve(mailbox(handle, batch=30))
    before = (await messages_of(bus))[1]
    await bus.publish([joining(number) for number in range(250)])
    await eventually(lambda: len(seen) == 250)
    assert seen == [(number, f"note-{number}") for number in range(250)]

    async def empty() -> bool:
        return await messages_of(bus) == (0, before + 3)

    await eventually(empty)


@pytest.mark.connected
async def test_a_poison_message_in_a_bundle_is_a_dead_letter_of_its_own(serve) -> None:
    seen: list[int] = []
    letters: list[tuple[str, str]] = []

    async def refuse_three(batch) -> None:
        numbers = [delivery.decode(Note).number for delivery in batch]
        if 3 in numbers:
            raise Conflict("no threes")
        seen.extend(numbers)

    async def keep(batch) -> None:
        letters.extend((one.headers[dead_letters.DEAD_ID], one.headers[dead_letters.DEAD_TRIES]) for one in batch)

    table: Routes = mailbox(refuse_three)
    filter_ = subjects.dlq(subjects.ANY, subjects.ANY)
    table.mailbox(stream=subjects.DEADLETTERS, durable="testing", filter=filter_, handler=keep)
    bus = await serve(table)
    await bus.publish([joining(number) for number in range(6)])
    await eventually(lambda: letters)
    assert letters == [("note-3", "1")]
    await eventually(lambda: sorted(seen) == [0, 1, 2, 4, 5])


@pytest.mark.connected
async def test_a_bundle_that_is_given_back_by_a_drain_goes_on_elsewhere(serve) -> None:
    kept: list[Delivery] = []
    seen: list[int] = []

    async def keep(batch) -> None:
        for delivery in batch:
            delivery.keep()
        kept.extend(batch)

    async def handle(batch) -> None:
        seen.extend(delivery.decode(Note).number for delivery in batch)

    first = await serve(mailbox(keep))
    await first.publish([joining(number) for number in range(10)])
    await eventually(lambda: len(kept) == 10)
    first_half, rest = kept[:5], kept[5:]
    for delivery in first_half:
        await delivery.ack()
    await first.drain(5)
    await serve(mailbox(handle))
    for delivery in rest:
        await delivery.nak()
    await eventually(lambda: len(seen) == 5)
    assert sorted(seen) == [5, 6, 7, 8, 9]


def test_a_delivery_that_is_kept_holds_no_more_of_its_headers_than_came() -> None:
    delivery = JetStreamReceipt.deliver(delivered(wire(1)), Said())
    read, envelope = delivery.headers, delivery.envelope
    assert delivery.headers is read
    delivery.keep()
    assert delivery.headers is not read
    assert delivery.headers == read
    assert delivery.envelope is envelope


async def test_that_many_are_being_worked_on_is_said_at_once_and_not_of_what_is_done(hand: Bundles) -> None:
    said = Said()
    (packed,) = together([wire(number) for number in range(3)])
    parts = hand.unpack(delivered(packed))
    first, *rest = [JetStreamReceipt.deliver(part, said) for part in parts]
    await first.ack()
    await Delivery.all_in_progress([first, *rest])
    asked = [part.reply for part in parts]
    assert said.words == [((asked[0],), b""), (tuple(asked[1:]), WORKING)]
    await Delivery.all_in_progress([first])
    assert len(said.words) == 2


async def test_what_is_done_with_goes_without_a_look_for_garbage(hand: Bundles) -> None:
    (packed,) = together([wire(number) for number in range(3)])
    gc.collect()
    deliveries = [JetStreamReceipt.deliver(part, Said()) for part in hand.unpack(delivered(packed))]
    await Delivery.ack_all(deliveries)
    deliveries.clear()
    assert gc.collect() == 0
