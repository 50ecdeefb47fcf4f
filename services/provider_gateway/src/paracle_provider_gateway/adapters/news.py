"""What is broadcast of a tenant, heard before the question that counts on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Self

from paracle_chassis.inlet import Incoming
from paracle_chassis.link import Heard, Link
from paracle_domain import subjects

_KNOWN_WITHIN_S: Final = 10.0  # that the server knows of the subscription; on a busy machine it may take its time


class TenantNews:
    """Tells `hear` of which tenant something was broadcast: a resource of the service.

    Whoever changes something says so before he answers for it. What is asked then comes to this connection later, as a
    server sends in the order in which it got things, and is read in that order; so the change is heard first.

    Parameters
    ----------
    subject_of
        Where it is broadcast, of a tenant.
    """

    def __init__(self, link: Link, subject_of: Callable[[str], str], hear: Callable[[str], None]) -> None:
        self._link = link
        self._subject = subject_of(subjects.ANY)
        self._place = self._subject.split(".").index(subjects.ANY)
        self._tell = hear
        self._heard: Heard | None = None

    async def __aenter__(self) -> Self:
        self._heard = await self._link.hear(self._subject, self._hear)
        await self._link.check(_KNOWN_WITHIN_S)
        return self

    async def __aexit__(self, *_exc: object) -> None:
        if self._heard is not None:
            await self._heard.stop()

    def _hear(self, message: Incoming) -> None:
        self._tell(message.subject.split(".")[self._place])
