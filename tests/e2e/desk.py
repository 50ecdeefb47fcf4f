"""The same questions as the SDK's, asked over NATS: many at once, and through whatever is killed meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from paracle_chassis.nats_bus import NatsBus
from paracle_chassis.settings import ServiceSettings
from paracle_domain.audit import AuditPage, GetAudit
from paracle_domain.envelope import Context
from paracle_domain.errors import DeadlineExceeded, Unavailable
from paracle_domain.ids import new_id
from paracle_domain.machine import EventRecord
from paracle_domain.messages import Command, JsonObject, Message, Request
from paracle_domain.run.commands import GetRun, GetRunEvents, RunView

_AT_ONCE: Final = 64
_PAGE: Final = 1_000
_PATIENCE_S: Final = 90.0
_PAUSE_S: Final = 0.2


class Desk:
    """Asks and orders until it is answered."""

    def __init__(self, bus: NatsBus, principal: str) -> None:
        self._bus = bus
        self._context = Context("default", principal=principal)
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def order(self, command: Command) -> JsonObject:
        """Give `command`, once."""
        return await self._bus.command(command, self._context, id=new_id("msg"), timeout_s=_PATIENCE_S)

    async def ask[R: Message](self, request: Request[R]) -> R:
        """The answer to `request`, whatever is away just now."""
        async with self._slots, asyncio.timeout(_PATIENCE_S):
            while True:
                try:
                    return await self._bus.call(request, self._context)
                except (Unavailable, DeadlineExceeded):
                    await asyncio.sleep(_PAUSE_S)

    async def get_run(self, run_id: str) -> RunView:
        return await self.ask(GetRun(run_id=run_id))

    async def events(self, run_id: str) -> AsyncIterator[EventRecord]:
        """All events of a run so far."""
        after, more = 0, True
        while more:
            page = await self.ask(GetRunEvents(run_id=run_id, after=after, limit=_PAGE))
            for event in page.events:
                yield event
            more = bool(page.events) and not page.terminal
            after = page.events[-1].seq if page.events else after

    async def audit(self, run_id: str, *, after: int = 0) -> AuditPage:
        return await self.ask(GetAudit(run_id=run_id, after=after, limit=_PAGE))


@asynccontextmanager
async def desk(nats_url: str, principal: str = "tester") -> AsyncIterator[Desk]:
    """A desk over a connection of its own."""
    bus = NatsBus("tester", ServiceSettings(nats_url=nats_url))
    await bus.open()
    try:
        yield Desk(bus, principal)
    finally:
        await bus.close()
