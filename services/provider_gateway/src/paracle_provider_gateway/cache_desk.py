"""Use cases: a tenant's kept answers are dropped, at every replica."""

from __future__ import annotations

from paracle_chassis.bus import Bus, outgoing
from paracle_chassis.outages import as_unavailable
from paracle_domain.envelope import Context
from paracle_domain.inference.caching import CacheCleared, ClearCache, cleared_subject
from paracle_provider_gateway.answer_shelf import AnswerShelf

_AWAY = "the provider gateway cannot reach PostgreSQL, where answers are kept; ask again"


class CacheDesk:
    """Drops answers: each tenant its own."""

    def __init__(self, shelf: AnswerShelf, bus: Bus) -> None:
        self._shelf = shelf
        self._bus = bus

    async def clear_cache(self, _request: ClearCache, context: Context) -> CacheCleared:
        """Those of the store, then those that replicas have in memory: each hears of it before the next question."""
        with as_unavailable(_AWAY):
            cleared = CacheCleared(answers=await self._shelf.clear(context.tenant))
        subject = cleared_subject(context.tenant)
        await self._bus.broadcast(outgoing(subject, cleared, context, source="paracle/provider_gateway"))
        return cleared
