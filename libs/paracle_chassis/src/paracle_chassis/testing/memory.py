"""The bus within one process: streams, mailboxes, RPC and commands without a server.

`MemoryBus` is held to the same contract suite as the bus over NATS (`contracts.bus`), and its mailboxes run the very
loop that the real ones run (`paracle_chassis.mailbox`), so what a service does with it is what it does in earnest.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, cast, override

from paracle_chassis import codec
from paracle_chassis.bus import PAYLOAD_LIMIT, Bus, Outgoing
from paracle_chassis.dead_letters import dead_headers, is_hopeless
from paracle_chassis.delivery import Delivery
from paracle_chassis.inlet import Incoming
from paracle_chassis.mailbox import Mailbox
from paracle_chassis.outages import is_outage
from paracle_chassis.receipts import NoReceipt, Place
from paracle_chassis.routes import MailboxRoute, Routes, RpcRoute
from paracle_domain import subjects
from paracle_domain.envelope import MSG_ID, REPLY_TO, Context, Envelope
from paracle_domain.errors import DeadlineExceeded, NotFound, ParacleError, PayloadTooLarge, Unavailable, from_problem
from paracle_domain.messages import Encodable, JsonObject, Message, Request


def matches(pattern: str, subject: str) -> bool:
    """Whether `subject` matches the NATS wildcards of `pattern`."""
    wanted, given = pattern.split("."), subject.split(".")
    for index, token in enumerate(wanted):
        if token == ">":
            return len(given) > index
        if index >= len(given) or token not in ("*", given[index]):
            return False
    return len(wanted) == len(given)


class MemorySource:
    """The messages of one mailbox: ready, or in its hands until they are settled."""

    def __init__(self, stream: str, durable: str) -> None:
        self.buffer: deque[Incoming] = deque()
        self._stream = stream
        self._durable = durable
        self._arrived = asyncio.Event()
        self._stopped = False
        self._held: dict[str, Incoming] = {}
        self._timers: set[asyncio.TimerHandle] = set()

    @property
    def alive(self) -> bool:
        return not self._stopped

    def add(self, subject: str, body: bytes, headers: dict[str, str], seq: int, tries: int = 1) -> None:
        """A message of the stream, for the `tries`-th time."""
        reply = f"$JS.ACK.{self._stream}.{self._durable}.{tries}.{seq}.{seq}.{time.time_ns()}.0"
        self.buffer.append(Incoming(subject, reply, body, headers=headers))
        self._arrived.set()

    async def start(self) -> None:
        return None

    async def take(self, limit: int) -> list[Incoming]:
        """See `PullConsumer.take`; everything is there at once in memory, so there is nothing to linger for."""
        while not self.buffer and not self._stopped:
            self._arrived.clear()
            await self._arrived.wait()
        taken = [self.buffer.popleft() for _ in range(min(limit, len(self.buffer)))]
        self._held.update((message.reply, message) for message in taken)
        return taken

    async def stop(self) -> list[Incoming]:
        self._stopped = True
        self._arrived.set()
        for timer in self._timers:
            timer.cancel()
        left = list(self.buffer)
        self.buffer.clear()
        return left

    async def close(self) -> None:
        return None

    def settle(self, reply: str, word: bytes) -> None:
        """What JetStream does on an acknowledgement."""
        if reply not in self._held or word.startswith(b"+WPI"):
            return
        message = self._held.pop(reply)
        if word.startswith(b"-NAK") and not self._stopped:
            tokens = reply.split(".")
            tries, seq = int(tokens[4]) + 1, int(tokens[5])
            again = (message.subject, message.data, dict(message.headers), seq, tries)
            # Delays are a matter of the real server; here a second try comes as soon as the loop turns.
            self._timers.add(asyncio.get_running_loop().call_later(0, self.add, *again))


class _Whole:
    """Bodies are never put away in memory."""

    async def check_out(self, body: bytes, _headers: Mapping[str, str] | None) -> bytes:
        return body


class MemoryBus(Bus):
    """A bus, and everything that it carried.

    Attributes
    ----------
    published
        What was published to streams, in order, without doubles.
    broadcasts
        What was told to everyone.
    dead
        The dead letters, as `(subject, body, headers)`.
    """

    def __init__(self) -> None:
        self.published: list[Outgoing] = []
        self.broadcasts: list[Outgoing] = []
        self.dead: list[tuple[str, bytes, dict[str, str]]] = []
        self.claims = _Whole()
        self.replies = self
        self._ids: set[tuple[str, str]] = set()
        self._seqs: dict[str, int] = {}
        self._rpcs: dict[tuple[str, str], RpcRoute] = {}
        self._services: dict[str, str] = {}
        self._sources: dict[tuple[str, str], tuple[MailboxRoute, MemorySource]] = {}
        self._mailboxes: list[Mailbox] = []
        self._routes: list[Routes] = []
        self._waiting: dict[str, asyncio.Future[tuple[bytes, dict[str, str]]]] = {}

    async def serve(self, routes: Routes) -> None:
        """Bind a service's routing table; several services may share one bus."""
        self._routes.append(routes)
        self._rpcs.update(((routes.service, route.method), route) for route in routes.rpcs)
        for route in routes.mailboxes:
            source = MemorySource(route.stream, route.durable)
            self._sources[route.stream, route.durable] = (route, source)
            self._services[route.durable] = routes.service
            mailbox = Mailbox(routes.service, route, source, self)
            self._mailboxes.append(mailbox)
            await mailbox.start()

    async def drain(self, deadline_s: float = 1.0) -> None:
        """Finish what is in hand."""
        await asyncio.gather(*(mailbox.drain(deadline_s) for mailbox in self._mailboxes))
        self._mailboxes.clear()

    # ── the port ─────────────────────────────────────────────────────────────────────────────────────────────────

    @override
    async def call[R: Message](
        self, request: Request[R], context: Context, *, timeout_s: float = 5.0, idle_s: float | None = None
    ) -> R:
        body = _checked(request.encode())
        if not any(service == request.service for service, _ in self._rpcs):
            raise Unavailable(
                f"no {request.service} is running that could answer {request.method}; start one, as `paracle up` does"
            )
        route = self._rpcs.get((request.service, request.method))
        if route is None:
            raise NotFound(f"{request.service} has no method {request.method!r}")
        try:
            async with asyncio.timeout(timeout_s):
                answer = await self._answer(route, body, context)
        except TimeoutError:
            asked = f"{request.service}.{request.method}"
            raise DeadlineExceeded(f"{asked} did not answer within {timeout_s:g} s; trying again may help") from None
        return cast("R", request.answer.decode(answer))

    async def _answer(self, route: RpcRoute, body: bytes, context: Context) -> bytes:
        try:
            answered: Message = await route.handler(cast("Request[Any]", route.request.decode(body)), context)
            return answered.encode()
        except ParacleError as error:
            raise from_problem(error.to_problem()) from None
        except Exception as error:  # noqa: BLE001  # as over NATS: a bug becomes an answer without details
            if is_outage(error):
                raise Unavailable(f"{route.request.service} cannot reach what it needs just now; ask again") from None
            raise codec.internal(route.request.service) from None

    @override
    async def publish(self, messages: Sequence[Outgoing]) -> None:
        refused: PayloadTooLarge | None = None
        for message in messages:
            try:
                self._store(message)
            except PayloadTooLarge as error:
                refused = refused or error
        if refused is not None:
            raise refused

    @override
    async def broadcast(self, message: Outgoing) -> None:
        body = _checked(message.message.encode())
        self.broadcasts.append(message)
        for routes in self._routes:
            for route in routes.listens:
                if matches(route.subject, message.subject):
                    heard = Incoming(message.subject, "", body, headers=message.envelope.headers())
                    await route.handler(Delivery(heard, NoReceipt()))

    @override
    async def send(
        self, subject: str, message: Encodable, envelope: Envelope, *, timeout_s: float = 10.0
    ) -> JsonObject:
        inbox = f"_INBOX.{len(self._waiting)}.{envelope.id}"
        answer = self._waiting[inbox] = asyncio.get_running_loop().create_future()
        self._ids.discard((_stream_of(subject), envelope.id))  # what is sent again reaches its service again
        self._store(Outgoing(subject, message, envelope), reply_to=inbox)
        try:
            async with asyncio.timeout(timeout_s):
                body, headers = await answer
        except TimeoutError:
            raise DeadlineExceeded(f"{subject} was not answered within {timeout_s:g} s") from None
        finally:
            del self._waiting[inbox]
        return codec.read_answer(body, headers)

    def _store(self, message: Outgoing, *, reply_to: str | None = None) -> None:
        stream = _stream_of(message.subject)
        body = _checked(message.message.encode())
        if (stream, message.envelope.id) in self._ids:
            return
        self._ids.add((stream, message.envelope.id))
        self.published.append(message)
        headers = message.envelope.headers() | ({REPLY_TO: reply_to} if reply_to else {})
        self._put(stream, message.subject, body, headers)

    def _put(self, stream: str, subject: str, body: bytes, headers: dict[str, str]) -> None:
        subject = subjects.kept_as(subject)
        seq = self._seqs[stream] = self._seqs.get(stream, 0) + 1
        for (name, _), (route, source) in self._sources.items():
            if name == stream and matches(route.filter, subject):
                source.add(subject, body, headers, seq)

    # ── what receipts need ───────────────────────────────────────────────────────────────────────────────────────

    async def settle(self, replies: Sequence[str], word: bytes) -> None:
        for reply in replies:
            tokens = reply.split(".")
            self._sources[tokens[2], tokens[3]][1].settle(reply, word)

    async def bury(self, delivery: Delivery, place: Place, error: ParacleError) -> None:
        headers = dead_headers(delivery, place, error)
        if is_hopeless(delivery, place):
            return
        if (subjects.DEADLETTERS, headers[MSG_ID]) not in self._ids:
            self._ids.add((subjects.DEADLETTERS, headers[MSG_ID]))
            subject = subjects.dlq(delivery.tenant, self._services[place.consumer])
            self.dead.append((subject, delivery.body, headers))
            self._put(subjects.DEADLETTERS, subject, delivery.body, headers)

    async def end(self, reply: str) -> None:
        await self.settle((reply,), b"+TERM")

    def waited_for(self, delivery: Delivery) -> bool:
        return delivery.envelope.reply_to is not None

    async def answer(self, delivery: Delivery, answer: Message | JsonObject | ParacleError) -> None:
        waiting = self._waiting.get(delivery.envelope.reply_to or "")
        if waiting is not None and not waiting.done():
            waiting.set_result(codec.encode_answer(answer, stream=delivery.stream, seq=delivery.stream_seq))


def _stream_of(subject: str) -> str:
    return subjects.STREAM_OF[subjects.Subject.parse(subject).kind]


def _checked(body: bytes) -> bytes:
    if len(body) > PAYLOAD_LIMIT:
        raise PayloadTooLarge(
            f"a payload of {len(body):,} bytes is over the limit of {PAYLOAD_LIMIT:,}; pass a reference to it instead"
        )
    return body
