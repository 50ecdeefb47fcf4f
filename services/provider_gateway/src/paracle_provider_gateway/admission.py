"""Who may go on next, where not all can at once."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from paracle_domain.inference.request import Priority
from paracle_provider_gateway.fairness import FairQueue

_TO_ONE_FREE: Final = 3
_SMALL: Final = 1 / 8
_LATELY_S: Final = 60.0


class Admission:
    """At most `slots` at once; who waits gets the next slot in turns that are fair between tenants.

    Turns alone do not keep a tenant's calls short: where another one has every slot, they wait till one of its calls
    ends. So while there are others, a tenant that has many slots gets no more than three for each that stays free: a
    flood leaves a quarter of them, and whoever has none finds one. Source: Choudhury and Hahne, Dynamic Queue Length
    Thresholds, 1998. Who has less than an eighth of all takes nothing from anybody, and is not held back.
    """

    def __init__(self, slots: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._slots = self._free = slots
        self._held = Counter[str]()
        self._queue = FairQueue[tuple[str, asyncio.Future[None]]]()
        self._latest: tuple[str, float] | None = None
        self._other: tuple[str, float] | None = None  # the latest that is not of that tenant

    @property
    def idle(self) -> bool:
        """Whether nobody has a slot."""
        return self._free == self._slots

    async def enter(self, tenant: str, priority: Priority) -> None:
        """Take a slot, once there is one; `leave` gives it back."""
        self._see(tenant)
        if self._may_have(tenant):
            self._take(tenant)
            return
        slot = asyncio.get_running_loop().create_future()
        ticket = self._queue.push(tenant, priority, (tenant, slot))
        try:
            await slot
        except asyncio.CancelledError:
            if slot.cancelled():
                self._queue.discard(ticket)
            else:
                self.leave(tenant)  # it had just been given
            raise

    def leave(self, tenant: str) -> None:
        """Give a slot back; it goes to whose turn it is."""
        self._free += 1
        self._held[tenant] -= 1
        if not self._held[tenant]:
            del self._held[tenant]
        while self._queue and (found := self._queue.pop(self._may_have)) is not None:
            next_one, slot = found
            if not slot.done():  # its caller may have gone away a moment ago
                self._take(next_one)
                slot.set_result(None)

    def _take(self, tenant: str) -> None:
        self._free -= 1
        self._held[tenant] += 1

    def _may_have(self, tenant: str) -> bool:
        held = self._held[tenant]
        few = held < self._slots * _SMALL or held < self._free * _TO_ONE_FREE
        return self._free > 0 and (few or not self._has_company(tenant))

    def _see(self, tenant: str) -> None:
        if self._latest is not None and self._latest[0] != tenant:
            self._other = self._latest
        self._latest = tenant, self._clock()

    def _has_company(self, tenant: str) -> bool:
        """Whether another tenant has asked lately."""
        latest = self._latest if self._latest is not None and self._latest[0] != tenant else self._other
        return latest is not None and latest[1] > self._clock() - _LATELY_S
