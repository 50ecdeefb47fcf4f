"""What a replica does now and then for the ledger: says that it lives, repeats what may be lost, closes orphans."""

from __future__ import annotations

import asyncio
import logging
from typing import Final, Protocol

from paracle_chassis.outages import as_unavailable
from paracle_provider_gateway.bookkeeping import Bookkeeper
from paracle_provider_gateway.ledger import Ledger

_log = logging.getLogger(__name__)

BATCH: Final = 500
SEEN_EVERY_S: Final = 5.0


class Presence(Protocol):
    """This replica, as the others see it. `is_in_doubt`: the database may have lost its last moments.

    As long as it is, nobody can say how budgets stand.
    """

    is_in_doubt: bool

    async def seen(self) -> None:
        """A sign of life."""


class Upkeep:
    """`round` is that of a `Background`."""

    def __init__(self, presence: Presence, ledger: Ledger, bookkeeper: Bookkeeper) -> None:
        self._presence = presence
        self._ledger = ledger
        self._bookkeeper = bookkeeper

    async def round(self) -> None:
        """See above."""
        await self._presence.seen()
        if self._presence.is_in_doubt:
            await self._tell_again()
            self._presence.is_in_doubt = False
            await self._presence.seen()
        self._bookkeeper.take_back()
        while closed := await self._close_orphans():
            _log.warning("closed %d attempts of replicas that are gone; what they had reserved counts as used", closed)
            if closed < BATCH:
                return
            await self._presence.seen()

    async def _close_orphans(self) -> int:
        """So many; it holds up no sign of life."""
        with as_unavailable("PostgreSQL is silent"):
            async with asyncio.timeout(SEEN_EVERY_S):
                return await self._ledger.close_orphans(BATCH)

    async def _tell_again(self) -> None:
        """Tell it, however long that takes, and meanwhile that this replica lives: others wait for its word."""
        telling = asyncio.create_task(self._bookkeeper.tell_again())
        try:
            while not (await asyncio.wait((telling,), timeout=SEEN_EVERY_S))[0]:
                await self._presence.seen()
            telling.result()
        finally:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)
