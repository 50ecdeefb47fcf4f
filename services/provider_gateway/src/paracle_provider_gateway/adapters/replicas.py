"""This process among the replicas of the gateway."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any, Final, Self

import asyncpg

from paracle_chassis.outages import is_outage
from paracle_chassis.postgres import Queries
from paracle_domain.errors import Unavailable

_log = logging.getLogger(__name__)
PATIENCE_S: Final = 2.5
"""Others wait for ten seconds: enough for the pause after a round that failed, and for one that hangs."""


class PostgresReplica:
    """A resource: says again and again that replica `id` is alive (`seen`), and on leaving that it went.

    It keeps one connection: when that breaks, PostgreSQL may have died, and its last moments with it (`is_in_doubt`).
    One that is silent is given up, and with it all others of the pool: a host that died closes none.
    After a crash no attempt is opened for anybody before every replica has said that it is in doubt no more (`steady`).
    """

    def __init__(self, pool: asyncpg.Pool, queries: Queries, id: str) -> None:
        self._pool = pool
        self._sql = queries
        self._connection: Any = None
        self.id = id
        self.is_in_doubt = False

    async def seen(self) -> None:
        """A sign of life.

        Raises
        ------
        Exception
            If PostgreSQL is away, or does not answer soon.
        """
        if self._connection is not None and not _is_open(self._connection):
            self.is_in_doubt = True
            await self._give_back()
        try:
            await self._say()
        except TimeoutError as error:
            if self._connection is not None:
                self._connection.terminate()
            await self._pool.expire_connections()
            raise Unavailable("PostgreSQL is silent") from error

    async def _say(self) -> None:
        if self._connection is None:
            self._connection = await self._pool.acquire(timeout=PATIENCE_S)
        await self._connection.execute(self._sql.seen, self.id, timeout=PATIENCE_S)
        if not self.is_in_doubt:
            await self._connection.execute(self._sql.steady, self.id, timeout=PATIENCE_S)

    async def __aenter__(self) -> Self:
        await self.seen()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        try:
            await self._pool.execute(self._sql.gone, self.id)
        except Exception as error:  # an outage has many types; all else is raised
            if not is_outage(error):
                raise
            _log.warning("could not say that this replica goes: %s", error)
        await self._give_back()

    async def _give_back(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        with suppress(asyncpg.InterfaceError):  # it broke, and the pool has taken it back itself
            await self._pool.release(connection)


def _is_open(connection: Any) -> bool:
    """Asked, and not heard from a termination listener: asyncpg may close a connection without telling those."""
    try:
        return not connection.is_closed()
    except asyncpg.InterfaceError:  # it broke, and the pool has taken it back itself
        return False
