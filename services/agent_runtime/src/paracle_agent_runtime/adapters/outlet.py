"""The progress of tools and summaries on its way to watchers, over the bus."""

from __future__ import annotations

import logging

from paracle_chassis.bus import Bus, outgoing
from paracle_domain import subjects
from paracle_domain.envelope import Context
from paracle_domain.errors import Unavailable
from paracle_domain.task.output import Progress

_log = logging.getLogger(__name__)


class BusOutlet:
    """Broadcasts on `out.{task_id}`. Nobody waits for it to arrive: what NATS does not take now is dropped."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def say(self, task_id: str, progress: Progress, context: Context) -> None:
        subject = subjects.out(context.tenant, task_id)
        message = outgoing(subject, progress, context, source="paracle/agent_runtime", id=progress.message_id)
        try:
            await self._bus.broadcast(message)
        except Unavailable as error:
            _log.debug("progress %s is dropped: %s", progress.message_id, error)
