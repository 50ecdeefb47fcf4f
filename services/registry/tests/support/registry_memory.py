"""A `SpecStore` in memory, held to the same contract as the one on PostgreSQL."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime

from paracle_domain.registry import Kind
from paracle_registry.ports import Edit, Revision


class MemorySpecStore:
    def __init__(self) -> None:
        self.rows: dict[tuple[str, Kind, str, int], Revision] = {}
        self.told: set[tuple[str, Kind, str, int]] = set()
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def changes(self, tenant: str, after: int) -> Sequence[Revision]:
        newest: dict[tuple[str, str], Revision] = {}
        for (owner, *_), row in sorted(self.rows.items()):
            if owner == tenant and row.version > after:
                newest[row.kind, row.name] = row
        return sorted(newest.values(), key=lambda row: (row.version, row.kind, row.name))

    async def get(self, tenant: str, kind: Kind, name: str, revision: int) -> Revision | None:
        return self.rows.get((tenant, kind, name, revision))

    async def history(self, tenant: str, kind: Kind, name: str, before: int | None, limit: int) -> Sequence[Revision]:
        found = [row for key, row in self.rows.items() if key[:3] == (tenant, kind, name)]
        found = [row for row in found if before is None or row.revision < before]
        return sorted(found, key=lambda row: -row.revision)[:limit]

    @asynccontextmanager
    async def edit(self, tenant: str) -> AsyncIterator[Edit]:
        async with self._locks[tenant]:
            edit = _MemoryEdit(self, tenant)
            yield edit
            for row in edit.added:
                self.rows[tenant, row.kind, row.name, row.revision] = row

    async def unpublished(self, limit: int) -> Sequence[tuple[str, Revision]]:
        waiting = [(key[0], row) for key, row in self.rows.items() if key not in self.told]
        return sorted(waiting, key=lambda item: (item[1].created_at, item[0], item[1].version))[:limit]

    async def mark_published(self, published: Sequence[tuple[str, Revision]]) -> None:
        self.told |= {(tenant, row.kind, row.name, row.revision) for tenant, row in published}

    async def mark_unpublished(self, since: datetime) -> None:
        self.told -= {key for key, row in self.rows.items() if row.created_at >= since}


class _MemoryEdit:
    def __init__(self, store: MemorySpecStore, tenant: str) -> None:
        self.store = store
        self.tenant = tenant
        self.added: list[Revision] = []

    async def changes(self, after: int) -> Sequence[Revision]:
        return await self.store.changes(self.tenant, after)

    async def add(self, revisions: Sequence[Revision]) -> None:
        self.added += revisions
