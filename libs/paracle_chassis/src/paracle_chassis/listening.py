"""What every replica overhears on core NATS, through FastStream subscribers."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from faststream import AckPolicy
from faststream.nats import NatsMessage

from paracle_chassis.claims import Claims
from paracle_chassis.delivery import Delivery
from paracle_chassis.inlet import Incoming
from paracle_chassis.link import Link
from paracle_chassis.logging import envelope_story, story
from paracle_chassis.receipts import NoReceipt
from paracle_chassis.routes import ListenRoute, Routes

_log = logging.getLogger(__name__)


class Listener:
    """The `listen` routes of one replica."""

    def __init__(self, routes: Routes, link: Link, claims: Claims) -> None:
        self._routes = routes
        self._link = link
        self._claims = claims

    async def start(self) -> None:
        for route in self._routes.listens:
            subscriber = self._link.broker.subscriber(route.subject, ack_policy=AckPolicy.MANUAL, no_reply=True)
            subscriber(self._handler(route))
        await self._link.broker.start()

    async def stop(self) -> None:
        for subscriber in self._link.broker.subscribers:
            await subscriber.stop()

    def _handler(self, route: ListenRoute) -> Callable[[NatsMessage], Awaitable[None]]:
        async def hear(message: NatsMessage) -> None:
            raw = message.raw_message
            delivery = Delivery(Incoming(raw.subject, raw.reply, raw.data, headers=raw.headers), NoReceipt())
            with story(**envelope_story(delivery.envelope)):
                try:
                    delivery.body = await self._claims.check_out(raw.data, raw.headers)
                    await route.handler(delivery)
                except Exception:  # noqa: BLE001  # nobody redelivers what is only overheard, so the log is all there is
                    _log.exception("listening on %s failed", route.subject)

        return hear
