"""Bells over core NATS: one subscription a run or task, however many follow it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from paracle_domain import subjects

if TYPE_CHECKING:
    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription

    from paracle_chassis.link import Link


@dataclass(slots=True)
class _Bell:
    """A subject that somebody listens to."""

    listeners: set[asyncio.Event] = field(default_factory=set)
    subscription: Subscription | None = None
    opening: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def ring(self, _message: Msg) -> None:
        for listener in self.listeners:
            listener.set()


class NatsBells:
    """`Bells` on the service's connection. What rings is never read: the orchestrator is asked for the news itself."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._bells: dict[str, _Bell] = {}

    def __len__(self) -> int:
        return len(self._bells)

    @asynccontextmanager
    async def watch(self, tenant: str, run_id: str) -> AsyncIterator[asyncio.Event]:
        """See `Bells.watch`."""
        async with self.hear(subjects.evt(tenant, "run", run_id, subjects.ANY)) as listener:
            yield listener

    @asynccontextmanager
    async def hear(self, subject: str) -> AsyncIterator[asyncio.Event]:
        """Within it, the event is set whenever something is published on `subject`."""
        listener = asyncio.Event()
        bell = self._bells.setdefault(subject, _Bell())
        bell.listeners.add(listener)
        try:
            async with bell.opening:
                if bell.subscription is None:
                    bell.subscription = await self._link.client.subscribe(subject, cb=bell.ring)
            yield listener
        finally:
            bell.listeners.discard(listener)
            await self._release(subject, bell)

    async def _release(self, subject: str, bell: _Bell) -> None:
        if bell.listeners or self._bells.get(subject) is not bell:
            return
        del self._bells[subject]
        if bell.subscription is not None and not self._link.client.is_closed:
            await bell.subscription.unsubscribe()
