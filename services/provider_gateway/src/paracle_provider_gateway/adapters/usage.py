"""The usage ledger in PostgreSQL, read: added up by whatever people ask for, or attempt by attempt.

What is asked for is put together of the fragments below, never of what somebody sent; values are arguments. An index
by time holds the rows of a span together, so a day costs what the day has, whatever else is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Final, override

import asyncpg

from paracle_chassis.postgres import Queries
from paracle_domain.cursors import read_cursor, write_cursor
from paracle_domain.inference.ledger import (
    ListAttempts,
    Outcome,
    QueryUsage,
    Spend,
    UsageBy,
    UsageFilter,
    UsageRecord,
    UsageRecords,
    UsageRow,
    UsageTable,
)

_KEYS: Final[Mapping[UsageBy, str]] = {
    UsageBy.MODEL: "model",
    UsageBy.PROVIDER: "provider",
    UsageBy.DEPLOYMENT: "provider || '/' || model",
    UsageBy.AGENT: "agent",
    UsageBy.USER: "principal",
    UsageBy.PROJECT: "project",
    UsageBy.RUN: "run_id",
    UsageBy.TASK: "task_id",
    UsageBy.PARENT_TASK: "parent_task_id",
    UsageBy.DAY: "(at at time zone 'UTC')::date",
    UsageBy.HOUR: "date_trunc('hour', at at time zone 'UTC')",
    UsageBy.OUTCOME: "outcome",
}
_COLUMNS: Final[Mapping[str, str]] = {
    "since": "at >= {}::timestamptz",
    "until": "at < {}::timestamptz",
    "model": "model = {}",
    "provider": "provider = {}",
    "agent": "agent = {}",
    "user": "principal = {}",
    "project": "project = {}",
    "run_id": "run_id = {}",
    "task_id": "task_id = {}",
    "outcome": "outcome = {}",
}
_TIMES: Final = (UsageBy.DAY, UsageBy.HOUR)
_NEVER: Final = datetime(9999, 1, 1, tzinfo=UTC)
_LAST: Final = (_NEVER, "", 0)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A condition over the columns of attempts, and its arguments, of which $1 is the tenant."""

    condition: str
    arguments: list[Any]

    @classmethod
    def of(cls, tenant: str, asked: UsageFilter) -> _Wanted:
        arguments: list[Any] = [tenant]
        parts = ["tenant = $1"]
        for name, text in _COLUMNS.items():
            value = getattr(asked, name)
            if value is not None:
                arguments.append(value.value if isinstance(value, Outcome) else value)
                parts.append(text.format(f"${len(arguments)}"))
        return cls(" and ".join(parts), arguments)


@dataclass(frozen=True, slots=True)
class Place:
    """Where an attempt is in the order of lists."""

    at: datetime
    call_id: str
    serial: int

    @override
    def __str__(self) -> str:
        return write_cursor(self.at, self.call_id, str(self.serial))

    @classmethod
    def parse(cls, cursor: str) -> Place:
        """The place that a cursor stands for.

        Raises
        ------
        InvalidInput
            If it is none.
        """
        return read_cursor(cursor, cls._read)

    @classmethod
    def _read(cls, at: datetime, words: Sequence[str]) -> Place:
        call_id, number = words
        serial = int(number)
        if "\x00" in call_id or not 0 <= serial < 2**63:
            raise ValueError("PostgreSQL has no such text or number")
        return cls(at, call_id, serial)


class PostgresUsage:
    """`UsageShelf` on the tables `attempts` and `open_attempts`."""

    def __init__(self, pool: asyncpg.Pool, queries: Queries) -> None:
        self._pool = pool
        self._sql = queries

    async def table(self, tenant: str, asked: QueryUsage) -> UsageTable:
        """See `UsageShelf.table`."""
        wanted = _Wanted.of(tenant, asked)
        names = [f"k{place}" for place in range(len(asked.by))]
        keys = "".join(f"{_KEYS[by]} as {name}, " for by, name in zip(asked.by, names, strict=True))
        newest = [f"{name} desc" for by, name in zip(asked.by, names, strict=True) if by in _TIMES]
        statement = _filled(
            self._sql.usage,
            {
                "KEYS": keys,
                "GROUPS": ", ".join(names) or "()",
                "NAMES": "".join(f"{name}, " for name in names),
                "NOTHING": "".join(f"null as {name}, " for name in names),
                "WANTED": wanted.condition,
                "ORDER": "".join(f"{part}, " for part in newest),
                "REST": "".join(f", {name}" for name in names),
                "LIMIT": f"${len(wanted.arguments) + 1}",
            },
        )
        first, *rows = await self._pool.fetch(statement, *wanted.arguments, asked.limit + 1)
        shown = [_row(asked.by, row) for row in rows[: asked.limit]] if asked.by else []
        return UsageTable(rows=tuple(shown), total=_spend(first), more=len(rows) > asked.limit)

    async def records(self, tenant: str, asked: ListAttempts) -> UsageRecords:
        """See `UsageShelf.records`."""
        wanted = _Wanted.of(tenant, asked)
        at, call_id, serial = _LAST if asked.cursor is None else _tuple(Place.parse(asked.cursor))
        places = [f"${len(wanted.arguments) + place}" for place in range(1, 5)]
        statement = _filled(
            self._sql.attempts,
            {"WANTED": wanted.condition, "BEFORE": ", ".join(places[:3]), "LIMIT": places[3]},
        )
        rows = await self._pool.fetch(statement, *wanted.arguments, at, call_id, serial, asked.limit + 1)
        shown = rows[: asked.limit]
        rest = len(rows) > asked.limit
        cursor = str(Place(shown[-1]["at"], shown[-1]["call_id"], shown[-1]["serial"])) if rest else None
        return UsageRecords(records=tuple(map(_record, shown)), next_cursor=cursor)


def _filled(statement: str, parts: Mapping[str, str]) -> str:
    for name, text in parts.items():
        statement = statement.replace(f"/*{name}*/", text)
    return statement


def _tuple(place: Place) -> tuple[datetime, str, int]:
    return place.at, place.call_id, place.serial


def _row(kinds: tuple[UsageBy, ...], row: asyncpg.Record) -> UsageRow:
    return UsageRow(by=dict(_by(kinds, row)), spend=_spend(row))


def _by(kinds: tuple[UsageBy, ...], row: asyncpg.Record) -> Iterator[tuple[UsageBy, str]]:
    for place, kind in enumerate(kinds):
        value = row[f"k{place}"]
        if value is not None:
            yield kind, _text(value)


def _text(value: object) -> str:
    """A key as it is shown: an hour before a day, of which it is one, too."""
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%dT%H:00Z}"
    return value.isoformat() if isinstance(value, date) else str(value)


def _spend(row: asyncpg.Record) -> Spend:
    return Spend(
        attempts=row["n"],
        failed=row["failed"],
        open=row["open"],
        cached=row["cached"],
        input_tokens=row["input_tokens"],
        output_tokens=row["output_tokens"],
        cached_tokens=row["cached_tokens"],
        reasoning_tokens=row["reasoning_tokens"],
        cost_usd=_plain(row["cost_usd"]),
        unpriced=row["unpriced"],
        reserved_usd=_plain(row["reserved_usd"]),
        saved_usd=_plain(row["saved_usd"]),
        saved_tokens=row["saved_tokens"],
        latency_s=row["latency_s"],
        first_token_s=row["first_token_s"],
    )


def _plain(amount: Decimal) -> Decimal:
    """Without the zeros that PostgreSQL adds: 0.10 and 0.1 are the same amount, and are shown as one."""
    return amount.normalize() + 0 if amount else Decimal(0)


def _record(row: asyncpg.Record) -> UsageRecord:
    return UsageRecord(
        call_id=row["call_id"],
        number=row["number"],
        at=row["at"],
        provider=row["provider"],
        model=row["model"],
        outcome=Outcome(row["outcome"]),
        error=row["error"],
        agent=row["agent"],
        user=row["principal"],
        project=row["project"],
        run_id=row["run_id"],
        task_id=row["task_id"],
        parent_task_id=row["parent_task_id"],
        step=row["step"],
        input_tokens=row["input_tokens"],
        output_tokens=row["output_tokens"],
        cached_tokens=row["cached_tokens"],
        reasoning_tokens=row["reasoning_tokens"],
        cost_usd=row["cost_usd"],
        reserved_usd=row["reserved_usd"],
        saved_usd=row["saved_usd"],
        saved_tokens=row["saved_tokens"],
        latency_s=row["latency_s"],
        first_token_s=row["first_token_s"],
    )
