"""How deliveries are settled: JetStream's acknowledgements, dead letters, answers to commands."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Final, NamedTuple, Protocol, Self, override

from nats.errors import Error as NatsError

from paracle_chassis import bundles, frames, telemetry
from paracle_chassis.bundles import Bundles
from paracle_chassis.claims import Claims
from paracle_chassis.dead_letters import dead_headers, id_of, is_hopeless
from paracle_chassis.delivery import Delivery, Receipt
from paracle_chassis.inlet import Incoming
from paracle_chassis.link import Link
from paracle_chassis.publisher import Publisher
from paracle_chassis.replies import Replies
from paracle_chassis.topology import ANSWERED
from paracle_chassis.wires import Wire
from paracle_domain import subjects
from paracle_domain.envelope import MSG_ID
from paracle_domain.errors import MalformedMessage, ParacleError
from paracle_domain.messages import JsonObject, Message
from paracle_domain.subjects import DEFAULT_TENANT, is_token

_log = logging.getLogger(__name__)

WORKING: Final = b"+WPI"
_V1_TOKENS: Final = 9
_NS: Final = 1_000_000_000
FLUSHED_S: Final = 1.0
"""Ten of the intervals at which NATS flushes what is in its files (`sync_interval`; ADR 0016)."""


class Place(NamedTuple):
    """Where in JetStream a message is, from its ack subject."""

    stream: str
    consumer: str
    deliveries: int
    seq: int
    stored_ns: int


def place_of(reply: str) -> Place:
    """Read `$JS.ACK.[domain.account.]stream.consumer.delivered.seq.consumer_seq.time.pending[.token]`."""
    return _place_of(bundles.whole_of(reply))


@lru_cache(maxsize=16)
def _place_of(reply: str) -> Place:
    """Of a message that is no part of another. All parts of a bundle ask in turn."""
    tokens = reply.split(".")
    at = 2 if len(tokens) == _V1_TOKENS else 4
    return Place(tokens[at], tokens[at + 1], int(tokens[at + 2]), int(tokens[at + 3]), int(tokens[at + 5]))


class Fetch(Protocol):
    """Makes a body whole again."""

    async def check_out(self, body: bytes, headers: Mapping[str, str] | None) -> bytes: ...


class Answers(Protocol):
    """Answers whoever waits for what becomes of a message."""

    def waited_for(self, delivery: Delivery) -> bool: ...
    async def answer(self, delivery: Delivery, answer: Message | JsonObject | ParacleError) -> None: ...


class SettlerPort(Protocol):
    """What receipts and mailboxes need of whatever their messages came from."""

    @property
    def claims(self) -> Fetch: ...
    @property
    def replies(self) -> Answers: ...
    async def settle(self, replies: Sequence[str], word: bytes) -> None: ...
    async def bury(self, delivery: Delivery, place: Place, error: ParacleError) -> None: ...
    async def end(self, reply: str) -> None: ...


class Settler:
    """What all receipts of a service share."""

    def __init__(self, service: str, link: Link, claims: Claims, publisher: Publisher, replies: Replies) -> None:
        self.claims = claims
        self.replies = replies
        self.bundles = Bundles(publisher)
        self._service = service
        self._link = link
        self._publisher = publisher
        self._ending: set[asyncio.Task[None]] = set()

    async def settle(self, replies: Sequence[str], word: bytes) -> None:
        """Say `word` about the messages with these ack subjects; it is not waited for. Acks gather for a moment."""
        if word == WORKING:
            if not self._link.connected:
                return  # the client would keep every beat of an outage, in memory, until it is over
            said = [(reply, word) for reply in dict.fromkeys(map(bundles.whole_of, replies))]
        else:
            said = await self.bundles.settle(replies, word)
        self._link.acks.put(reply for reply, last in said if not last)
        if others := [frames.pub(reply, last) for reply, last in said if last]:
            await frames.post(self._link.client, others)

    async def end(self, reply: str) -> None:
        """Take what was buried out of its stream, once its copy is on disk: a power cut must not take both.

        NATS confirms a copy that it has in a file, and flushes that a moment later. Whoever dies meanwhile leaves the
        message to be delivered, and buried, again: that is the same dead letter.
        """
        await self.settle((reply,), WORKING)
        task = asyncio.get_running_loop().create_task(self._end(reply))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _end(self, reply: str) -> None:
        await asyncio.sleep(FLUSHED_S)
        with suppress(NatsError, OSError):
            await self.settle((reply,), b"+TERM")

    async def drain(self, deadline_s: float) -> None:
        """Wait until what was buried is out of its stream, or leave it there."""
        if self._ending:
            _, late = await asyncio.wait(self._ending, timeout=deadline_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def bury(self, delivery: Delivery, place: Place, error: ParacleError) -> None:
        """Copy `delivery` to the dead letters; the same one twice is one dead letter."""
        if is_hopeless(delivery, place):
            _log.error("dead letter %s of %s cannot be read: %s", place.seq, place.stream, error)
            return
        tenant = delivery.subject.split(".", 3)[2] if delivery.subject.count(".") > 2 else DEFAULT_TENANT
        headers = dead_headers(delivery, place, error)
        body = await self.claims.check_in(await self._whole(delivery), headers)
        subject = subjects.dlq(tenant if is_token(tenant) else DEFAULT_TENANT, self._service)
        await self._publisher.publish([Wire(subject, body, headers)])
        telemetry.buried(place.consumer, error.code)
        _log.error("message %s of %s is %s now: %s", place.seq, place.stream, id_of(headers[MSG_ID]), error)

    async def _whole(self, delivery: Delivery) -> bytes:
        """Its body; one that was put away and not fetched yet must not stay where it is kept for days only."""
        try:
            return delivery.body or await self.claims.check_out(b"", delivery.headers)
        except MalformedMessage:
            return b""  # it is gone, and perhaps that is why


class JetStreamReceipt:
    """Settles one message of a stream."""

    __slots__ = ("_place", "_settler", "ack_subject")

    def __init__(self, ack_subject: str, place: Place, settler: SettlerPort) -> None:
        self.ack_subject = ack_subject
        self._place = place
        self._settler = settler

    @classmethod
    def deliver(cls, message: Incoming, settler: SettlerPort) -> Delivery:
        """The delivery of `message`."""
        place = place_of(message.reply)
        return Delivery(
            message,
            cls(message.reply, place, settler),
            deliveries=place.deliveries,
            stream=place.stream,
            stream_seq=place.seq,
            stored_ns=place.stored_ns,
        )

    async def ack(self) -> None:
        await self._settler.settle((self.ack_subject,), b"")

    async def ack_with(self, others: Sequence[Self]) -> None:
        await self._settler.settle([self.ack_subject, *(other.ack_subject for other in others)], b"")

    async def nak(self, delay_s: float) -> None:
        word = b"-NAK " + json.dumps({"delay": int(delay_s * _NS)}).encode() if delay_s > 0 else b"-NAK"
        await self._settler.settle((self.ack_subject,), word)

    async def term(self, delivery: Delivery, error: ParacleError) -> None:
        """Copy it to the dead letters first: in a work queue, `+TERM` deletes it.

        Whoever waits for an answer is told of the error, and then it must not be delivered again. Else the copy is all
        that is left of it.

        What came in a bundle comes again alone instead: it has no place of its own yet that a dead letter could name.
        """
        if bundles.is_part(self.ack_subject):
            await self._settler.settle((self.ack_subject,), bundles.ALONE)
            return
        await self._settler.bury(delivery, self._place, error)
        if self.waited_for(delivery):
            await self._settler.settle((self.ack_subject,), b"+TERM")
        else:
            await self._settler.end(self.ack_subject)
        # If nobody waits, too: whoever sends the same next is not to stand behind it.
        await self.reply(delivery, error)

    async def in_progress(self, others: Sequence[Self] = ()) -> None:
        await self._settler.settle([self.ack_subject, *(other.ack_subject for other in others)], WORKING)

    async def reply(self, delivery: Delivery, answer: Message | JsonObject | ParacleError) -> None:
        if self._place.stream in ANSWERED:
            await self._settler.replies.answer(delivery, answer)

    def waited_for(self, delivery: Delivery) -> bool:
        return self._place.stream in ANSWERED and self._settler.replies.waited_for(delivery)


class NoReceipt(Receipt):
    """For what is only overheard: there is nothing to settle, and nobody to answer."""

    @override
    async def ack(self) -> None:
        return None

    @override
    async def ack_with(self, others: Sequence[Self]) -> None:
        return None

    @override
    async def nak(self, delay_s: float) -> None:
        return None

    @override
    async def term(self, delivery: Delivery, error: ParacleError) -> None:
        return None

    @override
    async def in_progress(self, others: Sequence[Self] = ()) -> None:
        return None

    @override
    async def reply(self, delivery: Delivery, answer: Message | JsonObject | ParacleError) -> None:
        return None

    @override
    def waited_for(self, delivery: Delivery) -> bool:
        return False
