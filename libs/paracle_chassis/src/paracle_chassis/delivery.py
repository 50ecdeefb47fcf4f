"""One received message, and what is to become of it."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Mapping, Sequence
from typing import Final, Protocol, Self, override

from paracle_chassis.inlet import Incoming
from paracle_domain import subjects
from paracle_domain.dead_letters import DEAD_TOLD
from paracle_domain.envelope import CLAIM, Envelope
from paracle_domain.errors import ParacleError
from paracle_domain.messages import JsonObject, Message

MOST_HEADER_BYTES: Final = 28 * 1024
"""A stream takes 64 KiB, and what a message leads to has its headers, one of them twice, and own ones besides."""


class Receipt(Protocol):
    """The way back to whoever delivered: how a message is settled or answered.

    It does not hold its delivery, which holds it: a circle would stay until garbage is looked for.
    """

    async def ack(self) -> None: ...
    async def ack_with(self, others: Sequence[Self]) -> None: ...
    async def nak(self, delay_s: float) -> None: ...
    async def term(self, delivery: Delivery, error: ParacleError) -> None: ...
    async def in_progress(self, others: Sequence[Self] = ()) -> None: ...
    async def reply(self, delivery: Delivery, answer: Message | JsonObject | ParacleError) -> None: ...
    def waited_for(self, delivery: Delivery) -> bool: ...


class Delivery:
    """A message as a handler gets it.

    A delivery that a mailbox handler leaves unsettled when it returns is acked for it, unless it was kept.

    Attributes
    ----------
    subject
        The subject that it was published on.
    headers
        Its headers as they came; `envelope` is what they mean.
    body
        The payload; one that travelled by claim check is the whole payload again.
    deliveries
        How many times it was delivered, this one included.
    stream_seq
        Its place in its stream; 0 outside JetStream.
    receipt
        How it is settled.
    handed_over
        How often this process gave it to its handler: an outage is waited out with the delivery in hand.
    """

    __slots__ = (
        "_envelope",
        "_message",
        "deliveries",
        "handed_over",
        "kept",
        "receipt",
        "settled",
        "stored_ns",
        "stream",
        "stream_seq",
        "subject",
    )

    def __init__(
        self,
        message: Incoming,
        receipt: Receipt,
        *,
        deliveries: int = 1,
        stream: str = "",
        stream_seq: int = 0,
        stored_ns: int = 0,
    ) -> None:
        self.subject = message.subject
        self.receipt = receipt
        self.deliveries = deliveries
        self.stream = stream
        self.stream_seq = stream_seq
        self.stored_ns = stored_ns
        self.settled = False
        self.kept = False
        self.handed_over = 0
        self._message = message
        self._envelope: Envelope | None = None

    @override
    def __repr__(self) -> str:
        return f"<Delivery {self.subject} {self.stream}:{self.stream_seq} try {self.deliveries}>"

    @property
    def tenant(self) -> str:
        return subjects.tenant_of(self.subject)

    @property
    def headers(self) -> Mapping[str, str]:
        return self._message.headers

    @property
    def overloaded(self) -> bool:
        """Whether its headers are more than can be handed on."""
        return len(self._message.head) > MOST_HEADER_BYTES

    @property
    def body(self) -> bytes:
        return self._message.data

    @body.setter
    def body(self, body: bytes) -> None:
        self._message.data = body

    @property
    def claimed(self) -> bool:
        """Whether its body waits in the object store."""
        return self._message.has(CLAIM)

    @property
    def envelope(self) -> Envelope:
        """Who, why and what; a bare message's id is its place in its stream and when it was stored there."""
        if self._envelope is None:
            self._envelope = Envelope.scan(self._message.head, tenant=self.tenant) or Envelope.read(
                self.headers,
                tenant=self.tenant,
                default_id=f"{self.stream or 'core'}.{self.stream_seq}.{self.stored_ns}",
                default_type=self.subject.rpartition(".")[2],
            )
        return self._envelope

    @property
    def again(self) -> bool:
        """Whether a handler may have had it before: here, when an outage broke off its work, or anywhere."""
        return self.deliveries > 1 or self.handed_over > 1

    @property
    def open(self) -> bool:
        """Whether it is still the mailbox's to settle."""
        return not (self.settled or self.kept)

    def decode[M: Message](self, kind: type[M]) -> M:
        """The body as a `kind`.

        Raises
        ------
        MalformedMessage
            If it is none; the findings name the fields.
        """
        message = kind.decode(self.body)
        assert isinstance(message, kind)
        return message

    def keep(self) -> None:
        """Take over its settlement: it is not acked when the handler returns, and no longer heartbeats by itself.

        There may be tens of thousands, each for long; of its headers, the envelope says all that is still looked at.
        """
        self.kept = True
        self._message.slim()

    async def ack(self) -> None:
        """Done with it for good."""
        if not self.settled:
            self.settled = True
            await self.receipt.ack()

    @staticmethod
    async def ack_all(deliveries: Iterable[Delivery]) -> None:
        """Done for good with all of them, which came to one service: they are acked together."""
        done = [delivery for delivery in deliveries if not delivery.settled]
        for delivery in done:
            delivery.settled = True
        if done:
            first, *others = [delivery.receipt for delivery in done]
            await first.ack_with(others)

    async def nak(self, delay_s: float = 0) -> None:
        """Deliver it again, in `delay_s` seconds."""
        if not self.settled:
            self.settled = True
            await self.receipt.nak(delay_s)

    async def term(self, error: ParacleError, *, told: bool = False) -> None:
        """Move it to the dead letters, with `error` as the reason; `told`: its run learns of the failure otherwise."""
        if not self.settled:
            self.settled = True
            if told:
                message = self._message
                headers = {**message.headers, DEAD_TOLD: "true"}
                self._message = Incoming(message.subject, message.reply, message.data, headers=headers)
            await self.receipt.term(self, error)

    async def in_progress(self) -> None:
        """Still working on it: starts its ack wait anew."""
        if not self.settled:
            await self.receipt.in_progress()

    @staticmethod
    async def all_in_progress(deliveries: Iterable[Delivery]) -> None:
        """Still working on all of them, which came to one service: what came in one bundle is said of it once."""
        receipts = [delivery.receipt for delivery in deliveries if not delivery.settled]
        if receipts:
            await receipts[0].in_progress(receipts[1:])

    async def reply(self, answer: Message | JsonObject | ParacleError) -> None:
        """Answer whoever sent it as a command, if they wait for an answer; otherwise nothing happens."""
        await self.receipt.reply(self, answer)

    async def refuse(self, error: ParacleError) -> None:
        """Tell whoever sent the command; if nobody waits for an answer, park it where somebody will look."""
        await (self.reply(error) if self.receipt.waited_for(self) else self.term(error))

    async def answer(self, work: Awaitable[Message]) -> None:
        """Answer with what `work` comes to, or refuse, and be done.

        Raises
        ------
        ParacleError
            If it can be done later: it is the mailbox's to bring again.
        """
        try:
            answer = await work
        except ParacleError as error:
            if error.retryable:
                raise
            await self.refuse(error)
        else:
            await self.reply(answer)
        await self.ack()
