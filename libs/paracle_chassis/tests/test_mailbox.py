"""Mailboxes over real NATS: what the contract suite cannot show without a server to break."""

import asyncio
import operator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from nats.errors import Error as NatsError
from nats.js.errors import NotFoundError

from paracle_chassis import consumer, provisioning, receipts, topology
from paracle_chassis.bus import Outgoing
from paracle_chassis.delivery import Delivery
from paracle_chassis.frames import flushed
from paracle_chassis.late_acks import LateAcks
from paracle_chassis.routes import Routes
from paracle_chassis.settings import ServiceSettings
from paracle_chassis.streams import Streams
from paracle_chassis.testing.contracts.bus import CONTEXT, mailbox, note
from paracle_chassis.testing.eventually import eventually
from paracle_chassis.testing.sample import Begin, Note
from paracle_domain import dead_letters, subjects
from paracle_domain.envelope import CE_ID, PRINCIPAL, Context, Envelope
from paracle_domain.errors import Conflict, PayloadTooLarge
from paracle_embedded import NatsServer

pytestmark = pytest.mark.connected
OUTPUT, TASKS = (
    next(spec for spec in topology.STREAMS if spec.name == name) for name in (subjects.OUTPUT, subjects.TASKS)
)


class Recorder:
    """A handler that remembers the numbers that it saw."""

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.batches: list[int] = []

    async def __call__(self, batch) -> None:
        self.batches.append(len(batch))
        self.seen.extend(delivery.decode(Note).number for delivery in batch)


async def emptied(bus) -> None:
    jetstream = bus.client.jsm()

    async def empty() -> bool:
        return (await jetstream.stream_info(subjects.TASKS)).state.messages == 0

    await eventually(empty)


async def test_what_is_handled_is_gone_from_the_work_queue(serve):
    recorder = Recorder()
    bus = await serve(mailbox(recorder))
    await bus.publish([note(number) for number in range(2000)])
    await eventually(lambda: len(recorder.seen) == 2000)
    assert recorder.seen == list(range(2000))
    await emptied(bus)


async def test_large_messages_are_handed_over_in_portions_that_fit_into_memory(serve, monkeypatch):
    monkeypatch.setattr("paracle_chassis.mailbox.PORTION_BYTES", 1_000_000)
    recorder = Recorder()
    held: list[int] = []
    deliveries = []

    async def handle(batch) -> None:
        deliveries.extend(batch)
        held.append(sum(len(delivery.body) for delivery in deliveries))
        await recorder(batch)

    caller = await serve()
    await caller.publish([note(number, text="x" * 400_000) for number in range(7)])
    bus = await serve(mailbox(handle))
    await eventually(lambda: len(recorder.seen) == 7)
    assert recorder.seen == list(range(7))
    assert max(recorder.batches) == 3
    assert max(held) < 1_500_000
    await emptied(bus)


async def test_a_batch_of_nothing_but_what_cannot_be_read_breaks_nothing(serve, caplog):
    recorder = Recorder()
    caller = await serve()
    await caller.publish([note(number) for number in range(1, 5)])
    stream = caller.client.jetstream()
    for _ in range(3):
        await stream.publish(note(0).subject, b"", headers={"paracle-claim": "gone"})
    bus = await serve(mailbox(recorder, batch=2))
    await emptied(bus)
    assert recorder.seen == [1, 2, 3, 4]
    assert "broke off" not in caplog.text


async def test_the_same_id_twice_is_one_message(serve):
    recorder = Recorder()
    bus = await serve(mailbox(recorder))
    await bus.publish([note(1), note(1), note(2)])
    await bus.publish([note(2), note(3)])
    await eventually(lambda: 3 in recorder.seen)
    assert recorder.seen == [1, 2, 3]


async def test_a_lone_message_is_handed_over_although_a_batch_could_be_large(serve, monkeypatch):
    monkeypatch.setattr(consumer, "EXPIRES_S", 600)  # nor when the server has waited long enough for more
    recorder = Recorder()
    bus = await serve(mailbox(recorder, batch=1000))
    for number in range(5):
        await bus.publish([note(number)])
        await eventually(partial(operator.eq, recorder.seen, list(range(number + 1))))
    assert recorder.batches == [1] * 5


async def test_what_gathers_while_a_mailbox_lingers_is_taken_together(serve, monkeypatch):
    monkeypatch.setattr(consumer, "_GATHERED_WITHIN_S", 600)
    bus, recorder = await serve(), Recorder()
    await bus.publish([note(number) for number in range(7)])
    lingering = await serve(mailbox(recorder, batch=5, linger_s=0.05))
    await eventually(lambda: len(recorder.seen) == 7)
    assert recorder.batches == [5, 2]
    await bus.publish([note(7)])
    await eventually(lambda: recorder.seen == list(range(8)))
    await lingering.drain(5)


async def test_a_mailbox_that_lingers_is_drained_at_once(serve):
    recorder = Recorder()
    bus = await serve(mailbox(recorder, linger_s=600))
    await bus.publish([note(1)])
    held = bus._mailboxes[0]._consumer.buffer
    await eventually(lambda: len(held) == 1)
    await bus.drain(60)
    assert not recorder.seen


async def test_a_mailbox_that_lingers_waits_for_no_more_than_it_may_have_unacked(serve, monkeypatch):
    """What it asks for beyond that the server would keep for as long as nothing is acked."""
    monkeypatch.setattr(consumer, "_GATHERED_WITHIN_S", 600)
    monkeypatch.setattr(consumer, "HEARTBEAT_S", 60)  # nor does it start over because the server is silent
    monkeypatch.setattr(consumer, "EXPIRES_S", 600)
    bus, recorder = await serve(), Recorder()
    await bus.publish([note(number) for number in range(5)])
    await serve(mailbox(recorder, batch=5, linger_s=0.01, max_ack_pending=2))
    await eventually(lambda: recorder.seen == list(range(5)))
    assert max(recorder.batches) == 2


async def test_a_mailbox_that_lingers_outlives_the_loss_of_what_it_asked_for(serve, monkeypatch):
    monkeypatch.setattr(consumer, "_GATHERED_WITHIN_S", 0.05)
    bus, recorder = await serve(), Recorder()
    lingering = await serve(mailbox(recorder, batch=5, linger_s=0.01))
    ask = lingering._mailboxes[0]._consumer._request

    async def lose(name, wanted) -> None:
        if "no_wait" not in wanted:
            await ask(name, wanted)

    monkeypatch.setattr(lingering._mailboxes[0]._consumer, "_request", lose)
    await bus.publish([note(number) for number in range(3)])
    await eventually(lambda: recorder.seen == [0, 1, 2])


async def test_a_dead_letter_keeps_the_message_and_says_why(serve):
    async def refuse(_batch) -> None:
        raise Conflict("not\nthis one")

    bus = await serve(mailbox(refuse))
    await bus.publish([note(7, text="exactly this")])
    found = await eventually_dead(bus)
    assert Note.decode(found.data) == Note(text="exactly this", number=7)
    assert found.subject == "paracle.v1.acme.dlq.testing"
    assert found.headers[CE_ID] == "note-7"
    assert found.headers[dead_letters.DEAD_SUBJECT] == "paracle.v1.acme.task.agents"
    assert found.headers[dead_letters.DEAD_CODE] == "conflict"
    assert found.headers[dead_letters.DEAD_REASON] == "not this one"
    assert found.headers[dead_letters.DEAD_TRIES] == "1"
    await emptied(bus)


async def test_what_was_buried_stays_in_its_stream_until_the_copy_is_on_disk(serve, monkeypatch):
    """Whoever dies before that leaves it to the next, who buries it as the same dead letter."""

    async def refuse(_batch) -> None:
        raise Conflict("no")

    monkeypatch.setattr(receipts, "FLUSHED_S", 3600.0)
    bus = await serve(mailbox(refuse, ack_wait_s=1.0))
    await bus.publish([note(1)])
    await eventually_dead(bus)
    assert (await bus.client.jsm().stream_info(subjects.TASKS)).state.messages == 1
    await bus.drain(0)
    monkeypatch.setattr(receipts, "FLUSHED_S", 0.0)
    again = await serve(mailbox(refuse, ack_wait_s=1.0))
    await emptied(again)
    assert (await again.client.jsm().stream_info(subjects.DEADLETTERS)).state.messages == 1


async def test_a_dead_letter_that_its_reader_refuses_is_not_buried_for_ever(serve):
    """Once, so that it is seen; then it stays where it is."""
    refused: list[int] = []

    async def refuse(batch) -> None:
        refused.extend(delivery.stream_seq for delivery in batch)
        raise Conflict("no letters")

    table = Routes("testing")
    table.mailbox(
        stream=subjects.DEADLETTERS, durable="testing", filter=subjects.dlq(subjects.ANY, subjects.ANY), handler=refuse
    )
    bus = await serve(table)
    await bus.client.publish(subjects.dlq("acme", "elsewhere"), b"by hand")
    jetstream = bus.client.jsm()

    async def settled() -> bool:
        consumer = await jetstream.consumer_info(subjects.DEADLETTERS, "testing")
        return refused == [1, 2] and consumer.num_ack_pending == consumer.num_pending == 0

    await eventually(settled)
    assert (await jetstream.stream_info(subjects.DEADLETTERS)).state.messages == 2


async def test_of_a_published_batch_the_one_poison_message_becomes_a_dead_letter(serve):
    seen: list[int] = []

    async def refuse_three(batch) -> None:
        numbers = [delivery.decode(Note).number for delivery in batch]
        if 3 in numbers:
            raise Conflict("no threes")
        seen.extend(numbers)

    bus = await serve(mailbox(refuse_three))
    await bus.publish([note(number) for number in range(6)])
    found = await eventually_dead(bus)
    assert Note.decode(found.data) == note(3).message
    await eventually(lambda: sorted(seen) == [0, 1, 2, 4, 5])


async def eventually_dead(bus):
    jetstream = bus.client.jsm()

    async def look():
        try:
            return await jetstream.get_last_msg(subjects.DEADLETTERS, "paracle.v1.acme.dlq.testing")
        except NotFoundError:
            return None

    return await eventually(look)


async def test_what_is_no_message_of_the_contract_is_a_dead_letter(serve):
    recorder = Recorder()
    bus = await serve(mailbox(recorder))
    await bus.publish([])
    await bus.client.publish("paracle.v1.acme.task.agents", b"\xff not json")
    found = await eventually_dead(bus)
    assert found.headers[dead_letters.DEAD_CODE] == "malformed_message"
    assert found.data == b"\xff not json"


@pytest.mark.parametrize("word", [b"a\x0bb", b"a\x0cb", b"\xff"])
async def test_a_subject_that_is_none_is_a_dead_letter_and_stops_nothing(serve, word: bytes):
    recorder = Recorder()
    table = Routes("testing")
    table.mailbox(stream=subjects.TASKS, durable="testing", filter="paracle.v1.*.task.>", handler=recorder)
    bus = await serve(table)
    await bus.publish([])
    await bus.client._send_command(b"PUB paracle.v1.acme.task.%b 3\r\nodd\r\n" % word)
    await bus.publish([note(7)])
    await eventually(lambda: recorder.seen == [7])
    found = await eventually_dead(bus)
    assert found.headers[dead_letters.DEAD_CODE] == "malformed_message"
    assert found.data == b"odd"


@pytest.mark.parametrize("size", [29_000, 65_400])
async def test_headers_that_cannot_be_handed_on_are_left_out_of_a_dead_letter(serve, size: int):
    """A run that such a message begins could tell nobody of it, and would look like an outage for ever."""
    recorder = Recorder()
    bus = await serve(mailbox(recorder))
    await bus.publish([])
    await bus.client.publish("paracle.v1.acme.task.agents", b"{}", headers={PRINCIPAL: "x" * size})
    await bus.publish([note(7)])
    await eventually(lambda: recorder.seen == [7])
    found = await eventually_dead(bus)
    assert (found.headers[dead_letters.DEAD_CODE], PRINCIPAL in found.headers) == ("malformed_message", False)
    assert found.data == b"{}"
    await emptied(bus)


async def test_deleting_the_streams_under_a_mailbox_only_interrupts_it(serve):
    recorder = Recorder()
    bus = await serve(mailbox(recorder))
    await bus.publish([note(1)])
    await eventually(lambda: recorder.seen == [1])
    await bus.client.jsm().delete_stream(subjects.TASKS)
    await bus.publish([note(2)])
    await eventually(lambda: recorder.seen == [1, 2])


async def test_deleting_the_consumer_under_a_mailbox_only_interrupts_it(serve):
    recorder = Recorder()
    bus = await serve(mailbox(recorder))
    await bus.publish([note(1)])
    await eventually(lambda: recorder.seen == [1])
    await emptied(bus)  # its acknowledgement has arrived; otherwise it would rightly be delivered again
    await bus.client.jsm().delete_consumer(subjects.TASKS, "testing")
    await bus.publish([note(2)])
    await eventually(lambda: recorder.seen == [1, 2])


async def test_a_server_killed_under_load_loses_nothing_that_was_written_through(serve, nats_server: NatsServer):
    recorder = Recorder()
    settings = ServiceSettings(nats_url=nats_server.url, nats_relaxed=False)
    bus = await serve(mailbox(recorder), settings=settings)
    await bus.publish([note(number) for number in range(100)])

    async def publish() -> None:
        for start in range(100, 1000, 100):
            await bus.publish([note(number) for number in range(start, start + 100)])

    publishing = asyncio.create_task(publish())
    await eventually(lambda: len(recorder.seen) > 300)
    await asyncio.to_thread(nats_server.kill)
    await asyncio.to_thread(nats_server.start)
    await publishing
    await eventually(lambda: set(recorder.seen) == set(range(1000)))


async def test_what_waits_for_a_lost_connection_does_not_keep_it_from_closing(nats_server: NatsServer, serve):
    bus = await serve(settings=ServiceSettings(nats_url=nats_server.url))
    await asyncio.to_thread(nats_server.kill)
    await eventually(lambda: not bus.link.connected)
    await bus.client.publish("paracle.test", b"never sent")
    assert bus.client.pending_data_size > 0
    await bus.link.close()
    assert bus.client.is_closed


async def test_signs_of_life_are_not_kept_while_nats_is_away(nats_server: NatsServer, serve):
    kept: list[Delivery] = []

    async def keep(batch) -> None:
        for delivery in batch:
            delivery.keep()
        kept.extend(batch)

    bus = await serve(mailbox(keep), settings=ServiceSettings(nats_url=nats_server.url))
    await bus.publish([note(number) for number in range(3)])
    await eventually(lambda: len(kept) == 3)
    await asyncio.to_thread(nats_server.kill)
    await eventually(lambda: not bus.link.connected)
    before = bus.client.pending_data_size
    await Delivery.all_in_progress(kept)
    assert bus.client.pending_data_size == before


async def test_streams_are_there_again_after_a_server_that_had_them_in_memory(nats_server: NatsServer, serve):
    bus = await serve(settings=ServiceSettings(nats_url=nats_server.url))
    await asyncio.to_thread(nats_server.kill)
    await asyncio.to_thread(nats_server.start)
    await eventually(lambda: bus.link.connections == 1)
    await eventually(lambda: heard(bus), within_s=20)


async def test_a_stream_that_is_deleted_under_what_is_only_broadcast_is_there_again(serve):
    first, second = await serve(), await serve()
    await provisioning.ensure_stream(first.client, OUTPUT)
    await eventually(lambda: heard(first))  # a PONG says that it came, not yet that it is kept
    await first.client.jsm().delete_stream(subjects.OUTPUT)
    await eventually(lambda: heard(second))


async def test_a_stream_in_memory_is_there_again_for_who_starts_after_its_server(open_bus, nats_client):
    bus = await open_bus("test")
    await Streams(bus.link).recall()
    assert await provisioning.stream_names(nats_client) == frozenset(), "nothing was provisioned here"
    await provisioning.ensure_stream(nats_client, TASKS)
    later = await open_bus("test")
    await eventually(lambda: heard(later))


async def heard(bus) -> bool:
    """Whether a piece of output is kept."""
    piece = Outgoing(subjects.out("acme", "task_1"), Note(text="n", number=1), Envelope.wrap("note", "test", CONTEXT))
    await bus.broadcast(piece)
    await bus.link.voice.flush()
    try:
        await flushed(bus.client)
        return (await bus.client.jsm().stream_info(subjects.OUTPUT)).state.messages > 0
    except (NotFoundError, NatsError):
        return False


async def test_draining_finishes_the_batch_in_hand_and_gives_the_rest_back_at_once(serve):
    entered, leave = asyncio.Event(), asyncio.Event()
    first: list[int] = []

    async def slow(batch) -> None:
        entered.set()
        await leave.wait()
        first.extend(delivery.decode(Note).number for delivery in batch)

    bus = await serve(mailbox(slow, batch=2))
    await bus.publish([note(number) for number in range(4)])
    await entered.wait()
    draining = asyncio.create_task(bus.drain(10))
    recorder = Recorder()
    await serve(mailbox(recorder, batch=2))
    await eventually(lambda: len(recorder.seen) >= 2)
    leave.set()
    await draining
    assert sorted(first + recorder.seen) == [0, 1, 2, 3]


async def test_a_drain_that_runs_out_of_time_gives_everything_back(serve):
    entered = asyncio.Event()

    async def stuck(_batch) -> None:
        entered.set()
        await asyncio.Event().wait()

    bus = await serve(mailbox(stuck))
    await bus.publish([note(1)])
    await entered.wait()
    await bus.drain(0.05)
    recorder = Recorder()
    await serve(mailbox(recorder))
    await eventually(lambda: recorder.seen == [1])


async def test_work_longer_than_the_ack_wait_is_not_delivered_twice(serve):
    entered, leave = [], asyncio.Event()

    async def slow(batch) -> None:
        entered.append(batch[0].deliveries)
        await leave.wait()

    bus = await serve(mailbox(slow, ack_wait_s=6.0))  # a machine may stand still for two thirds of it
    other = Recorder()
    await bus.publish([note(1)])
    await eventually(lambda: entered)
    await serve(mailbox(other, ack_wait_s=6.0))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(leave.wait(), 8)  # an ack wait goes by
    leave.set()
    assert other.seen == []
    assert entered == [1]


async def test_a_mailbox_may_have_several_batches_at_work(serve):
    entered: list[int] = []
    leave = asyncio.Event()

    async def slow(batch) -> None:
        entered.append(len(batch))
        await leave.wait()

    bus = await serve(mailbox(slow, batch=2, at_once=3))
    await bus.publish([note(number) for number in range(8)])
    await eventually(lambda: len(entered) == 3)
    leave.set()
    await eventually(lambda: sum(entered) == 8)
    await emptied(bus)


async def test_all_batches_at_work_are_given_back_when_they_are_not_done_in_time(serve):
    entered: list[int] = []

    async def never(batch) -> None:
        entered.append(len(batch))
        await asyncio.Event().wait()

    bus = await serve(mailbox(never, batch=1, at_once=2))
    await bus.publish([note(1), note(2)])
    await eventually(lambda: entered == [1, 1])
    await bus.drain(0.05)
    recorder = Recorder()
    await serve(mailbox(recorder))
    await eventually(lambda: sorted(recorder.seen) == [1, 2])


async def test_a_large_body_travels_by_claim_check(serve):
    bodies: list[str] = []

    async def keep(batch) -> None:
        bodies.extend(delivery.decode(Note).text for delivery in batch)

    bus = await serve(mailbox(keep))
    text = "x" * 3_000_000
    await bus.publish([note(1, text=text), note(2, text="small")])
    await eventually(lambda: len(bodies) == 2)
    assert bodies == [text, "small"]


@pytest.mark.parametrize("size", [100_000, 2_000_000])
async def test_headers_that_nats_does_not_take_are_refused_at_once_and_hold_up_no_other(serve, size: int):
    recorder = Recorder()
    bus = await serve(mailbox(recorder))
    message, heavy = note(2), Context("acme", "x" * size)
    large = replace(message, envelope=replace(message.envelope, context=heavy))
    with pytest.raises(PayloadTooLarge, match=r"headers of .* on paracle\.v1\.acme\.task\.agents"):
        await bus.publish([note(1), large, note(3)])
    await eventually(lambda: recorder.seen == [1, 3])
    for say in (bus.broadcast(large), bus.command(Begin(name="a"), heavy)):
        with pytest.raises(PayloadTooLarge):
            await say


@pytest.mark.parametrize("gone", [">", "C.>"])
async def test_a_claim_whose_payload_is_gone_is_a_dead_letter(serve, gone: str):
    recorder = Recorder()
    bus = await serve()
    await bus.publish([note(1, text="x" * 300_000)])
    await bus.client.jsm().purge_stream("OBJ_paracle-claims", subject=f"$O.paracle-claims.{gone}")
    await serve(mailbox(recorder))
    found = await eventually_dead(bus)
    assert "no longer in the object store" in found.headers[dead_letters.DEAD_REASON]
    assert recorder.seen == []


async def test_a_claim_whose_payload_is_another_is_a_dead_letter(serve):
    recorder = Recorder()
    bus = await serve()
    await bus.publish([note(1, text="x" * 300_000)])
    stream, every = "OBJ_paracle-claims", "$O.paracle-claims.C.>"
    pieces = (await bus.client.jsm().stream_info(stream, subjects_filter=every)).state.subjects
    await bus.client.jsm().purge_stream(stream, subject=every)
    for subject, number in pieces.items():
        for _ in range(number):
            await bus.client.jetstream().publish(subject, b"something else")
    await serve(mailbox(recorder))
    found = await eventually_dead(bus)
    assert "is not what was put into the object store" in found.headers[dead_letters.DEAD_REASON]
    assert recorder.seen == []


def test_the_place_of_a_message_is_read_from_both_forms_of_ack_subject():
    old = receipts.place_of("$JS.ACK.TASKS.agents.2.17.18.1700000000000000000.5")
    new = receipts.place_of("$JS.ACK.hub.ACCHASH.TASKS.agents.2.17.18.1700000000000000000.5.tok")
    assert old == new == receipts.Place("TASKS", "agents", 2, 17, 1700000000000000000)


class Away:
    """A connection that is lost, and how often somebody looked whether it is back."""

    is_closed = False

    def __init__(self) -> None:
        self.back = False
        self.looks = 0
        self.sent: list[bytes] = []

    @property
    def is_connected(self) -> bool:
        self.looks += 1
        return self.back

    async def _send_command(self, frame: bytes) -> None:
        self.sent.append(frame)

    async def _flush_pending(self) -> None:
        return None


async def test_acks_gather_for_a_moment_and_wait_while_nats_is_away() -> None:
    client: Any = Away()
    acks = LateAcks(lambda: client)
    acks.put(())
    assert acks.drop() == []
    acks.put(["one"])
    acks.put(["two"])
    await eventually(lambda: client.looks > 2)
    assert client.sent == []
    client.back = True
    await eventually(lambda: client.sent)
    assert b"".join(client.sent) == b"PUB one 0\r\n\r\nPUB two 0\r\n\r\n"
    client.is_closed = True
    acks.put(["three"])
    await acks.flush()  # it comes again
    assert len(client.sent) == 1
