"""What tenants had set up, in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import asyncpg
from pydantic import TypeAdapter

from paracle_chassis.postgres import Queries
from paracle_domain.registry import ProviderChange

_MANIFESTS: Final[TypeAdapter[tuple[ProviderChange, ...]]] = TypeAdapter(tuple[ProviderChange, ...])


class PostgresSetups:
    """`Setups` on the table of `migrations/`."""

    def __init__(self, pool: asyncpg.Pool, queries: Queries) -> None:
        self._pool = pool
        self._sql = queries

    async def kept(self, tenant: str) -> Sequence[ProviderChange] | None:
        """See `Setups.kept`."""
        found = await self._pool.fetchval(self._sql.setup_kept, tenant)
        return None if found is None else _MANIFESTS.validate_json(found)

    async def keep(self, tenant: str, version: int, manifests: Sequence[ProviderChange]) -> None:
        """See `Setups.keep`."""
        await self._pool.execute(self._sql.keep_setup, tenant, version, _MANIFESTS.dump_json(tuple(manifests)).decode())
