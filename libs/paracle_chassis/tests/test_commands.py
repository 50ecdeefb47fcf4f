"""Commands and messages from whoever has nothing but a NATS client, and from several replicas' point of view."""

import asyncio
import json
import tracemalloc
from functools import partial

import pytest

from paracle_chassis import receipts
from paracle_chassis.bus import Outgoing, outgoing
from paracle_chassis.dead_letters import Letter
from paracle_chassis.frames import flushed
from paracle_chassis.inlet import Incoming
from paracle_chassis.link import Link
from paracle_chassis.replies import Replies, fingerprint
from paracle_chassis.routes import Routes
from paracle_chassis.settings import ServiceSettings
from paracle_chassis.testing.eventually import eventually
from paracle_chassis.testing.sample import Begin, Begun
from paracle_domain import subjects
from paracle_domain.envelope import Context, Envelope
from paracle_domain.errors import DeadlineExceeded, NotFound
from paracle_domain.messages import Encoded

pytestmark = pytest.mark.connected
SUBJECT = subjects.cmd("acme", "testing", "begin")


async def test_who_sent_a_command_is_remembered_in_few_bytes() -> None:
    replies = Replies("testing", Link("testing", ServiceSettings()))
    many = 1_000
    messages = [Incoming(SUBJECT, "", b"%d" % number) for number in range(many)]
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for message in messages:
            replies._on_message(message)  # what a client without any header sends
        held = (tracemalloc.get_traced_memory()[0] - before) / many
    finally:
        tracemalloc.stop()
    assert held < 800


class Beginner:
    """Obeys `begin`, and counts."""

    def __init__(self) -> None:
        self.names: list[str] = []

    async def __call__(self, batch) -> None:
        for delivery in batch:
            name = delivery.decode(Begin).name
            self.names.append(name)
            await delivery.reply(Begun(run_id=f"{name}-{len(self.names)}"))

    def routes(self) -> Routes:
        table = Routes("testing")
        commands = subjects.cmd("*", "testing", "*")
        table.mailbox(stream=subjects.COMMANDS, durable="testing", filter=commands, handler=self)
        return table


async def test_a_bare_request_is_answered_by_the_service_not_by_the_stream(serve, nats_client):
    await serve(Beginner().routes())
    answer = json.loads((await nats_client.request(SUBJECT, b'{"name": "a"}', timeout=30)).data)
    assert answer == {"run_id": "a-1", "stream": "COMMANDS", "seq": answer["seq"]}
    assert answer["seq"] > 0


@pytest.mark.parametrize("order", ["$JS.API.STREAM.PURGE.COMMANDS", subjects.cmd("globex", "other", "begin")])
@pytest.mark.parametrize("named", ["header", "reply"])
@pytest.mark.parametrize("id", ["", "one"])
async def test_no_answer_to_a_command_is_an_order(serve, nats_client, order: str, named: str, id: str):
    """Services may publish what their callers may not: who names an order as his inbox would have it given by them."""
    beginner, heard = Beginner(), []

    async def hear(message) -> None:
        heard.append(message.data)

    await serve(beginner.routes())
    await nats_client.subscribe(order, cb=hear)
    headers = {"Nats-Msg-Id": id} if id else {}
    for _ in range(2):  # one that was carried out is answered at once
        if named == "header":
            await nats_client.publish(SUBJECT, b'{"name": "a"}', headers=headers | {"paracle-reply-to": order})
        else:
            await nats_client.publish(SUBJECT, b'{"name": "a"}', order, headers=headers or None)
        await eventually(lambda: "a" in beginner.names)
    answer = json.loads((await nats_client.request(SUBJECT, b'{"name": "b"}', timeout=30)).data)
    assert answer["run_id"].startswith("b-")
    await flushed(nats_client)
    assert heard == []


@pytest.mark.parametrize("size", [4_500, 20_000])
async def test_no_answer_goes_to_an_inbox_that_no_line_of_the_protocol_can_name(serve, nats_client, size: int):
    """A server ends the connection of whoever names it, and the next replica would be asked for the same."""
    beginner = Beginner()
    bus = await serve(beginner.routes())
    for headers in ({}, {"Nats-Msg-Id": "one"}):
        named = headers | {"paracle-reply-to": "_INBOX." + "x" * size}
        await nats_client.publish(SUBJECT, b'{"name": "a"}', headers=named)
    await eventually(lambda: beginner.names == ["a", "a"])
    answer = json.loads((await nats_client.request(SUBJECT, b'{"name": "b"}', timeout=30)).data)
    assert answer["run_id"] == "b-3"
    assert bus.link.connections == 0


async def test_a_message_on_a_topic_is_answered_by_its_service_each_time_that_it_comes(serve, nats_client):
    beginner, topic = Beginner(), subjects.intake("acme", "orders.new")
    table = Routes("testing")
    table.mailbox(stream=subjects.INTAKE, durable="testing", filter=subjects.intake("*", ">"), handler=beginner)
    bus = await serve(table)
    answer = json.loads((await nats_client.request(topic, b'{"name": "a"}', timeout=30)).data)
    assert answer == {"run_id": "a-1", "stream": "INTAKE", "seq": answer["seq"]}
    ack = await nats_client.jetstream().publish(topic, b'{"name": "b"}', timeout=30, headers={"Nats-Msg-Id": "one"})
    assert ack.stream == "INTAKE"
    assert ack.seq > answer["seq"] > 0
    envelope = Envelope.wrap("begin", "test", Context("acme"))
    assert (await bus.send(topic, Begin(name="c"), envelope))["run_id"] == "c-3"


async def test_a_jetstream_publication_takes_the_answer_for_its_acknowledgement(serve, nats_client):
    await serve(Beginner().routes())
    ack = await nats_client.jetstream().publish(SUBJECT, b'{"name": "a"}', timeout=30)
    assert ack.stream == "COMMANDS"
    assert ack.seq > 0


async def test_a_plain_publication_is_obeyed_and_takes_nobodys_answer(serve, nats_client):
    beginner = Beginner()
    await serve(beginner.routes())
    await nats_client.publish(SUBJECT, b'{"name": "a"}')
    answer = json.loads((await nats_client.request(SUBJECT, b'{"name": "a"}', timeout=30)).data)
    assert answer["run_id"] == "a-2"
    assert beginner.names == ["a", "a"]


async def test_equal_requests_without_ids_are_answered_in_turn(serve, nats_client):
    await serve(Beginner().routes())
    answers = await asyncio.gather(*(nats_client.request(SUBJECT, b'{"name": "a"}', timeout=30) for _ in range(5)))
    assert len({json.loads(answer.data)["seq"] for answer in answers}) == len(answers)


async def test_all_who_send_the_same_command_at_once_are_given_its_answer(serve, nats_client):
    bus = await serve(Beginner().routes())
    headers = {"Nats-Msg-Id": "one"}
    bare = [nats_client.request(SUBJECT, b'{"name": "a"}', timeout=30, headers=headers) for _ in range(5)]
    answers = await asyncio.gather(*bare)
    assert [json.loads(answer.data)["run_id"] for answer in answers] == ["a-1"] * 5
    ours = [bus.command(Begin(name="b"), Context("acme"), id="two", timeout_s=30) for _ in range(5)]
    assert [answer["run_id"] for answer in await asyncio.gather(*ours)] == ["b-2"] * 5


async def test_a_bare_request_of_nonsense_is_answered_with_a_problem(serve, nats_client):
    await serve(Beginner().routes())
    answer = await nats_client.request(SUBJECT, b"{", timeout=30)
    assert (answer.headers or {})["paracle-error"] == "malformed_message"
    assert json.loads(answer.data)["status"] == 400


async def test_a_bare_request_that_is_refused_beside_its_mailbox_is_answered(serve, nats_client):
    refusing: list[asyncio.Task[None]] = []

    async def refuse_beside(batch) -> None:
        for delivery in batch:
            delivery.keep()
            refusing.append(asyncio.create_task(delivery.refuse(NotFound("there is none"))))
        await eventually(lambda: all(delivery.settled for delivery in batch))  # their dead letters are on their way

    table = Routes("testing")
    commands = subjects.cmd("*", "testing", "*")
    table.mailbox(stream=subjects.COMMANDS, durable="testing", filter=commands, handler=refuse_beside)
    await serve(table)
    answer = await nats_client.request(SUBJECT, b'{"name": "a"}', timeout=30)
    assert json.loads(answer.data)["detail"] == "there is none"
    await asyncio.gather(*refusing)


async def test_what_is_refused_to_whoever_waits_is_gone_and_what_nobody_waits_for_once_its_copy_is_on_disk(
    serve, nats_client, monkeypatch
):
    monkeypatch.setattr(receipts, "FLUSHED_S", 3600.0)
    await serve(Beginner().routes())

    async def left() -> tuple[int, int]:
        streams = [await nats_client.jsm().stream_info(name) for name in (subjects.COMMANDS, subjects.DEADLETTERS)]
        return streams[0].state.messages, streams[1].state.messages

    for bad in (b"1", b"2"):
        await nats_client.request(SUBJECT, bad, timeout=30)
    await eventually(lambda: found(left, (0, 2)))
    await nats_client.publish(SUBJECT, b"3")
    await eventually(lambda: found(left, (1, 3)))


async def test_a_refusal_is_an_answer_or_a_dead_letter(serve, nats_client):
    """Whoever was told needs nobody who looks after it, also with nothing but an inbox."""

    async def refuse(batch) -> None:
        for delivery in batch:
            if delivery.stream_seq < 3:  # the first two were asked, of which the server tells us on its own time
                await eventually(partial(delivery.receipt.waited_for, delivery))
            await delivery.refuse(NotFound("there is no such run"))

    table = Routes("testing")
    table.mailbox(stream=subjects.COMMANDS, durable="testing", filter=subjects.cmd("*", "testing", "*"), handler=refuse)
    await serve(table)
    for body, headers in ((b"1", None), (b"2", {"Nats-Msg-Id": "two"})):
        answer = await nats_client.request(SUBJECT, body, timeout=30, headers=headers)
        assert (answer.headers or {})["paracle-error"] == "not_found"
    await nats_client.publish(SUBJECT, b"1")
    await nats_client.request(SUBJECT, b"1", timeout=30)

    async def left() -> tuple[int, int]:
        streams = [await nats_client.jsm().stream_info(name) for name in (subjects.COMMANDS, subjects.DEADLETTERS)]
        return streams[0].state.messages, streams[1].state.messages

    await eventually(lambda: found(left, (0, 1)))


async def test_a_command_that_is_redriven_and_refused_again_is_a_dead_letter_again(serve, nats_client):
    """Whoever redrives it hears no answer, though what is published with it has a reply subject."""
    letters: dict[str, Letter] = {}

    async def refuse(batch) -> None:
        for delivery in batch:
            await delivery.refuse(NotFound("there is no such run"))

    async def keep(batch) -> None:
        letters.update((letter.about.id, letter) for letter in map(Letter.read, batch))

    table = Routes("testing")
    table.mailbox(stream=subjects.COMMANDS, durable="testing", filter=subjects.cmd("*", "testing", "*"), handler=refuse)
    table.mailbox(stream=subjects.DEADLETTERS, durable="testing", filter=subjects.dlq("*", "*"), handler=keep)
    bus = await serve(table)
    await nats_client.publish(SUBJECT, b"1")
    await eventually(lambda: len(letters) == 1)
    (first,) = letters.values()
    await bus.publish([Outgoing(SUBJECT, Encoded(first.body), first.redriven())])
    await eventually(lambda: len(letters) == 2)
    assert [letter.about.redriven_from for letter in letters.values()] == [None, first.about.id]


async def found(look, wanted) -> bool:
    return await look() == wanted


async def test_whichever_replica_obeys_every_request_has_its_one_answer(serve, nats_client):
    beginners = [Beginner(), Beginner()]
    for beginner in beginners:
        await serve(beginner.routes())
    bodies = [json.dumps({"name": f"n{number}"}).encode() for number in range(40)]
    answers = await asyncio.gather(*(nats_client.request(SUBJECT, body, timeout=30) for body in bodies))
    assert [json.loads(answer.data)["run_id"].partition("-")[0] for answer in answers] == [f"n{n}" for n in range(40)]
    assert sorted(beginners[0].names + beginners[1].names) == sorted(f"n{n}" for n in range(40))


async def test_a_command_sent_before_its_service_is_up_waits_for_it(serve, nats_url):
    caller = await serve()
    asking = asyncio.create_task(caller.command(Begin(name="early"), Context("acme"), timeout_s=10))

    async def stored() -> bool:
        return any(stream.config.name == "COMMANDS" for stream in await caller.client.jsm().streams_info())

    await eventually(stored)
    await serve(Beginner().routes())
    assert (await asking)["stream"] == "COMMANDS"


async def test_a_published_command_waits_for_its_service_in_a_stream_made_for_it(serve):
    """The stream of commands confirms nothing, so that it is missing shows only by nobody hearing the command."""
    caller = await serve()
    subject = subjects.cmd("acme", "testing", "begin")
    await caller.publish([outgoing(subject, Begin(name=name), Context("acme"), source="test") for name in "ab"])
    beginner = Beginner()
    await serve(beginner.routes())
    await eventually(lambda: sorted(beginner.names) == ["a", "b"])


async def test_without_an_answer_the_deadline_says_how_to_ask_again(serve):
    caller = await serve()
    with pytest.raises(DeadlineExceeded, match=r"ask again with the same id \(begin-9\)"):
        await caller.command(Begin(name="x"), Context("acme"), id="begin-9", timeout_s=0.5)


def test_a_fingerprint_tells_subjects_ids_and_bodies_apart():
    marks = {
        fingerprint("a", None, b"x"),
        fingerprint("b", None, b"x"),
        fingerprint("a", {"Nats-Msg-Id": "1"}, b"x"),
        fingerprint("a", {"ce-id": "1"}, b"x"),
        fingerprint("a", None, b"y"),
    }
    assert len(marks) == 5
    assert fingerprint("a", {"nats-msg-id": "1", "other": "2"}, b"x") in marks
