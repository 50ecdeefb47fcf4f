"""The registry, asked over the bus."""

from __future__ import annotations

from typing import Final

from paracle_chassis.bus import Bus
from paracle_domain.envelope import Context
from paracle_domain.registry import ListProviderChanges, ProviderChanges

PRINCIPAL: Final = "provider_gateway"
_TIMEOUT_S: Final = 5.0


class BusRegistry:
    """`Registry` over the bus."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def changes(self, tenant: str, after: int) -> ProviderChanges:
        asker = Context(tenant, principal=PRINCIPAL)
        return await self._bus.call(ListProviderChanges(after=after), asker, timeout_s=_TIMEOUT_S)
