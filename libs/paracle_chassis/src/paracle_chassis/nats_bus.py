"""The bus over NATS: everything of one service that goes through its connection."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import field
from typing import TYPE_CHECKING, Final, override

from nats.errors import Error as NatsError

from paracle_chassis import codec, telemetry, topology
from paracle_chassis.bus import CLAIM_THRESHOLD, Bus, Outgoing
from paracle_chassis.claims import Claims
from paracle_chassis.consumer import PullConsumer
from paracle_chassis.inlet import Incoming
from paracle_chassis.link import Link, status_of
from paracle_chassis.mailbox import Mailbox
from paracle_chassis.publisher import Publisher
from paracle_chassis.receipts import Settler
from paracle_chassis.replies import Replies
from paracle_chassis.routes import MailboxRoute, Routes
from paracle_chassis.rpc import RpcClient
from paracle_chassis.rpc_server import RpcServer
from paracle_chassis.settings import ServiceSettings
from paracle_chassis.streams import Streams
from paracle_chassis.topology import ConsumerSpec
from paracle_chassis.wires import Wire, to_wire, wire_of
from paracle_domain.envelope import REPLY_TO, Context, Envelope
from paracle_domain.errors import DeadlineExceeded, PayloadTooLarge, Unavailable
from paracle_domain.messages import Encodable, JsonObject, Message, Request
from paracle_domain.records import record

if TYPE_CHECKING:
    from nats.aio.client import Client

    from paracle_chassis.listening import Listener

_log = logging.getLogger(__name__)

_RESEND_S: Final = 3.0
_RETRY_S: Final = 0.25
_KNOWN_WITHIN_S: Final = 10.0


@record
class _Packed(Outgoing):
    """A message that is on its way already, as far as it can be."""

    wire: Wire = field(kw_only=True)


class NatsBus(Bus):
    """What a service asks, publishes, answers and obeys, over one connection.

    `open` connects, `serve` binds a routing table to the connection, `drain` stops what it serves, `close`
    disconnects. `call`, `publish` and the like work from `open` to `close`.
    """

    def __init__(self, service: str, settings: ServiceSettings) -> None:
        self.service = service
        self.link = Link(service, settings)
        self._claims = Claims(self.link)
        self._streams = Streams(self.link)
        self._publisher = Publisher(self.link, self._streams)
        self._replies = Replies(service, self.link)
        self._settler = Settler(service, self.link, self._claims, self._publisher, self._replies)
        self._rpc = RpcClient(self.link, self._claims, f"paracle/{service}")
        self._server: RpcServer | None = None
        self._listener: Listener | None = None
        self._mailboxes: list[Mailbox] = []

    @property
    def client(self) -> Client:
        """The bare connection, for what the bus has no word for (FastStream's broker owns it)."""
        return self.link.client

    # ── lifecycle ────────────────────────────────────────────────────────────────────────────────────────────────

    async def open(self) -> None:
        """Connect; `Unavailable` if NATS does not answer in time."""
        await self.link.open()
        await self._streams.open()

    async def serve(self, routes: Routes) -> None:
        """Answer, obey and hear what `routes` says; on return, nats-server knows of all of it."""
        if answered := [route.filter for route in routes.mailboxes if route.stream in topology.ANSWERED]:
            await self._replies.start(answered)
        self._mailboxes = [self._mailbox(route) for route in routes.mailboxes]
        await asyncio.gather(*(mailbox.start() for mailbox in self._mailboxes))
        if routes.listens:
            from paracle_chassis.listening import Listener  # noqa: PLC0415  # FastStream loads with the first broker

            self._listener = Listener(routes, self.link, self._claims)
            await self._listener.start()
        if routes.rpcs:
            self._server = RpcServer(self.service, routes.rpcs, self.link, self._claims)
            await self._server.start()
        await self.link.check(_KNOWN_WITHIN_S)  # subscriptions wait in the client's buffer until a flush

    async def drain(self, deadline_s: float = 20.0) -> None:
        """Take nothing new; finish what is in hand within `deadline_s` and give the rest back."""
        serving = [mailbox.drain(deadline_s) for mailbox in self._mailboxes]
        if self._server is not None:
            serving.append(self._server.drain(deadline_s))
        if self._listener is not None:
            serving.append(self._listener.stop())
        for done in await asyncio.gather(*serving, return_exceptions=True):
            if isinstance(done, BaseException):
                _log.error("draining failed", exc_info=done)
        self._mailboxes, self._server, self._listener = [], None, None
        await self._settler.drain(deadline_s)
        await self._replies.stop()

    async def close(self) -> None:
        await self._streams.close()
        await self.link.close()

    async def check(self) -> None:
        """Readiness: NATS answers, and every mailbox is alive.

        Raises
        ------
        Unavailable
            Naming what is not.
        """
        await self.link.check()
        for mailbox in self._mailboxes:
            if not mailbox.alive:
                raise Unavailable(f"mailbox {mailbox.route.durable} of {mailbox.route.stream} takes no messages")

    def _mailbox(self, route: MailboxRoute) -> Mailbox:
        spec = ConsumerSpec(route.stream, route.durable, route.filter, route.ack_wait_s, route.max_ack_pending)
        unpack = self._settler.bundles.unpack
        consumer = PullConsumer(
            self.link,
            self._streams,
            spec,
            capacity=route.batch,
            unpack=unpack,
            linger_s=route.linger_s,
            room=route.room,
        )
        return Mailbox(self.service, route, consumer, self._settler)

    # ── the port ─────────────────────────────────────────────────────────────────────────────────────────────────

    @override
    async def call[R: Message](
        self, request: Request[R], context: Context, *, timeout_s: float = 5.0, idle_s: float | None = None
    ) -> R:
        return await self._rpc.call(request, context, timeout_s=timeout_s, idle_s=idle_s)

    @override
    async def publish(self, messages: Sequence[Outgoing]) -> None:
        wires: list[Wire] = []
        refused: PayloadTooLarge | None = None
        traceparent = telemetry.traceparent()
        for message in messages:
            try:
                wires.append(await self._wire(message, traceparent))
            except PayloadTooLarge as error:  # it holds up none of the others
                refused = refused or error
        if wires:
            await self._publisher.publish(wires)
        if refused is not None:
            raise refused

    @override
    def packer(self) -> Callable[[Outgoing], Outgoing]:
        max_payload, traceparent = self.client.max_payload, telemetry.traceparent()

        def pack(message: Outgoing) -> Outgoing:
            body = message.message.encode()
            if len(body) > CLAIM_THRESHOLD:
                return message
            try:
                wire = wire_of(message, body, max_payload, traceparent)
            except PayloadTooLarge:  # to be said of it when it is published
                return message
            return _Packed(message.subject, message.message, message.envelope, message.joins, wire=wire)

        return pack

    async def _wire(self, message: Outgoing, traceparent: str | None = None) -> Wire:
        if isinstance(message, _Packed):
            return message.wire
        return await to_wire(message, self._claims, self.client.max_payload, traceparent)

    @override
    async def broadcast(self, message: Outgoing) -> None:
        wire = await self._wire(message, telemetry.traceparent())
        try:
            await self.link.voice.say(wire.subject, wire.body, head=wire.head)
        except (NatsError, OSError) as error:
            raise Unavailable(f"NATS is not connected ({type(error).__name__})") from error

    @override
    async def send(
        self, subject: str, message: Encodable, envelope: Envelope, *, timeout_s: float = 10.0
    ) -> JsonObject:
        wire = await self._wire(Outgoing(subject, message, envelope))
        service, verb = subject.rsplit(".", 2)[-2:]
        headers = dict(wire.headers)
        with telemetry.client_span(service, verb, headers):
            return await self._send(wire, headers, envelope, timeout_s)

    async def _send(self, wire: Wire, headers: dict[str, str], envelope: Envelope, timeout_s: float) -> JsonObject:
        answers: asyncio.Queue[Incoming] = asyncio.Queue()
        reply = self.link.inbox.expect(lambda _more, answer: answers.put_nowait(answer))
        headers[REPLY_TO] = reply
        try:
            async with asyncio.timeout(timeout_s):
                return await self._send_until_answered(wire, headers, reply, answers)
        except TimeoutError:
            raise DeadlineExceeded(
                f"{wire.subject} was not answered within {timeout_s:g} s; it may still be carried out: "
                f"ask again with the same id ({envelope.id})"
            ) from None
        finally:
            self.link.inbox.forget(reply)

    async def _send_until_answered(
        self, wire: Wire, headers: dict[str, str], reply: str, answers: asyncio.Queue[Incoming]
    ) -> JsonObject:
        while True:
            try:
                await self.link.voice.say(wire.subject, wire.body, reply, headers)
                async with asyncio.timeout(_RESEND_S):
                    answer = await answers.get()
            except TimeoutError:
                continue
            except (NatsError, OSError):
                await asyncio.sleep(_RETRY_S)
                continue
            if status_of(answer) is not None:
                await self._streams.make_for({wire.subject})
                await asyncio.sleep(_RETRY_S)
                continue
            return codec.read_answer(answer.data, answer.headers)
