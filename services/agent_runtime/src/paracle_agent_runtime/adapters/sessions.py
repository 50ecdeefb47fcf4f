"""Sessions in PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

import asyncpg
from pydantic import TypeAdapter

from paracle_agent_runtime.ports import TURNS_TOLD, Ending, Letter, Stalled
from paracle_chassis.postgres import Queries
from paracle_domain.envelope import Envelope
from paracle_domain.inference.chat import ChatMessage
from paracle_domain.task.messages import Task
from paracle_domain.task.past import KeptTurn, Past, Recap, remembered
from paracle_domain.task.sessions import SessionSummary, SessionTurn

_MESSAGES: Final[TypeAdapter[tuple[ChatMessage, ...]]] = TypeAdapter(tuple[ChatMessage, ...])
_BEYOND: Final = 2**31 - 1  # a turn that comes after all others


class PostgresSessionBook:
    """`SessionBook` on the tables `sessions`, `session_turns` and `tasks`."""

    def __init__(self, pool: asyncpg.Pool[Any], queries: Queries) -> None:
        self._pool = pool
        self._queries = queries

    async def number(self, task_id: str) -> int | None:
        """See `SessionBook.number`."""
        found: int | None = await self._pool.fetchval(self._queries.known_turn, task_id)
        return found

    async def enter(self, tenant: str, session: str, task: Task) -> int:
        """See `SessionBook.enter`. Whoever is second to enter the same task finds it entered."""
        while True:
            known = await self.number(task.task_id)
            if known is None:
                enter = self._queries.enter_session
                known = await self._pool.fetchval(enter, tenant, session, task.task_id, task.run_id)
            if known is not None:
                return int(known)

    async def lacks(self, tenant: str, session: str, run_ids: Sequence[str]) -> str | None:
        """See `SessionBook.lacks`."""
        given = (tenant, session, list(run_ids), TURNS_TOLD)
        found: str | None = await self._pool.fetchval(self._queries.session_lacks, *given)
        return found

    async def waits(self, tenant: str, session: str, turn: int) -> bool:
        """See `SessionBook.waits`."""
        return bool(await self._pool.fetchval(self._queries.turn_waits, tenant, session, turn))

    async def set_aside(self, session: str, letter: Letter, waits_for: int | str) -> None:
        """See `SessionBook.set_aside`."""
        turn, after = (waits_for, None) if isinstance(waits_for, int) else (None, waits_for)
        task, headers = letter.task, json.dumps(letter.envelope.headers())
        place = (task.task_id, letter.tenant, session, task.run_id, turn, after)
        await self._pool.execute(self._queries.set_aside, *place, letter.pool, headers, task.encode().decode())

    async def release(self, tenant: str, task_id: str, run_id: str) -> Sequence[Letter]:
        """See `SessionBook.release`."""
        rows = await self._pool.fetch(self._queries.release_turns, tenant, task_id, run_id)
        return [_letter(row, tenant) for row in rows]

    async def stalled(self, limit: int) -> Sequence[Stalled]:
        """See `SessionBook.stalled`."""
        rows = await self._pool.fetch(self._queries.turns_stalled, limit)
        return [Stalled(row["session_id"], row["after_run"], _letter(row, row["tenant"])) for row in rows]

    async def called(self, task_id: str) -> None:
        """See `SessionBook.called`."""
        await self._pool.execute(self._queries.turn_called, task_id)

    async def past(self, tenant: str, session: str, turn: int) -> Past:
        """See `SessionBook.past`."""
        found = await self._pool.fetchrow(self._queries.recap_before, tenant, session, turn)
        recap = None if found is None else Recap.model_validate(dict(found))
        first = 1 if recap is None else recap.turn
        rows = await self._pool.fetch(self._queries.said_before, tenant, session, turn, first)
        return remembered(turn, [KeptTurn(row["turn"], _said(row), row["tokens"]) for row in rows], recap)

    async def sum_up(self, tenant: str, task_id: str, recap: Recap) -> None:
        """See `SessionBook.sum_up`."""
        await self._pool.execute(self._queries.keep_recap, task_id, tenant, *_columns(recap))

    async def end(self, tenant: str, task_id: str, ending: Ending) -> None:
        """See `SessionBook.end`."""
        text = _MESSAGES.dump_json(tuple(ending.messages), exclude_none=True).decode()
        columns = (None,) * 5 if ending.recap is None else _columns(ending.recap)
        await self._pool.execute(self._queries.end_turn, task_id, text, tenant, ending.tokens, *columns)


class PostgresSessionShelf:
    """`SessionShelf` on the tables `sessions`, `session_turns` and `tasks`."""

    def __init__(self, pool: asyncpg.Pool[Any], queries: Queries) -> None:
        self._pool = pool
        self._queries = queries

    async def list(self, tenant: str, cursor: str | None, limit: int) -> Sequence[SessionSummary]:
        """See `SessionShelf.list`."""
        return [
            _summary(row) for row in await self._pool.fetch(self._queries.list_sessions, tenant, cursor, None, limit)
        ]

    async def get(self, tenant: str, session: str) -> SessionSummary | None:
        """See `SessionShelf.get`."""
        row = await self._pool.fetchrow(self._queries.list_sessions, tenant, None, session, 1)
        return None if row is None else _summary(row)

    async def recap(self, tenant: str, session: str) -> Recap | None:
        """See `SessionShelf.recap`."""
        row = await self._pool.fetchrow(self._queries.recap_before, tenant, session, _BEYOND)
        return None if row is None else Recap.model_validate(dict(row))

    async def turns(self, tenant: str, session: str, after: int, limit: int) -> Sequence[SessionTurn]:
        """See `SessionShelf.turns`."""
        rows = await self._pool.fetch(self._queries.session_turns, tenant, session, after, limit)
        return [SessionTurn.model_validate(dict(row) | {"messages": _said(row)}) for row in rows]

    async def delete(self, tenant: str, session: str) -> bool:
        """See `SessionShelf.delete`."""
        return await self._pool.fetchval(self._queries.delete_session, tenant, session) is not None


def _letter(row: asyncpg.Record, tenant: str) -> Letter:
    headers = json.loads(row["headers"])
    envelope = Envelope.read(headers, tenant=tenant, default_id="", default_type=Task.type_name)
    return Letter(row["pool"], Task.model_validate_json(row["task"]), envelope, row["turn"])


def _columns(recap: Recap) -> tuple[int, int, int, str, str]:
    return recap.turn, recap.question, recap.resume, recap.summary, recap.model


def _summary(row: asyncpg.Record) -> SessionSummary:
    return SessionSummary.model_validate({"session_id": row["id"], **row})


def _said(row: asyncpg.Record) -> tuple[ChatMessage, ...]:
    return _MESSAGES.validate_json(row["messages"])
