"""Dead letters in PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime

import asyncpg

from paracle_chassis.dead_letters import Letter
from paracle_chassis.postgres import Queries
from paracle_domain.dead_letters import DeadLetter, DeadLetterFilter
from paracle_observability.adapters.postgres import columns_of
from paracle_observability.ports import Place
from paracle_observability.projections import EventRow


class PostgresShelf:
    """A `Shelf` on the table `dead_letter`."""

    def __init__(self, pool: asyncpg.Pool, queries: Queries) -> None:
        self._pool = pool
        self._sql = queries

    async def keep(self, letters: Sequence[Letter]) -> int:
        """See `Shelf.keep`."""
        if not letters:
            return 0
        rows = [_row(letter) for letter in {letter.about.id: letter for letter in letters}.values()]
        done = await self._pool.execute(self._sql["keep_dead_letters"], *map(list, zip(*rows, strict=True)))
        return int(done.rpartition(" ")[2])

    async def newest(self, tenant: str, which: DeadLetterFilter, before: Place | None, limit: int) -> list[DeadLetter]:
        """See `Shelf.newest`."""
        return await self._page("newest_dead_letters", tenant, which, before, limit)

    async def oldest(self, tenant: str, which: DeadLetterFilter, after: Place | None, limit: int) -> list[DeadLetter]:
        """See `Shelf.oldest`."""
        return await self._page("oldest_dead_letters", tenant, which, after, limit)

    async def _page(
        self, query: str, tenant: str, which: DeadLetterFilter, place: Place | None, limit: int
    ) -> list[DeadLetter]:
        rows = await self._pool.fetch(
            self._sql[query],
            tenant,
            which.service,
            which.code,
            which.run_id,
            which.since,
            which.until,
            place and place.at,
            place and place.id,
            limit,
        )
        return [DeadLetter.model_validate_json(row["about"]) for row in rows]

    async def get(self, tenant: str, id: str) -> Letter | None:
        """See `Shelf.get`."""
        row = await self._pool.fetchrow(self._sql["get_dead_letter"], tenant, id)
        if row is None:
            return None
        about = DeadLetter.model_validate_json(row["about"])
        return Letter(tenant, about, json.loads(row["headers"]), row["body"], row["place"], row["told"])

    async def remove(self, tenant: str, id: str, event: EventRow) -> bool:
        """See `Shelf.remove`."""
        async with self._pool.acquire() as connection, connection.transaction():
            if await connection.fetchval(self._sql["remove_dead_letter"], tenant, id) is None:
                return False
            await connection.fetchval(self._sql["store"], *columns_of([event]), "[]")
            return True

    async def older(self, before: datetime, limit: int) -> list[tuple[str, str]]:
        """See `Shelf.older`."""
        rows = await self._pool.fetch(self._sql["expired_dead_letters"], before, limit)
        return [(row["tenant"], row["id"]) for row in rows]


def _row(letter: Letter) -> tuple[object, ...]:
    about = letter.about
    return (
        letter.tenant,
        about.id,
        about.at,
        about.service,
        about.code,
        about.run_id,
        letter.place,
        letter.told,
        about.model_dump_json(exclude_none=True),
        json.dumps(dict(letter.headers)),
        letter.body,
    )
