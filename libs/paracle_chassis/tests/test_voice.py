"""What is said on core NATS, and signs of life: gathered, in order, and bounded."""

from __future__ import annotations

import logging

import nats
import pytest
from nats.errors import BadSubjectError, ConnectionClosedError, MaxPayloadError, OutboundBufferLimitError

from paracle_chassis.frames import flushed
from paracle_chassis.heartbeats import Heartbeats
from paracle_chassis.testing.eventually import eventually
from paracle_chassis.voice import Voice, frame_of

pytestmark = pytest.mark.connected


@pytest.fixture
async def heard(nats_client):
    """What was published below `said`: subject, reply, headers, body."""
    found: list[tuple[str, str, dict[str, str] | None, bytes]] = []

    async def hear(message) -> None:
        found.append((message.subject, message.reply, message.headers, message.data))

    await nats_client.subscribe("said.>", cb=hear)
    await flushed(nats_client)
    return found


@pytest.fixture
async def client(nats_url):
    made = await nats.connect(nats_url)
    yield made
    await made.close()


async def test_what_is_said_comes_in_its_order_with_all_that_belongs_to_it(client, heard):
    voice = Voice(lambda: client, 1_000)
    await voice.say("said.first", b"1")
    await voice.say("said.second", b"2", "some.inbox")
    await voice.say("said.third", b"", headers={"name": "value"})
    await voice.say("said.fourth", b"4", head=b"NATS/1.0\r\nname: other\r\n\r\n")
    await voice.flush()
    await eventually(lambda: len(heard) == 4)
    assert heard[0] == ("said.first", "", None, b"1")
    assert heard[1][:2] == ("said.second", "some.inbox")
    assert heard[2] == ("said.third", "", {"name": "value"}, b"")
    assert heard[3] == ("said.fourth", "", {"name": "other"}, b"4")


async def test_what_is_said_in_one_turn_is_one_write(client, heard, monkeypatch):
    writes: list[bytes] = []
    post = client._send_command

    async def counted(frame: bytes) -> None:
        writes.append(frame)
        await post(frame)

    monkeypatch.setattr(client, "_send_command", counted)
    voice = Voice(lambda: client, 1_000)
    for number in range(50):
        await voice.say(f"said.{number}", b"x")
    await eventually(lambda: len(heard) == 50)
    assert len(writes) == 1


@pytest.mark.parametrize(("subject", "reply"), [("", ""), ("a b", ""), ("a\r\nPUB b 0", ""), ("a", "b c"), ("a\t", "")])
def test_a_subject_that_would_be_read_as_something_else_is_refused(subject, reply):
    with pytest.raises(BadSubjectError):
        frame_of(subject, b"", reply)


async def test_what_nats_will_not_have_is_refused_at_once(nats_url):
    client = await nats.connect(nats_url, allow_reconnect=True)
    voice = Voice(lambda: client, 100)
    with pytest.raises(MaxPayloadError):
        await voice.say("said", b"x" * (client.max_payload + 1))
    await client.close()
    with pytest.raises(ConnectionClosedError):
        await voice.say("said", b"x")


async def test_while_the_connection_is_lost_no_more_waits_than_may(client, monkeypatch):
    voice = Voice(lambda: client, 100)
    monkeypatch.setattr(type(client), "is_connected", property(lambda _: False))
    await voice.say("said", b"x" * 50)
    await voice.flush()
    with pytest.raises(OutboundBufferLimitError):
        await voice.say("said", b"x" * 50)
    monkeypatch.undo()


async def test_what_was_said_just_before_the_end_is_let_go_and_troubles_nobody(nats_url, caplog):
    caplog.set_level(logging.DEBUG, "paracle_chassis.voice")
    client, closed = await nats.connect(nats_url), await nats.connect(nats_url)
    await closed.close()
    clients = iter((client, closed, closed))
    voice = Voice(lambda: next(clients), 100)
    await voice.say("said", b"x")
    await voice.flush()
    (told,) = caplog.messages
    assert told.startswith("1 messages are not sent: ")
    await voice.flush()
    with pytest.raises(ConnectionClosedError):
        await voice.say("said", b"x")
    assert len(caplog.messages) == 1, "what was let go is not tried again"
    await client.close()


async def test_signs_of_life_come_again_and_again_until_they_are_stopped(client, heard):
    voice = Voice(lambda: client, 1_000)
    heartbeats = Heartbeats(voice, 0.04)
    stop = heartbeats.start("said.hang_up", "said.caller")
    stop_other = heartbeats.start("said.hang_up_other", "said.other")
    await eventually(lambda: [subject for subject, *_ in heard].count("said.caller") >= 3)
    signs = [sign for sign in heard if sign[0] == "said.caller"]
    assert {headers["paracle-rpc"] for _, _, headers, *_ in signs} == {"working"}
    first, *others = (reply.removeprefix("said.hang_up.") for _, reply, *_ in signs)
    assert [int(number) for number in others] == [int(first) + n for n in range(1, len(signs))], "each has its number"
    stop()
    stop()
    stop_other()
    await voice.say("said.stopped", b"")
    again = heartbeats.start("said.hang_up", "said.another")
    await eventually(lambda: [subject for subject, *_ in heard].count("said.another") >= 2)
    subjects = [subject for subject, *_ in heard]
    assert set(subjects[subjects.index("said.stopped") + 1 :]) == {"said.another"}
    again()
