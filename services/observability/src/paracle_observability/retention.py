"""What is told of an entity is dropped when its time is over: in small batches, by whichever replica comes to it.

An entity goes whole, a while after its last event, so that no history is left with a hole; a run or a task must have
ended. The pause after a batch is as long as the batch took, so that what comes in is not held up.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Protocol

from paracle_observability import telemetry

ENTITIES: Final = 200

log = logging.getLogger(__name__)


class AuditRetention(Protocol):
    """Where audited entities are dropped from."""

    async def tenants(self) -> list[str]:
        """Tenants of which anything is told."""
        ...

    async def drop(self, tenant: str, before: datetime, most: int) -> int:
        """Drop the entities that have been silent since `before`, longest first, at most so many; how many."""
        ...


@dataclass(frozen=True, slots=True)
class Keeping:
    """How long what is told is kept, in seconds; `None`: for ever."""

    for_s: float | None = None
    of_tenant: Mapping[str, float | None] = field(default_factory=dict)

    def silent_before(self, tenant: str, now: datetime) -> datetime | None:
        """Entities of `tenant` that have been silent since then are to go; `None`: none of them."""
        keep_s = self.of_tenant.get(tenant, self.for_s)
        return None if keep_s is None else now - timedelta(seconds=keep_s)


class AuditPurger:
    """Drops what is due. `round` is for a `Background`."""

    def __init__(
        self, retention: AuditRetention, keeping: Keeping, clock: Callable[[], datetime], *, every_s: float
    ) -> None:
        self._retention = retention
        self._keeping = keeping
        self._clock = clock
        self._every_s = every_s

    async def round(self) -> float:
        """Drop a batch of each tenant; the seconds until the next round."""
        began = time.monotonic()
        dropped = 0
        for tenant in await self._retention.tenants():
            before = self._keeping.silent_before(tenant, self._clock())
            if before is not None:
                dropped += await self._retention.drop(tenant, before, ENTITIES)
        if not dropped:
            return self._every_s
        telemetry.DROPPED.add(dropped)
        log.info("dropped what was told of entities whose time was over", extra={"entities": dropped})
        return time.monotonic() - began
