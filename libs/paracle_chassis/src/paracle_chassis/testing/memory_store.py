"""An `EventStore` in memory, held to the same contract suite as the one on PostgreSQL."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from paracle_chassis.event_store import READ_BYTES, Append, Born, Due, Loaded, Page, Wake


class MemoryEventStore:
    """Actors in a dictionary, `actors`. `writes` counts the appends that wrote something."""

    def __init__(self) -> None:
        self.actors: dict[str, Loaded] = {}
        self.writes = 0

    async def load(self, ids: Collection[str], after: Mapping[str, int] | None = None) -> dict[str, Loaded]:
        """See `EventStore.load`."""
        seen = after or {}
        found = {name: self.actors[name] for name in ids if name in self.actors}
        return {
            name: replace(actor, pages=tuple(page for page in actor.pages if page.first_seq > seen.get(name, 0)))
            for name, actor in found.items()
        }

    async def read(self, id: str, after: int, limit: int) -> list[Page]:  # the field's name
        """See `EventStore.read`."""
        actor = self.actors.get(id)
        found: list[Page] = []
        size = 0
        for page in actor.pages if actor else ():
            if page.last_seq > after and len(found) <= limit and size < READ_BYTES:
                found.append(page)
                size += sum(map(len, page.events))
        return found

    async def append(self, appends: Sequence[Append]) -> set[str]:
        """See `EventStore.append`."""
        lost = {item.id for item in appends if not self._expected(item)}
        for item in appends:
            if item.id not in lost:
                self._write(item)
                self.writes += 1
        return lost

    def _expected(self, item: Append) -> bool:
        actor = self.actors.get(item.id)
        if actor is None:
            return item.expected == 0
        same = item.created_at in {None, actor.created_at}
        return item.expected > 0 and same and (actor.version, actor.tenant) == (item.expected, item.tenant)

    def _write(self, item: Append) -> None:
        before = self.actors.get(item.id)
        self.actors[item.id] = Loaded(
            id=item.id,
            tenant=item.tenant,
            version=item.version,
            status=item.status,
            wake_at=item.wake_at,
            facts=before.facts if before else dict(item.facts or {}),
            created_at=before.created_at if before else item.pages[0].at,
            finished_at=item.finished_at,
            pages=(*(before.pages if before else ()), *item.pages),
        )

    async def claim_due(self, now: datetime, again_at: datetime, limit: int) -> list[Due]:
        """See `EventStore.claim_due`."""
        waiting = [(actor.wake_at, actor) for actor in self.actors.values() if actor.wake_at is not None]
        due = sorted(((at, actor) for at, actor in waiting if at <= now), key=lambda item: item[0])[:limit]
        for _, actor in due:
            self.actors[actor.id] = replace(actor, wake_at=again_at)
        return [Due(actor.id, actor.tenant) for _, actor in due]

    async def born(self, since: datetime, after: str, until: datetime, limit: int) -> list[Born]:
        """See `EventStore.born`."""
        made = sorted((actor.created_at, actor.id, actor.tenant) for actor in self.actors.values())
        wanted = [one for one in made if (since, after) < one[:2] and one[0] < until]
        return [Born(name, tenant, at) for at, name, tenant in wanted[:limit]]

    async def reschedule(self, wakes: Sequence[Wake]) -> None:
        """See `EventStore.reschedule`."""
        for wake in wakes:
            actor = self.actors.get(wake.id)
            if actor is not None and actor.version == wake.version:
                self.actors[wake.id] = replace(actor, wake_at=wake.at)
