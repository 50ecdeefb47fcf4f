"""Deltas on their way to watchers, over the bus."""

from __future__ import annotations

from paracle_chassis.bus import Bus, outgoing
from paracle_domain import subjects
from paracle_domain.envelope import Context
from paracle_domain.inference.deltas import Delta


class BusOutlet:
    """Broadcasts deltas on `out.{task_id}`.

    They are not acknowledged: the answer of the call has all of them again, so one that is lost costs a watcher a
    moment, while waiting for each would slow the reply down.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def publish(self, task_id: str, delta: Delta, context: Context) -> None:
        subject = subjects.out(context.tenant, task_id)
        await self._bus.broadcast(
            outgoing(subject, delta, context, source="paracle/provider_gateway", id=delta.message_id)
        )
