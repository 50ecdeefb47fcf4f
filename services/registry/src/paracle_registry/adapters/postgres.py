"""Revisions in PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final

import asyncpg

from paracle_chassis.postgres import Queries
from paracle_domain.registry import Kind
from paracle_registry.ports import Edit, Revision

_COLUMNS: Final = ("kind", "name", "revision", "manifest", "digest", "author", "created_at", "version", "deleted")


class PostgresSpecStore:
    """A `SpecStore` on the table of `migrations/`."""

    def __init__(self, pool: asyncpg.Pool, queries: Queries) -> None:
        self._pool = pool
        self._sql = queries

    async def changes(self, tenant: str, after: int) -> Sequence[Revision]:
        """See `SpecStore.changes`."""
        return _revisions(await self._pool.fetch(self._sql["changes"], tenant, after))

    async def get(self, tenant: str, kind: Kind, name: str, revision: int) -> Revision | None:
        """See `SpecStore.get`."""
        row = await self._pool.fetchrow(self._sql["get"], tenant, kind, name, revision)
        return None if row is None else _revision(row)

    async def history(self, tenant: str, kind: Kind, name: str, before: int | None, limit: int) -> Sequence[Revision]:
        """See `SpecStore.history`."""
        return _revisions(await self._pool.fetch(self._sql["history"], tenant, kind, name, before, limit))

    @asynccontextmanager
    async def edit(self, tenant: str) -> AsyncIterator[Edit]:
        """See `SpecStore.edit`."""
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(self._sql["lock_tenant"], tenant)
            yield _PostgresEdit(connection, self._sql, tenant)

    async def unpublished(self, limit: int) -> Sequence[tuple[str, Revision]]:
        """See `SpecStore.unpublished`."""
        rows = await self._pool.fetch(self._sql["unpublished"], limit)
        return [(row["tenant"], _revision(row)) for row in rows]

    async def mark_published(self, published: Sequence[tuple[str, Revision]]) -> None:
        """See `SpecStore.mark_published`."""
        keys = [(tenant, item.kind, item.name, item.revision) for tenant, item in published]
        await self._pool.execute(self._sql["mark_published"], *map(list, zip(*keys, strict=True)))

    async def mark_unpublished(self, since: datetime) -> None:
        """See `SpecStore.mark_unpublished`."""
        await self._pool.execute(self._sql["mark_unpublished"], since)


class _PostgresEdit:
    """An apply within its transaction."""

    def __init__(self, connection: Any, queries: Queries, tenant: str) -> None:
        self._connection = connection
        self._sql = queries
        self._tenant = tenant

    async def changes(self, after: int) -> Sequence[Revision]:
        return _revisions(await self._connection.fetch(self._sql["changes"], self._tenant, after))

    async def add(self, revisions: Sequence[Revision]) -> None:
        columns = {name: [getattr(item, name) for item in revisions] for name in _COLUMNS}
        columns["manifest"] = [json.dumps(item.manifest, ensure_ascii=False) for item in revisions]
        await self._connection.execute(self._sql["add"], self._tenant, *columns.values())


def _revisions(rows: Sequence[asyncpg.Record]) -> list[Revision]:
    return [_revision(row) for row in rows]


def _revision(row: asyncpg.Record) -> Revision:
    return Revision(**{**{name: row[name] for name in _COLUMNS}, "manifest": json.loads(row["manifest"])})
