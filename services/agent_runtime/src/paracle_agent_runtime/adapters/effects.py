"""The list of effects in PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

import asyncpg

from paracle_chassis.postgres import Queries
from paracle_domain.cursors import read_cursor, write_cursor
from paracle_domain.ids import parse_id
from paracle_domain.task.effects import EffectPage, EffectView, ListEffects, ProbeView, Resolution
from paracle_domain.task.ledger import Entry


class PostgresEffects:
    """`Effects` on the table `effects`."""

    def __init__(self, pool: asyncpg.Pool[Any], queries: Queries) -> None:
        self._pool = pool
        self._queries = queries

    async def enter(self, entries: Sequence[tuple[str, Entry]]) -> None:
        """See `Effects.enter`. One statement cannot say two things of one row, so the last one counts."""
        latest: dict[tuple[str, str], Entry] = {}
        for tenant, entry in entries:
            name = (tenant, entry.view.key)
            if name not in latest or _order(latest[name]) < _order(entry):
                latest[name] = entry
        rows = [_row(tenant, entry) for (tenant, _), entry in latest.items()]
        if rows:
            await self._pool.execute(self._queries.enter_effects, *map(list, zip(*rows, strict=True)))

    async def get(self, tenant: str, key: str) -> EffectView | None:
        """See `Effects.get`."""
        row = await self._pool.fetchrow(self._queries.get_effect, tenant, key)
        return None if row is None else _view(row)

    async def page(self, query: ListEffects, tenant: str) -> EffectPage:
        """See `Effects.page`."""
        wanted = query.filter
        at, key = (None, None) if query.cursor is None else read_cursor(query.cursor, _place)
        rows = await self._pool.fetch(
            self._queries.list_effects,
            tenant,
            wanted.state,
            wanted.tool,
            wanted.run_id,
            wanted.since,
            wanted.until,
            at,
            key,
            query.limit + 1,
        )
        found = tuple(_view(row) for row in rows[: query.limit])
        return EffectPage(effects=found, next_cursor=_cursor(found[-1]) if len(rows) > query.limit else None)

    async def resolve(self, tenant: str, key: str, resolution: Resolution) -> bool:
        """See `Effects.resolve`."""
        arguments = (tenant, key, resolution.model_dump_json(), resolution.at)
        return await self._pool.fetchval(self._queries.resolve_effect, *arguments) is not None

    async def resolutions(self, tenant: str, keys: Collection[str]) -> Mapping[str, Resolution]:
        """See `Effects.resolutions`."""
        rows = await self._pool.fetch(self._queries.effect_resolutions, tenant, list(keys))
        return {row[0]: Resolution.model_validate_json(row[1]) for row in rows}

    async def doubtful(self, tenant: str, run_id: str, step: str) -> Sequence[EffectView]:
        """See `Effects.doubtful`."""
        return [_view(row) for row in await self._pool.fetch(self._queries.doubtful_effects, tenant, run_id, step)]


def _order(entry: Entry) -> tuple[int, int]:
    return entry.view.attempt, entry.seq


def _row(tenant: str, entry: Entry) -> tuple[object, ...]:
    view = entry.view
    return (
        tenant,
        view.key,
        view.run_id,
        view.step,
        view.attempt,
        view.task_id,
        view.call_id,
        entry.seq,
        entry.sent,
        view.scope,
        view.tool,
        view.revision,
        view.effect.value,
        view.arguments_digest,
        view.state.value,
        None if view.reason is None else json.dumps(view.reason),
        view.called,
        None if view.probe is None else view.probe.model_dump_json(),
        view.probe is not None and view.probe.open,
        view.changed_at,
    )


def _view(row: asyncpg.Record) -> EffectView:
    said, asked, found = row["reason"], row["probe"], row["resolution"]
    parts = {
        "reason": None if said is None else json.loads(said),
        "probe": None if asked is None else ProbeView.model_validate_json(asked),
        "resolution": None if found is None else Resolution.model_validate_json(found),
    }
    return EffectView.model_validate({**dict(row), **parts})


def _cursor(last: EffectView) -> str:
    return write_cursor(last.intended_at, last.key)


def _place(at: datetime, words: Sequence[str]) -> tuple[datetime, str]:
    (key,) = words
    return at, parse_id(key, "eff")
