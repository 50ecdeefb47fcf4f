"""Deltas, and that a call is tried again, on their way to watchers, over the bus."""

from __future__ import annotations

import logging

from paracle_chassis.bus import Bus, outgoing
from paracle_domain import subjects
from paracle_domain.envelope import Context
from paracle_domain.errors import Unavailable
from paracle_domain.inference.deltas import Delta
from paracle_domain.inference.retrying import Retrying

_log = logging.getLogger(__name__)


class BusOutlet:
    """Broadcasts on `out.{task_id}`.

    Nothing is acknowledged: the answer of a call has all of its deltas again, so one that is lost costs a watcher a
    moment, while waiting for each would slow the reply down. What NATS does not take now is dropped for the same
    reason; watchers see by the numbers that it is missing.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def publish(self, task_id: str, news: Delta | Retrying, context: Context) -> None:
        subject = subjects.out(context.tenant, task_id)
        message = outgoing(subject, news, context, source="paracle/provider_gateway", id=news.message_id)
        try:
            await self._bus.broadcast(message)
        except Unavailable as error:
            _log.debug("%s is dropped: %s", news.message_id, error)
