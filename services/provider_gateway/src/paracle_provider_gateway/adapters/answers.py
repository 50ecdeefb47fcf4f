"""Kept answers in PostgreSQL, for all replicas. Their age is told by its clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import asyncpg

from paracle_chassis.postgres import Queries
from paracle_provider_gateway.answers import AnswerKey, KeptAnswer


class PostgresAnswers:
    """An `AnswerStore` on the table `answers`; `clock` is that of this process."""

    def __init__(self, pool: asyncpg.Pool, queries: Queries, clock: Callable[[], float]) -> None:
        self._pool = pool
        self._sql = queries
        self._clock = clock

    async def find(self, keys: Sequence[AnswerKey]) -> Sequence[KeptAnswer | None]:
        now = self._clock()
        found: list[KeptAnswer | None] = [None] * len(keys)
        for row in await self._pool.fetch(self._sql.find_answers, *_columns(keys)):
            found[row["n"] - 1] = KeptAnswer(row["answer"], now - row["age_s"], now + row["left_s"])
        return found

    async def keep(self, answers: Sequence[tuple[AnswerKey, KeptAnswer]]) -> None:
        now = self._clock()
        kept = [answer for _, answer in answers]
        await self._pool.execute(
            self._sql.keep_answers,
            *_columns([key for key, _ in answers]),
            [answer.body for answer in kept],
            [now - answer.made_at for answer in kept],
            [answer.expires_at - now for answer in kept],
        )

    async def clear(self, tenant: str) -> int:
        dropped: int = await self._pool.fetchval(self._sql.clear_answers, tenant)
        return dropped


def _columns(keys: Sequence[AnswerKey]) -> tuple[list[str], list[bytes]]:
    return [key.tenant for key in keys], [key.question for key in keys]
