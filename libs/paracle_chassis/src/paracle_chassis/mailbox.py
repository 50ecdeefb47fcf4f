"""The loop of a mailbox: take what is there, hand it over, settle it; isolate what fails.

What becomes of a delivery, in one place:

    the handler returns            acked, unless the handler settled or kept it
    something is away (an outage)  tried again here until it is back; tries are not used up
    several, and an error          each is tried alone, so that one poison message stops no neighbour
    one, and it cannot ever work   to the dead letters (`MalformedMessage`, `NotFound`, … : not retryable)
    one, and it may work later     delivered again after a delay; to the dead letters after `max_deliver` tries
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Final, Protocol

from nats.errors import Error as NatsError

from paracle_chassis import outages, telemetry
from paracle_chassis.delivery import MOST_HEADER_BYTES, Delivery
from paracle_chassis.inlet import Incoming
from paracle_chassis.logging import envelope_story, story
from paracle_chassis.receipts import WORKING, JetStreamReceipt, SettlerPort
from paracle_chassis.routes import MailboxRoute
from paracle_domain import subjects
from paracle_domain.errors import InternalError, MalformedMessage, ParacleError, Unavailable
from paracle_domain.subjects import Subject

_log = logging.getLogger(__name__)

_HEARTBEATS_PER_WAIT: Final = 3
# Bodies that travelled by claim check are fetched for so much at once; a batch of them could be gigabytes.
PORTION_BYTES: Final = 64 * 1024 * 1024
# A message that was delivered this often without ever being settled takes its process down with it.
_CRASHES: Final = 5


class Source(Protocol):
    """Where a mailbox takes its messages from: `consumer.PullConsumer`, or one in memory."""

    @property
    def buffer(self) -> Collection[Incoming]: ...
    @property
    def alive(self) -> bool: ...
    async def start(self) -> None: ...
    async def take(self, limit: int) -> list[Incoming]: ...
    async def stop(self) -> list[Incoming]: ...
    async def close(self) -> None: ...


class Mailbox:
    """One mailbox of one replica; one batch at a time, or as many as its route says."""

    def __init__(self, service: str, route: MailboxRoute, consumer: Source, settler: SettlerPort) -> None:
        self.route = route
        self._service = service
        self._consumer = consumer
        self._settler = settler
        self._in_hand: dict[str, Delivery] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._draining = asyncio.Event()

    @property
    def alive(self) -> bool:
        """Whether it takes messages, or is at work on some."""
        return bool(self._tasks) and not self._tasks[0].done() and (bool(self._in_hand) or self._consumer.alive)

    async def start(self) -> None:
        await self._consumer.start()
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._run()), loop.create_task(self._heartbeat())]

    async def drain(self, deadline_s: float) -> None:
        """Give back what was fetched, finish what is in hand, and give that back too if it is not done in time."""
        self._draining.set()
        await self._settler.settle([message.reply for message in await self._consumer.stop()], b"-NAK")
        if self._tasks:
            run, heartbeat = self._tasks
            _, late = await asyncio.wait((run,), timeout=deadline_s)
            heartbeat.cancel()
            for task in late:
                task.cancel()
            await asyncio.gather(run, heartbeat, return_exceptions=True)
            await self._give_back(self._in_hand.values())
        await self._consumer.close()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        batches: set[asyncio.Task[None]] = set()
        try:
            while messages := await self._consumer.take(self.route.batch):
                batch = asyncio.Task(self._batch(messages), loop=loop, eager_start=True)
                batches = {one for one in (*batches, batch) if not one.done()}
                if len(batches) == self.route.at_once:
                    _, batches = await asyncio.wait(batches, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:  # the drain has no more time
            for one in batches:
                one.cancel()
            raise
        finally:
            await asyncio.gather(*batches, return_exceptions=True)

    async def _batch(self, messages: Sequence[Incoming]) -> None:
        hand = {message.reply: JetStreamReceipt.deliver(message, self._settler) for message in messages}
        self._in_hand |= hand
        try:
            await self._process(hand.values())
        except Exception:  # noqa: BLE001  # a mailbox must outlive whatever one batch does to it
            _log.exception("mailbox %s of %s: a batch broke off", self.route.durable, self.route.stream)
            await self._give_back(hand.values(), delay_s=1.0)
        for reply in hand:
            del self._in_hand[reply]

    async def _process(self, deliveries: Iterable[Delivery]) -> None:
        waiting = deque(deliveries)
        while waiting:
            portion = await self._portion(waiting)
            if portion and not await self._work_on(portion):
                await self._give_back(waiting)
                return
            for delivery in portion:
                if delivery.settled and not delivery.kept:  # whoever keeps one may still be about to answer it
                    delivery.body = b""  # it is in hand, but no longer needed, until the whole batch is done

    async def _portion(self, waiting: deque[Delivery]) -> list[Delivery]:
        """The next of `waiting`, ready to hand over: all, unless that is more than fits into memory well."""
        found: list[Delivery] = []
        size = 0
        while waiting and size < PORTION_BYTES:
            delivery = waiting.popleft()
            if self._is_ready(delivery) or await self._open(delivery):
                found.append(delivery)
                size += len(delivery.body)
        return found

    async def _work_on(self, pending: Sequence[Delivery]) -> bool:
        """Hand over `pending` until all is settled; false if an outage, and then the drain, came in between."""
        alone = False
        for delay in outages.delays():
            if not (pending := await self._round(pending, alone=alone)):
                break
            alone = not alone  # the next look lets those through that do not need what is away
            if not await self._outlast(delay):
                await self._give_back(pending)
                return False
        return True

    def _is_ready(self, delivery: Delivery) -> bool:
        """Whether there is nothing to do or to doubt before it is handed over, as with nearly all."""
        return (
            subjects.is_subject(delivery.subject)
            and delivery.deliveries <= self.route.max_deliver
            and not delivery.overloaded
            and not delivery.claimed
        )

    async def _open(self, delivery: Delivery) -> bool:
        """Make it ready to hand over; one that cannot be read, or keeps killing its readers, is put aside."""
        for delay in outages.delays():
            try:
                Subject.parse(delivery.subject)
                if delivery.overloaded:
                    raise MalformedMessage(f"its headers have more than {MOST_HEADER_BYTES:,} bytes; they are left out")
                if delivery.deliveries > self.route.max_deliver * _CRASHES:
                    raise InternalError(f"delivered {delivery.deliveries} times and never settled")
                delivery.body = await self._settler.claims.check_out(delivery.body, delivery.headers)
            except Unavailable:
                if not await self._outlast(delay):
                    await delivery.nak()
                    return False
            except ParacleError as error:
                await self._bury(delivery, error)
                return False
            else:
                break
        return True

    # ── rounds ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def _round(self, pending: Sequence[Delivery], *, alone: bool) -> Sequence[Delivery]:
        """Try `pending`, together or each alone; what is left is what an outage held up."""
        if not alone or len(pending) == 1:
            error = await self._try(pending)
            if error is None:
                return ()
            pending = [delivery for delivery in pending if delivery.open]
            if outages.is_outage(error):
                _log.warning("mailbox %s waits: %s", self.route.durable, error)
                return pending
            if len(pending) <= 1:
                for delivery in pending:
                    await self._failed(delivery, error)
                return ()
            _log.warning("mailbox %s: %d messages failed together, trying each alone", self.route.durable, len(pending))
        return await self._one_by_one(pending)

    async def _one_by_one(self, pending: Sequence[Delivery]) -> Sequence[Delivery]:
        for index, delivery in enumerate(pending):
            error = await self._try((delivery,))
            if error is None or not delivery.open:
                continue
            if outages.is_outage(error):
                return [*pending[index + 1 :], delivery]
            await self._failed(delivery, error)
        return ()

    async def _try(self, deliveries: Sequence[Delivery]) -> Exception | None:
        """Hand them over, and ack what the handler left open; the error if it raised one."""
        first = deliveries[0].envelope
        ids = envelope_story(first) if len(deliveries) == 1 else {}
        for delivery in deliveries:
            delivery.handed_over += 1
        with story(mailbox=self.route.durable, **ids):
            try:
                with telemetry.mailbox_span(self.route, deliveries):
                    await self.route.handler(deliveries)
            except Exception as error:  # noqa: BLE001  # judged by the caller: outage, poison or try again
                return error
        await Delivery.ack_all(delivery for delivery in deliveries if delivery.open)
        return None

    # ── failures ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def _failed(self, delivery: Delivery, error: Exception) -> None:
        """One message failed by itself: later, or never."""
        tries = delivery.deliveries
        with story(mailbox=self.route.durable, **envelope_story(delivery.envelope)):
            if isinstance(error, ParacleError) and not isinstance(error, InternalError) and not error.retryable:
                await self._bury(delivery, error)
            elif tries >= self.route.max_deliver:
                _log.error("message failed %d times", tries, exc_info=error)
                await self._bury(delivery, error)
            else:
                delay = self.route.delay_after(tries)
                _log.warning("message failed (try %d), again in %g s", tries, delay, exc_info=error)
                telemetry.retried(self.route)
                await delivery.nak(delay)

    async def _bury(self, delivery: Delivery, error: Exception) -> None:
        reason = error if isinstance(error, ParacleError) else InternalError(f"{type(error).__name__}: {error}")
        try:
            await delivery.term(reason)
        except Unavailable:  # it stays where it is until it can be copied
            delivery.settled = False
            await delivery.nak(self.route.delay_after(self.route.max_deliver))

    async def _give_back(self, deliveries: Iterable[Delivery], *, delay_s: float = 0) -> None:
        for delivery in deliveries:
            if delivery.open:
                with suppress(NatsError, OSError):
                    await delivery.nak(delay_s)

    async def _outlast(self, delay_s: float) -> bool:
        """Wait a while for an outage to pass; whether there is still time for that."""
        with suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await self._draining.wait()
        return not self._draining.is_set()

    async def _heartbeat(self) -> None:
        """Keep what is in hand, or waits for the hand, from being delivered to somebody else meanwhile.

        Most messages are settled before their second beat comes, so none is sent for what was not there at the last.
        """
        seen: frozenset[str] = frozenset()
        while True:
            await asyncio.sleep(self.route.ack_wait_s / _HEARTBEATS_PER_WAIT)
            held = frozenset(self._held())
            with suppress(NatsError, OSError):
                await self._settler.settle(list(held & seen), WORKING)
            seen = held

    def _held(self) -> Iterator[str]:
        """The ack subjects of all that is here and not settled."""
        yield from (reply for reply, delivery in self._in_hand.items() if delivery.open)
        yield from (message.reply for message in self._consumer.buffer)
