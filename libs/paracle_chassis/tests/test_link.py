"""What is heard over a connection, until nobody listens any more."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from nats.aio.client import Client
from nats.aio.transport import TcpTransport

from paracle_chassis.delivery import Delivery
from paracle_chassis.frames import flushed
from paracle_chassis.inlet import Incoming
from paracle_chassis.link import Link
from paracle_chassis.nats_bus import NatsBus
from paracle_chassis.routes import Routes
from paracle_chassis.settings import ServiceSettings
from paracle_chassis.testing.eventually import eventually
from paracle_chassis.testing.infra import OpenBus
from paracle_chassis.testing.sample import Echo, Echoed
from paracle_domain import subjects
from paracle_domain.envelope import Context
from paracle_embedded import NatsServer

pytestmark = pytest.mark.connected


async def test_what_comes_is_heard_until_it_is_listened_to_no_more(open_bus: OpenBus, nats_client: Client) -> None:
    link = (await open_bus("testing")).link
    gone: list[Incoming] = []
    staying: list[Incoming] = []
    stopped, drained = await link.hear("said", gone.append), await link.hear("said", gone.append)
    await link.hear("said", staying.append)
    await flushed(link.client)
    await nats_client.publish("said", b"one")
    await eventually(lambda: len(gone) == 2)
    await stopped.stop()
    await drained.drain()
    await nats_client.publish("said", b"two")
    await eventually(lambda: len(staying) == 2)
    assert [message.data for message in gone] == [b"one", b"one"]


async def test_of_those_who_share_a_queue_one_hears(open_bus: OpenBus, nats_client: Client) -> None:
    link = (await open_bus("testing")).link
    heard: list[Incoming] = []
    others: list[Incoming] = []
    for _ in range(2):
        await link.hear("said", heard.append, queue="q")
    await link.hear("said", others.append)
    await flushed(link.client)
    for _ in range(10):
        await nats_client.publish("said")
    await eventually(lambda: len(others) == 10)
    await flushed(link.client)
    assert len(heard) == 10


@pytest.mark.parametrize("lost", [False, True])
async def test_a_wait_that_the_client_called_off_itself_is_no_cancel(
    nats_server: NatsServer, lost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = Link("testing", ServiceSettings(nats_url=nats_server.url))
    await link.open()
    if lost:
        await asyncio.to_thread(nats_server.kill)
        await eventually(lambda: not link.connected)

    async def called_off(_transport: object) -> None:
        raise asyncio.CancelledError

    monkeypatch.setattr(TcpTransport, "wait_closed", called_off)
    client = link.client
    await link.close()
    assert client.is_closed


async def test_whoever_is_cancelled_while_it_closes_is(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    link, begun = Link("testing", ServiceSettings(nats_url=nats_server.url)), asyncio.Event()
    await link.open()

    async def hang(_transport: object) -> None:
        begun.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(TcpTransport, "wait_closed", hang)
    closing = asyncio.create_task(link.close())
    await begun.wait()
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing


async def test_a_service_whose_connection_is_gone_stops_serving_all_the_same(
    open_bus: OpenBus, caplog: pytest.LogCaptureFixture
) -> None:
    async def echo(request: Echo, call: Context) -> Echoed:
        return Echoed(text=request.text, tenant=call.tenant)

    async def obey(batch: Sequence[Delivery]) -> None:
        raise AssertionError

    table = Routes("testing")
    table.rpc(Echo, echo)
    commands = subjects.cmd("*", "testing", "*")
    table.mailbox(stream=subjects.COMMANDS, durable="testing", filter=commands, handler=obey)
    bus = await open_bus("testing")
    await bus.serve(table)
    await bus.link.close()
    await bus.drain(1.0)
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


async def test_a_connection_that_the_server_ended_comes_back(open_bus: OpenBus, nats_client: Client) -> None:
    link = (await open_bus("testing")).link
    heard: list[Incoming] = []
    await link.hear("said", heard.append)
    await link.client.publish("x" * 5_000)  # more than a line of the protocol may have
    await eventually(lambda: link.connections == 1 and link.connected)
    await flushed(link.client)
    await nats_client.publish("said")
    await eventually(lambda: heard)


async def test_nobody_can_guess_what_another_question_is_answered_on(open_bus: OpenBus) -> None:
    link = (await open_bus("testing")).link
    inbox = link.inbox
    made = [inbox.expect(lambda _more, _message: None) for _ in range(600)]
    prefix = made[0].rpartition(".")[0]
    tokens = {address.removeprefix(f"{prefix}.") for address in made}
    assert len(tokens) == len(made) == len(inbox)
    inboxes = {link.new_inbox().removeprefix("_INBOX.") for _ in range(100)}
    assert len(inboxes) == 100
    assert all(len(bytes.fromhex(token)) == 12 for token in tokens | inboxes)


async def test_answers_come_below_the_prefix_that_its_user_may_listen_to(nats_url: str, nats_client: Client) -> None:
    bus = NatsBus("testing", ServiceSettings(nats_url=nats_url, nats_inbox="_INBOX.testing"))
    await bus.open()
    heard: list[Incoming] = []
    address = bus.link.inbox.expect(lambda _more, message: heard.append(message))
    assert address.startswith("_INBOX.testing.")
    await bus.link.check()
    await nats_client.publish(address, b"1")
    await eventually(lambda: len(heard) == 1)
    await bus.close()


async def test_who_is_answered_late_hangs_up_at_inboxes_alone(open_bus: OpenBus, nats_client: Client) -> None:
    """What comes for a question that is forgotten names where to hang up: an order to the server is none such place."""
    link = (await open_bus("testing")).link
    heard: list[Incoming] = []
    inbox = nats_client.new_inbox()
    for subject in ("$JS.API.STREAM.INFO.EVENTS", "paracle.v1.acme.cmd.testing.begin", inbox):
        await link.hear(subject, heard.append)
    await link.check()
    address = link.inbox.expect(lambda _more, _message: None)
    link.inbox.forget(address)
    for subject in ("$JS.API.STREAM.INFO.EVENTS", "paracle.v1.acme.cmd.testing.begin", inbox):
        await nats_client.publish(address, b"", reply=subject)
    await eventually(lambda: heard)
    await link.check()
    assert [message.subject for message in heard] == [inbox]
