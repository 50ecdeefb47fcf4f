"""Following the registry: which triggers there are.

Its events say at once that something changed; what changed is asked for. An event that was lost only delays: every
tenant is asked about again after `CHECK`. Whoever needs to know for sure (a query, a message) asks first, too.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from datetime import timedelta
from functools import partial
from typing import Final

from paracle_chassis.bus import Bus
from paracle_chassis.delivery import Delivery
from paracle_domain.envelope import Context
from paracle_domain.errors import DeadlineExceeded, Unavailable
from paracle_domain.registry import ListTriggerChanges, TriggerChange
from paracle_orchestrator.ports import Clock
from paracle_orchestrator.triggers.learning import learn
from paracle_orchestrator.triggers.ports import Trigger, TriggerStore

CHECK: Final = timedelta(seconds=30)
PRINCIPAL: Final = "orchestrator"
_TENANTS: Final = 100
_TIMEOUT_S: Final = 10.0

log = logging.getLogger(__name__)


class Follower:
    """Brings the store up to what the registry has."""

    def __init__(self, store: TriggerStore, bus: Bus, clock: Clock) -> None:
        self._store = store
        self._bus = bus
        self._clock = clock

    async def take_in(self, batch: Sequence[Delivery]) -> None:
        """Events of the registry: triggers of these tenants have changed."""
        await self.follow_all({delivery.tenant for delivery in batch})

    async def round(self) -> None:
        """Ask about every tenant that nobody has asked about for a while."""
        now = self._clock()
        while tenants := await self._store.unchecked(now, now - CHECK, _TENANTS):
            await self.follow_all(tenants)

    async def follow_all(self, tenants: Iterable[str]) -> None:
        await asyncio.gather(*map(self.follow, tenants))

    async def follow(self, tenant: str) -> None:
        """Take in all that changed.

        Raises
        ------
        Unavailable
            If the registry does not answer.
        """
        after, more = await self._store.version(tenant), True
        while more:
            try:
                answer = await self._bus.call(
                    ListTriggerChanges(after=after), Context(tenant, principal=PRINCIPAL), timeout_s=_TIMEOUT_S
                )
            except DeadlineExceeded as error:
                raise Unavailable(f"the registry does not answer: {error.message}") from error
            if answer.version > after:
                apply = partial(_learn, tenant)
                await self._store.learn(tenant, answer.changes, answer.version, self._clock(), apply)
            after, more = answer.version, answer.more

    async def follow_if_possible(self, tenant: str) -> bool:
        """As `follow`, if the registry is there; whether it is."""
        try:
            await self.follow(tenant)
        except Unavailable as error:
            log.warning("triggers may be out of date", extra={"tenant": tenant, "error": error.message})
            return False
        return True


def _learn(tenant: str, known: Trigger | None, change: TriggerChange) -> Trigger | None:
    return learn(known, change, tenant)
