"""The registry, over the bus: asked for changes, and heard when it tells of one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Self

from paracle_chassis.bus import Bus
from paracle_chassis.inlet import Incoming
from paracle_chassis.link import Heard, Link
from paracle_domain import subjects
from paracle_domain.envelope import Context
from paracle_domain.registry import ListProviderChanges, ProviderChanges, changed_subject

PRINCIPAL: Final = "provider_gateway"
_TIMEOUT_S: Final = 5.0
_KNOWN_WITHIN_S: Final = 10.0  # that the server knows of the subscription; on a busy machine it may take its time
_TENANT: Final = changed_subject(subjects.ANY).split(".").index(subjects.ANY)


class BusRegistry:
    """`Registry` over the bus."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def changes(self, tenant: str, after: int) -> ProviderChanges:
        asker = Context(tenant, principal=PRINCIPAL)
        return await self._bus.call(ListProviderChanges(after=after), asker, timeout_s=_TIMEOUT_S)


class RegistryNews:
    """Tells `hear` whose manifests changed: a resource of the service.

    The registry says so before it answers whoever applies something. What he asks then comes to this connection later,
    as a server sends in the order in which it got things; so the change is heard before the call that counts on it.
    """

    def __init__(self, link: Link, hear: Callable[[str], None]) -> None:
        self._link = link
        self._tell = hear
        self._heard: Heard | None = None

    async def __aenter__(self) -> Self:
        self._heard = await self._link.hear(changed_subject(subjects.ANY), self._hear)
        await self._link.check(_KNOWN_WITHIN_S)
        return self

    async def __aexit__(self, *_exc: object) -> None:
        if self._heard is not None:
            await self._heard.stop()

    def _hear(self, message: Incoming) -> None:
        self._tell(message.subject.split(".")[_TENANT])
