"""What the runtime says: published in order, many tasks at once, and only then acked."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Final

from paracle_chassis import outages
from paracle_chassis.bus import Bus, Outgoing
from paracle_chassis.delivery import Delivery
from paracle_domain.errors import InternalError, ParacleError
from paracle_domain.records import record

_log = logging.getLogger(__name__)
_LIMIT: Final = 500
_AGAIN_S: Final = 5.0
_UNSAID: Final = "the result cannot be published; see the agent runtime's log"


@record
class Parcel:
    """Messages that belong together; `deliveries` are acked once all are stored, and then `done` is called.

    `instead` makes what is published if one of the messages cannot be (it is too large, or
    cannot be written as JSON).
    """

    messages: Sequence[Outgoing]
    deliveries: Sequence[Delivery] = ()
    done: Callable[[], None] | None = None
    instead: Callable[[ParacleError], Sequence[Outgoing]] | None = None


class Outbox:
    """Takes whatever is ready, publishes it in one go, settles it, and looks again. NATS's outages are waited out."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._waiting: deque[Parcel] = deque()
        self._running: asyncio.Task[None] | None = None

    def put(self, parcel: Parcel) -> None:
        """Send `parcel` after all that was put before it."""
        self._waiting.append(parcel)
        if self._running is None:
            self._running = asyncio.create_task(self._run())

    async def flush(self, deadline_s: float) -> None:
        """Until all is sent; what is not after `deadline_s` is dropped, to be told again after a redelivery."""
        if self._running is None:
            return
        _, late = await asyncio.wait((self._running,), timeout=deadline_s)
        for task in late:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        try:
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(_LIMIT, len(self._waiting)))]
                await self._send(batch)
        finally:
            self._running = None

    async def _send(self, batch: Sequence[Parcel]) -> None:
        try:
            await self._publish([*chain.from_iterable(parcel.messages for parcel in batch)])
        except Exception as error:  # noqa: BLE001  # one of them is at fault: each is sent alone
            _log.warning("%d parcels could not be published together: %s", len(batch), error)
            for parcel in batch:
                await self._settle((parcel,), sent=await self._alone(parcel))
        else:
            await self._settle(batch, sent=True)

    async def _alone(self, parcel: Parcel) -> bool:
        """Whether the parcel, or what stands in for it, could be published."""
        error = await self._refusal(parcel.messages)
        if error is None:
            return True
        if parcel.instead is None or not isinstance(error, ParacleError | ValueError):
            return False
        reason = error if isinstance(error, ParacleError) else InternalError(f"{_UNSAID}: {type(error).__name__}")
        return await self._refusal(parcel.instead(reason)) is None

    async def _refusal(self, messages: Sequence[Outgoing]) -> Exception | None:
        try:
            await self._publish(messages)
        except Exception as error:  # noqa: BLE001  # judged by the caller: the outbox outlives every message
            _log.error("messages cannot be published: %s", error, exc_info=not isinstance(error, ParacleError))
            return error
        return None

    async def _settle(self, parcels: Sequence[Parcel], *, sent: bool) -> None:
        """Done with them: acked if they were sent; otherwise their deliveries come again."""
        deliveries = [delivery for parcel in parcels for delivery in parcel.deliveries]
        try:
            if sent:
                await Delivery.ack_all(deliveries)
            else:
                for delivery in deliveries:
                    await delivery.nak(_AGAIN_S)
        except Exception as error:  # only an outage is waited out; the rest is raised
            if not outages.is_outage(error):
                raise
            _log.warning("not heard, the messages will come again: %s", error)
        for parcel in parcels:
            if parcel.done is not None:
                parcel.done()

    async def _publish(self, messages: Sequence[Outgoing]) -> None:
        if messages:
            await outages.outlast(lambda: self._bus.publish(messages), "publishing")
