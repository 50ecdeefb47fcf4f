"""Who may go on next, where not all can at once."""

from __future__ import annotations

import asyncio

from paracle_domain.inference.request import Priority
from paracle_provider_gateway.fairness import FairQueue


class Admission:
    """At most `slots` at once; who waits gets the next slot in turns that are fair between tenants."""

    def __init__(self, slots: int) -> None:
        self._slots = self._free = slots
        self._queue = FairQueue[asyncio.Future[None]]()

    @property
    def idle(self) -> bool:
        """Whether nobody has a slot."""
        return self._free == self._slots

    async def enter(self, tenant: str, priority: Priority) -> None:
        """Take a slot, once there is one; `leave` gives it back."""
        if self._free:
            self._free -= 1
            return
        slot = asyncio.get_running_loop().create_future()
        ticket = self._queue.push(tenant, priority, slot)
        try:
            await slot
        except asyncio.CancelledError:
            if slot.cancelled():
                self._queue.discard(ticket)
            else:
                self.leave()  # it had just been given
            raise

    def leave(self) -> None:
        """Hand the slot to whose turn it is."""
        while self._queue:
            slot = self._queue.pop()
            if not slot.done():  # its caller may have gone away a moment ago
                slot.set_result(None)
                return
        self._free += 1
