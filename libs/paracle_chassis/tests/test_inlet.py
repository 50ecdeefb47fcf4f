"""What comes in: frames cut anywhere, headers as anybody may write them, and a connection that breaks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import nats
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client as Nats
from nats.errors import ProtocolError

from paracle_chassis.frames import flushed
from paracle_chassis.inlet import Incoming, Inlet, read_headers
from paracle_chassis.testing.eventually import eventually

SUBJECT = "paracle.v1.acme.task.agents"


class Client:
    """Stands for the client behind a parser: what is not diverted comes here."""

    def __init__(self) -> None:
        self.messages: list[tuple[Any, ...]] = []
        self.pings = 0
        self.errors: list[str] = []

    async def _process_msg(self, *message: Any) -> None:
        self.messages.append(message)

    async def _process_ping(self) -> None:
        self.pings += 1

    async def _process_err(self, error: str) -> None:
        self.errors.append(error)


class Subscription:
    _id = 7


def frame(sid: int, reply: bytes, head: bytes, body: bytes) -> bytes:
    size = len(head) + len(body)
    words = [SUBJECT.encode(), b"%d" % sid, *([reply] if reply else []), *([b"%d" % len(head)] if head else [])]
    return b"%b %b %d\r\n%b%b\r\n" % (b"HMSG" if head else b"MSG", b" ".join(words), size, head, body)


frames = st.tuples(
    st.sampled_from([7, 8]),
    st.sampled_from([b"", b"$JS.ACK.TASKS.a.1.1.1.1.0"]),
    st.sampled_from([b"", b"NATS/1.0\r\nce-id: 1\r\n\r\n"]),
    st.binary(max_size=30) | st.sampled_from([b"PING\r\n", b"MSG a 7 3\r\nabc\r\n"]),
)


def collect(inlet: Inlet) -> list[Incoming]:
    found: list[Incoming] = []
    inlet.divert(Subscription(), found.append)  # type: ignore[arg-type]
    return found


async def feed(inlet: Inlet, text: bytes, cuts: list[int]) -> None:
    edges = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    for begin, end in pairwise(edges):
        await inlet.parse(text[begin:end])


@given(st.lists(frames, max_size=6), st.lists(st.integers(0, 10_000), max_size=8))
def test_messages_come_whole_and_in_order_wherever_the_stream_is_cut(sent, cuts) -> None:
    client = Client()
    inlet = Inlet(client)  # type: ignore[arg-type]
    diverted = collect(inlet)
    text = b"".join(frame(*one) + b"PING\r\n" for one in sent)
    asyncio.run(feed(inlet, text, cuts))
    assert [(each.reply.encode(), each.head, each.data) for each in diverted] == [
        one[1:] for one in sent if one[0] == 7
    ]
    assert client.messages == [(8, SUBJECT.encode(), one[1], one[3], one[2]) for one in sent if one[0] == 8]
    assert client.pings == len(sent)
    assert all(each.subject == SUBJECT for each in diverted)


async def test_what_came_in_part_is_forgotten_with_its_connection() -> None:
    inlet = Inlet(Client())  # type: ignore[arg-type]
    diverted = collect(inlet)
    await inlet.parse(frame(7, b"", b"", b"lost")[:-4])
    inlet.reset()
    await inlet.parse(frame(7, b"", b"", b"found"))
    assert [each.data for each in diverted] == [b"found"]


async def test_what_follows_a_reset_in_the_same_breath_is_not_kept_for_the_next_connection() -> None:
    inlet = Inlet(Client())  # type: ignore[arg-type]
    diverted: list[bytes] = []

    def hear(message: Incoming) -> None:
        diverted.append(message.data)
        inlet.reset()

    inlet.divert(Subscription(), hear)  # type: ignore[arg-type]
    await inlet.parse(frame(7, b"", b"", b"last") + frame(7, b"", b"", b"cut off")[:-3])
    await inlet.parse(frame(7, b"", b"", b"first"))
    assert diverted == [b"last", b"first"]


async def test_what_breaks_on_a_message_does_not_hear_less_of_those_behind_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    inlet = Inlet(Client())  # type: ignore[arg-type]
    heard: list[int] = []
    inlet.divert(Subscription(), lambda message: heard.append(int(message.data)))  # type: ignore[arg-type]
    await inlet.parse(b"".join(frame(7, b"", b"", body) for body in (b"1", b"two", b"3")) + b"PI")
    await inlet.parse(b"NG\r\n" + frame(7, b"", b"", b"4"))
    assert heard == [1, 3, 4]
    [told] = caplog.records
    assert SUBJECT in told.getMessage()


@pytest.mark.parametrize("text", [b"MSG a x 3\r\nabc\r\n", b"HMSG a 7\r\n", b"nonsense\r\n", b"\r\n"])
async def test_nonsense_makes_the_client_connect_anew(text: bytes) -> None:
    with pytest.raises(ProtocolError):
        await Inlet(Client()).parse(text)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "said", ["Maximum Control Line Exceeded", "maximum connections exceeded", "Authorization Violation"]
)
async def test_a_server_that_ends_the_connection_is_connected_to_anew(said: str) -> None:
    client = Client()
    with pytest.raises(ProtocolError):
        await Inlet(client).parse(f"-ERR '{said}'\r\n".encode())  # type: ignore[arg-type]
    assert client.errors == [], "nats-py would close it for good"


async def test_what_a_server_does_not_permit_ends_no_connection() -> None:
    client = Client()
    await Inlet(client).parse(b"-ERR 'Permissions Violation for Publish to \"x\"'\r\nPING\r\n")  # type: ignore[arg-type]
    assert (len(client.errors), client.pings) == (1, 1)


@pytest.mark.parametrize(
    ("head", "wanted"),
    [
        (b"NATS/1.0\r\nce-id: 1\r\nWho:Ada \r\nempty:\r\nno colon\r\n\r\n", {"ce-id": "1", "Who": "Ada", "empty": ""}),
        (b"NATS/1.0 503\r\n\r\n", {"Status": "503"}),
        (b"NATS/1.0 404 No Messages\r\n\r\n", {"Status": "404", "Description": "No Messages"}),
        (
            b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 9\r\n\r\n",
            {"Nats-Last-Consumer": "9", "Status": "100", "Description": "Idle Heartbeat"},
        ),
        (b"NATS/1.0\r\nname: \xff\xc3\xa9\r\n\r\n", {"name": "\ufffdé"}),
        (b"", {}),
    ],
)
def test_headers_are_read_as_they_are_meant(head: bytes, wanted: dict[str, str]) -> None:
    assert read_headers(head) == wanted


@pytest.fixture
async def lasting(nats_url: str) -> AsyncIterator[Nats]:
    """A connection that does not come back once it is lost."""
    async with await nats.connect(nats_url, allow_reconnect=False) as client:
        yield client


@pytest.mark.connected
@pytest.mark.parametrize("word", [b"a\x0bb", b"a\x0cb", b"\xff", "\u0085".encode(), b"a\x1cb"])
async def test_a_subject_of_any_bytes_ends_no_connection(nats_client: Nats, lasting: Nats, word: bytes) -> None:
    sender, client = nats_client, lasting
    inlet = Inlet.on(client)
    found: list[Incoming] = []
    diverted, plain = await client.subscribe("inlet.a.>"), await client.subscribe("inlet.b.>")
    inlet.divert(diverted, found.append)
    await flushed(client)
    await sender._send_command(b"PUB inlet.a.%b 3\r\nodd\r\nPUB inlet.b.%b inlet.%b 3\r\nodd\r\n" % (word, word, word))
    await sender.publish("inlet.a.ok", b"good")
    await sender.publish("inlet.b.ok", b"good")
    text = word.decode("utf-8", "replace")
    odd, good = await plain.next_msg(5), await plain.next_msg(5)
    await eventually(lambda: len(found) == 2)
    assert [(each.subject, each.data) for each in found] == [(f"inlet.a.{text}", b"odd"), ("inlet.a.ok", b"good")]
    assert [(odd.subject, odd.reply), good.subject] == [(f"inlet.b.{text}", f"inlet.{text}"), "inlet.b.ok"]


@pytest.mark.connected
@pytest.mark.parametrize("head", [b"abcd", b"NATS/1.0\r\n", b"NATS/1.0 \xff\r\n\r\n"])
async def test_headers_that_are_none_end_no_connection(nats_client: Nats, lasting: Nats, head: bytes) -> None:
    sender, client = nats_client, lasting
    Inlet.on(client)
    plain = await client.subscribe("inlet.b")
    await flushed(client)
    await sender._send_command(b"HPUB inlet.b %d %d\r\n%bodd\r\n" % (len(head), len(head) + 3, head))
    await sender.publish("inlet.b", b"good")
    heard = [(await plain.next_msg(5)).data]
    while heard[-1] != b"good":  # nats-py drops what it cannot read, or hands it on without headers
        heard.append((await plain.next_msg(5)).data)
    assert heard in ([b"good"], [b"odd", b"good"])
    assert client.is_connected


@pytest.mark.connected
async def test_a_pong_that_nobody_waits_for_any_more_ends_no_connection(nats_client: Nats, lasting: Nats) -> None:
    inlet, found, late = Inlet.on(lasting), list[Incoming](), asyncio.get_running_loop().create_future()
    inlet.divert(await lasting.subscribe("inlet.a"), found.append)
    late.cancel()
    await lasting._send_ping(late)
    await flushed(lasting)
    await nats_client.publish("inlet.a", b"heard")
    await eventually(lambda: found)


@pytest.mark.connected
async def test_a_diverted_subscription_hears_what_others_publish_and_no_other_is_disturbed(nats_client: Nats) -> None:
    inlet = Inlet.on(nats_client)
    found: list[Incoming] = []
    diverted, plain = await nats_client.subscribe("inlet.a.*"), await nats_client.subscribe("inlet.b")
    inlet.divert(diverted, found.append)
    large = b"x" * 500_000
    await nats_client.publish("inlet.a.1", b"one", headers={"ce-id": "1"})
    await nats_client.publish("inlet.a.2", large, "reply.to")
    await nats_client.publish("inlet.b", b"two", headers={"who": "Ada"})
    message = await plain.next_msg(5)
    await eventually(lambda: len(found) == 2)
    assert (message.data, message.headers) == (b"two", {"who": "Ada"})
    assert [(each.subject, each.reply, each.data) for each in found] == [
        ("inlet.a.1", "", b"one"),
        ("inlet.a.2", "reply.to", large),
    ]
    assert found[0].headers == {"ce-id": "1"}
    inlet.forget(diverted)
    await nats_client.publish("inlet.a.3", b"three")
    assert (await diverted.next_msg(5)).data == b"three"
