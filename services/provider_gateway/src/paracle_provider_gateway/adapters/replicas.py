"""This process among the replicas of the gateway."""

from __future__ import annotations

import logging
from typing import Final, Self

import asyncpg

from paracle_chassis.outages import is_outage
from paracle_chassis.postgres import Queries

_log = logging.getLogger(__name__)

SEEN_EVERY_S: Final = 5.0


class PostgresReplica:
    """A resource: says again and again that replica `id` is alive (`seen`), and on leaving that it went."""

    def __init__(self, pool: asyncpg.Pool, queries: Queries, id: str) -> None:
        self._pool = pool
        self._sql = queries
        self.id = id

    async def seen(self) -> None:
        """A round of a `Background`."""
        await self._pool.execute(self._sql.seen, self.id)

    async def __aenter__(self) -> Self:
        await self.seen()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        try:
            await self._pool.execute(self._sql.gone, self.id)
        except Exception as error:
            if not is_outage(error):
                raise
            _log.warning("could not say that this replica goes: %s", error)
