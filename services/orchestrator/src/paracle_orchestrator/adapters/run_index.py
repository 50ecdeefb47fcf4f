"""The list of runs in PostgreSQL, searched by whatever people look for.

A page is found by place (time and id), not by counting, so the last costs what the first does. Whatever was asked for
is looked up in the one index that leaves least to sift. Status, workflow and a label, or any of them, are an index of
their own each, so nothing is left; only with several labels, or children, are candidates read and left out, and then
at most `MOST_SIFTED` of them for a page.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, override

import asyncpg

from paracle_chassis.postgres import Queries
from paracle_domain.cursors import read_cursor, write_cursor
from paracle_domain.ids import parse_id
from paracle_domain.run.commands import RunFilter, RunPage, RunStatus, RunSummary

MOST_SIFTED: Final = 3_000
_FIRST_SIFTED: Final = 200
_COMMON: Final = 2_000
_ALL: Final = tuple(RunStatus)
_EVER: Final = datetime(1, 1, 1, tzinfo=UTC)
_NEVER: Final = datetime(9999, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run is in the order of lists."""

    at: datetime
    id: str

    @override
    def __str__(self) -> str:
        return write_cursor(self.at, self.id)

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
        (run_id,) = words
        return cls(at, parse_id(run_id, "run"))


@dataclass(frozen=True, slots=True)
class _Search:
    """The index to look in (a query of places and its own arguments), and how many places to look at at first."""

    places: str
    arguments: tuple[str | None, ...]
    size: int


class PostgresRunIndex:
    """`RunIndex` on the tables `runs` and `run_labels`."""

    def __init__(self, pool: asyncpg.Pool, queries: Queries, *, most_sifted: int = MOST_SIFTED) -> None:
        self._pool = pool
        self._queries = queries
        self._most_sifted = most_sifted

    async def page(self, tenant: str, wanted: RunFilter, limit: int, cursor: str | None = None) -> RunPage:
        """See `RunIndex.page`."""
        start = Place(wanted.created_before or _NEVER, "")
        if cursor is not None and (after := Place.parse(cursor)).at < start.at:
            start = after
        search = await self._search(tenant, wanted, limit + 1)
        found, rest = await self._find(tenant, wanted, search, start, limit + 1)
        if len(found) > limit:
            last = found[limit - 1]
            rest = Place(last.created_at, last.run_id)
        return RunPage(runs=tuple(found[:limit]), next_cursor=None if rest is None else str(rest))

    async def turns_before(self, tenant: str, run_id: str, last: int | None = None) -> list[str]:
        """See `RunIndex.turns_before`."""
        rows = await self._pool.fetch(self._queries["turns_before"], tenant, run_id, last)
        return [row["id"] for row in reversed(rows)]

    async def _search(self, tenant: str, wanted: RunFilter, first: int) -> _Search:
        sifting = min(max(first, _FIRST_SIFTED), self._most_sifted)
        if wanted.stuck:
            sifts = wanted.workflow is not None or wanted.labels
            return _Search("stuck_places", (wanted.parent,), sifting if sifts else first)
        if wanted.parent is not None:
            sifts = wanted.workflow is not None or wanted.labels
            return _Search("child_places", (wanted.parent,), sifting if sifts else first)
        if wanted.labels:
            label = await self._rarest(tenant, wanted)
            size = sifting if len(wanted.labels) > 1 else first
            if wanted.workflow is None:
                return _Search("label_places", label, size)
            return _Search("workflow_label_places", (*label, wanted.workflow), size)
        if wanted.workflow is not None:
            return _Search("workflow_places", (wanted.workflow,), first)
        return _Search("places", (), first)

    async def _rarest(self, tenant: str, wanted: RunFilter) -> tuple[str, str]:
        """The label of `wanted` that leaves least to sift."""
        keys, values = list(wanted.labels), list(wanted.labels.values())
        if len(keys) == 1:
            return keys[0], values[0]
        sql = self._queries["rarest_label"]
        row = await self._pool.fetchrow(sql, tenant, _statuses(wanted), keys, values, _COMMON)
        assert row is not None
        return row["key"], row["value"]

    async def _find(
        self, tenant: str, wanted: RunFilter, search: _Search, place: Place, number: int
    ) -> tuple[list[RunSummary], Place | None]:
        """At least `number` runs before `place`, unless there are no more; and where to go on if it rested."""
        sql = self._sql(search)
        labels = json.dumps(wanted.labels) if wanted.labels else None
        known = (tenant, _statuses(wanted), wanted.created_after or _EVER)
        found: list[RunSummary] = []
        sifted, size = 0, search.size
        while True:
            given = (*known, place.at, place.id, size, *search.arguments, wanted.workflow, labels)
            rows = await self._pool.fetch(sql, *given)
            found += [_summary(row) for row in rows if row["id"] is not None]
            looked_at = rows[0]["number"]
            if looked_at < size or len(found) >= number:
                return found, None
            sifted += looked_at
            place = Place(rows[0]["last_at"], rows[0]["last_id"])
            if sifted >= self._most_sifted:
                return found, place
            size = min(size * 4, self._most_sifted - sifted)

    def _sql(self, search: _Search) -> str:
        after = 7 + len(search.arguments)
        rows = self._queries["runs_at"].replace("$W", f"${after}").replace("$L", f"${after + 1}")
        places = self._queries[search.places].rstrip(";")
        return f"with place as materialized ({places}) {rows}"  # both are of queries.sql


def _statuses(wanted: RunFilter) -> list[str]:
    return [status.value for status in dict.fromkeys(wanted.statuses or _ALL)]


def _summary(row: asyncpg.Record) -> RunSummary:
    return RunSummary(
        run_id=row["id"],
        workflow=row["workflow"],
        revision=row["revision"],
        status=RunStatus(row["status"]),
        created_at=row["created_at"],
        finished_at=row["finished_at"],
        labels=json.loads(row["labels"]),
        plan=row["plan"],
        priority=row["priority"],
        parent=row["parent"],
        forked_from=row["forked_from"],
    )
