"""What the registry needs of the world: a place for revisions, and someone to tell about them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from paracle_domain.messages import JsonObject
from paracle_domain.registry import Kind


@dataclass(frozen=True, slots=True)
class Revision:
    """A manifest as it was at one time. `version` is the number of the apply (per tenant) that made it.

    A `deleted` one says that there is no such manifest any more; it has none itself.
    """

    kind: Kind
    name: str
    revision: int
    manifest: JsonObject
    digest: str
    author: str
    created_at: datetime
    version: int
    deleted: bool = False


class Edit(Protocol):
    """An apply under way; no other apply of the tenant is. What it adds is there once it ends well, or not at all."""

    async def changes(self, after: int) -> Sequence[Revision]:
        """As `SpecStore.changes`."""
        ...

    async def add(self, revisions: Sequence[Revision]) -> None:
        """Keep these new revisions."""
        ...


class SpecStore(Protocol):
    """Revisions of manifests, immutable, by tenant."""

    async def changes(self, tenant: str, after: int) -> Sequence[Revision]:
        """The newest revision of everything that changed after version `after`, older versions first."""
        ...

    async def get(self, tenant: str, kind: Kind, name: str, revision: int) -> Revision | None:
        """One revision."""
        ...

    async def history(self, tenant: str, kind: Kind, name: str, before: int | None, limit: int) -> Sequence[Revision]:
        """Up to `limit` revisions, newest first, older than `before` if that is given."""
        ...

    def edit(self, tenant: str) -> AbstractAsyncContextManager[Edit]:
        """Begin an apply; it waits for others of the same tenant to end."""
        ...

    async def unpublished(self, limit: int) -> Sequence[tuple[str, Revision]]:
        """Revisions (with their tenants) whose events may not be out yet, oldest first."""
        ...

    async def mark_published(self, published: Sequence[tuple[str, Revision]]) -> None:
        """The events of these are out."""
        ...

    async def mark_unpublished(self, since: datetime) -> None:
        """The events of revisions made at `since` or later may be lost."""
        ...


class Announcer(Protocol):
    """Tells the world about new revisions; those it has told of already it may be given again."""

    async def announce(self, revisions: Sequence[tuple[str, Revision]]) -> None:
        """Publish an event for each revision (with its tenant); all are stored on return."""
        ...
