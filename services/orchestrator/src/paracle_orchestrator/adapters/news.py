"""Whether what the registry said may have changed since: heard on the very connection on which commands come.

A server sends what it has for one connection in the order in which it got it. The registry tells of a change before it
answers whoever made it. So of somebody who makes one, is answered, and then starts a run, the change is heard here
before the start. This holds for one server: in a cluster, where the two may go different ways, nothing is remembered.
"""

from __future__ import annotations

from typing import Final, Self

from paracle_chassis.inlet import Incoming
from paracle_chassis.link import Heard, Link
from paracle_domain import subjects
from paracle_domain.registry import changed_subject

# The second one is for a registry that died between a commit and its word: its outbox tells of it later.
_HEARD = (changed_subject(subjects.ANY), subjects.evt(subjects.ANY, subjects.ANY, subjects.ANY, "revised"))
_KNOWN_WITHIN_S: Final = 10.0  # that the server knows of the subscriptions; on a busy machine it may take its time


class RegistryNews:
    """`News` on the service's connection: a resource of the service."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._changes = 0
        self._heard: list[Heard] = []

    async def __aenter__(self) -> Self:
        for subject in _HEARD:
            self._heard.append(await self._link.hear(subject, self._hear))
        await self._link.check(_KNOWN_WITHIN_S)
        return self

    async def __aexit__(self, *_exc: object) -> None:
        heard, self._heard = self._heard, []
        for each in heard:
            await each.stop()

    def _hear(self, _: Incoming) -> None:
        self._changes += 1

    @property
    def age(self) -> tuple[int, int] | None:
        """See `News.age`. What was told while the connection was broken is not heard, so a new one is a new age."""
        if not self._heard or self._link.durability.replicas > 1 or not self._link.connected:
            return None
        return (self._link.connections, self._changes)
