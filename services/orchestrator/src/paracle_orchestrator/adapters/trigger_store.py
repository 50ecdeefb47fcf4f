"""Triggers in PostgreSQL."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

import asyncpg

from paracle_chassis.postgres import Queries
from paracle_domain.errors import ErrorInfo
from paracle_domain.registry import TriggerChange
from paracle_domain.run.commands import RunStatus, StartRun
from paracle_domain.trigger.commands import Cause, FireStatus, TriggerCounts, TriggerRun
from paracle_domain.trigger.spec import TriggerSpec
from paracle_orchestrator.triggers.ports import (
    Decide,
    Edit,
    Learn,
    MessageKey,
    Start,
    Trigger,
    TriggerKey,
)

KEPT_STARTS: Final = 50
_TIDY_LIMIT: Final = 5_000

type Connection = Any


class PostgresTriggerStore:
    """`TriggerStore` on the tables of `004_triggers.sql`."""

    def __init__(self, pool: asyncpg.Pool, queries: Queries) -> None:
        self._pool = pool
        self._sql = queries

    async def version(self, tenant: str) -> int:
        """See `TriggerStore.version`."""
        return await self._pool.fetchval(self._sql["trigger_version"], tenant) or 0

    async def learn(
        self, tenant: str, changes: Sequence[TriggerChange], version: int, now: datetime, learn: Learn
    ) -> None:
        """See `TriggerStore.learn`."""
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(self._sql["lock_learning"], tenant)
            for change in sorted(changes, key=lambda change: change.name):  # rows are locked in one order everywhere
                row = await connection.fetchrow(self._sql["lock_trigger"], tenant, change.name)
                known = None if row is None else _trigger(row)
                found = learn(known, change)
                if found is not None and known is not None and known.deleted:
                    await connection.execute(self._sql["forget_trigger"], tenant, change.name)
                if found is not None:
                    await self._put(connection, found)
            await connection.execute(self._sql["put_trigger_version"], tenant, version, now)

    async def unchecked(self, now: datetime, before: datetime, limit: int) -> Sequence[str]:
        """See `TriggerStore.unchecked`."""
        rows = await self._pool.fetch(self._sql["unchecked_tenants"], now, before, limit)
        return [row["tenant"] for row in rows]

    async def get(self, tenant: str, name: str) -> Trigger | None:
        """See `TriggerStore.get`."""
        row = await self._pool.fetchrow(self._sql["get_trigger"], tenant, name)
        return None if row is None else _trigger(row)

    async def page(self, tenant: str, after: str, limit: int) -> Sequence[Trigger]:
        """See `TriggerStore.page`."""
        return list(map(_trigger, await self._pool.fetch(self._sql["list_triggers"], tenant, after, limit)))

    async def on_messages(self, tenants: Sequence[str]) -> Sequence[Trigger]:
        """See `TriggerStore.on_messages`."""
        return list(map(_trigger, await self._pool.fetch(self._sql["triggers_on_messages"], list(tenants))))

    async def change(self, tenant: str, name: str, edit: Edit) -> Trigger | None:
        """See `TriggerStore.change`."""
        async with self._pool.acquire() as connection, connection.transaction():
            row = await connection.fetchrow(self._sql["lock_trigger"], tenant, name)
            if row is None or row["deleted"]:
                return None
            changed = edit(_trigger(row))
            await self._put(connection, changed)
            return changed

    async def decide_due(self, now: datetime, limit: int, decide: Decide) -> int:
        """See `TriggerStore.decide_due`."""
        async with self._pool.acquire() as connection, connection.transaction():
            due = list(map(_trigger, await connection.fetch(self._sql["due_triggers"], now, limit)))
            if not due:
                return 0
            under_way = await self._under_way(connection, due)
            for trigger in due:
                decided = decide(trigger, under_way[trigger.key])
                await self._put(connection, decided.trigger)
                for start in decided.starts:
                    await self._add(connection, start, now)
            return len(due)

    async def _under_way(
        self, connection: Connection, triggers: Iterable[Trigger]
    ) -> Mapping[TriggerKey, Sequence[str]]:
        found: defaultdict[TriggerKey, list[str]] = defaultdict(list)
        tenants, names = zip(*(trigger.key for trigger in triggers), strict=True)
        rows = await connection.fetch(self._sql["open_starts"], tenants, names)
        for row in rows:
            if row["under_way"]:
                found[row["tenant"], row["trigger"]].append(row["run_id"])
        if ended := [row["run_id"] for row in rows if not row["under_way"]]:
            await connection.execute(self._sql["close_starts"], ended)
        return found

    async def soonest(self) -> datetime | None:
        """See `TriggerStore.soonest`."""
        found: datetime | None = await self._pool.fetchval(self._sql["soonest_trigger"])
        return found

    async def add(self, start: Start, retry_at: datetime) -> Start:
        """See `TriggerStore.add`."""
        async with self._pool.acquire() as connection, connection.transaction():
            if await self._add(connection, start, retry_at):
                if start.status is FireStatus.FAILED:
                    await connection.execute(self._sql["count_failed"], *start.key)
                return start
            return _start(await connection.fetchrow(self._sql["get_start"], start.run_id))

    async def claim_pending(self, now: datetime, until: datetime, limit: int) -> Sequence[Start]:
        """See `TriggerStore.claim_pending`."""
        return list(map(_start, await self._pool.fetch(self._sql["claim_starts"], now, until, limit)))

    async def settle(self, start: Start, error: ErrorInfo | None) -> None:
        """See `TriggerStore.settle`."""
        status = FireStatus.STARTED if error is None else FireStatus.FAILED
        await self._pool.execute(self._sql["settle_start"], start.run_id, status.value, _error_json(error))

    async def take_keys(self, keys: Sequence[MessageKey], now: datetime) -> set[str]:
        """See `TriggerStore.take_keys`."""
        columns = zip(*((key.tenant, key.trigger, key.key, key.run_id, key.expires_at) for key in keys), strict=True)
        rows = await self._pool.fetch(self._sql["take_keys"], *map(list, columns), now)
        return {row["run_id"] for row in rows}

    async def release_keys(self, keys: Sequence[MessageKey]) -> None:
        """See `TriggerStore.release_keys`."""
        await self._pool.execute(
            self._sql["release_keys"],
            [key.tenant for key in keys],
            [key.trigger for key in keys],
            [key.key for key in keys],
            [key.run_id for key in keys],
        )

    async def record(self, starts: Sequence[Start], counts: Mapping[TriggerKey, TriggerCounts]) -> None:
        """See `TriggerStore.record`."""
        await self._pool.execute(
            self._sql["record_starts"],
            [start.run_id for start in starts],
            [start.tenant for start in starts],
            [start.trigger for start in starts],
            [start.cause.value for start in starts],
            [start.at for start in starts],
            [start.status.value for start in starts],
            [_error_json(start.error) for start in starts],
            [tenant for tenant, _ in counts],
            [name for _, name in counts],
            [count.dropped for count in counts.values()],
            [count.duplicates for count in counts.values()],
            [count.failed for count in counts.values()],
        )

    async def last(self, tenant: str, name: str, limit: int) -> Sequence[TriggerRun]:
        """See `TriggerStore.last`."""
        return [
            TriggerRun(
                run_id=row["run_id"],
                cause=Cause(row["cause"]),
                at=row["at"],
                scheduled_at=row["scheduled_at"],
                status=FireStatus(row["status"]),
                run_status=None if row["run_status"] is None else RunStatus(row["run_status"]),
                error=_error(row["error"]),
            )
            for row in await self._pool.fetch(self._sql["last_starts"], tenant, name, limit)
        ]

    async def tidy(self, now: datetime) -> None:
        """See `TriggerStore.tidy`."""
        await self._pool.execute(self._sql["close_ended_starts"])
        await self._forget("forget_keys", now)
        await self._forget("forget_starts", KEPT_STARTS)

    async def _forget(self, name: str, given: object) -> None:
        """All of it, in statements that are small: what comes in faster than one would forget is not to pile up."""
        gone = _TIDY_LIMIT
        while gone >= _TIDY_LIMIT:
            gone = int((await self._pool.execute(self._sql[name], given, _TIDY_LIMIT)).rpartition(" ")[2])

    async def _put(self, connection: Connection, trigger: Trigger) -> None:
        """Keep `trigger` as it is now. What it fired and what it had before are counted in place, by others."""
        await connection.execute(
            self._sql["put_trigger"],
            *trigger.key,
            trigger.revision,
            trigger.deleted,
            trigger.spec.model_dump_json(exclude_unset=True),
            trigger.spec.subject is not None,
            trigger.cursor,
            trigger.due_at,
            trigger.paused,
            trigger.paused_by,
            trigger.paused_at,
            trigger.paused_reason,
            json.dumps(trigger.commands),
            trigger.problem,
            trigger.counts.skipped,
            trigger.counts.dropped,
            trigger.counts.failed,
        )

    async def _add(self, connection: Connection, start: Start, retry_at: datetime) -> bool:
        """Keep `start`; whether it was not there."""
        pending = start.status is FireStatus.PENDING
        added = await connection.fetchval(
            self._sql["add_start"],
            start.run_id,
            *start.key,
            start.cause.value,
            start.at,
            start.scheduled_at,
            None if start.command is None else start.command.encode().decode(),
            list(start.cancels),
            start.status.value,
            _error_json(start.error),
            retry_at if pending else None,
        )
        return added is not None


@lru_cache(maxsize=4_096)
def _spec(text: str) -> TriggerSpec:
    """Specs are few, and read for every message."""
    return TriggerSpec.model_validate_json(text, strict=True)


def _trigger(row: asyncpg.Record) -> Trigger:
    return Trigger(
        tenant=row["tenant"],
        name=row["name"],
        revision=row["revision"],
        spec=_spec(row["spec"]),
        cursor=row["cursor"],
        due_at=row["due_at"],
        deleted=row["deleted"],
        paused=row["paused"],
        paused_by=row["paused_by"],
        paused_at=row["paused_at"],
        paused_reason=row["paused_reason"],
        commands=tuple((name, number) for name, number in json.loads(row["commands"])),
        problem=row["problem"],
        counts=TriggerCounts(
            fired=row["fired"],
            skipped=row["skipped"],
            dropped=row["dropped"],
            duplicates=row["duplicates"],
            failed=row["failed"],
        ),
        last_at=row["last_at"],
    )


def _start(row: Any) -> Start:
    return Start(
        run_id=row["run_id"],
        tenant=row["tenant"],
        trigger=row["trigger"],
        cause=Cause(row["cause"]),
        at=row["at"],
        command=None if row["command"] is None else StartRun.model_validate_json(row["command"]),
        scheduled_at=row["scheduled_at"],
        cancels=tuple(row["cancels"]),
        status=FireStatus(row["status"]),
        error=_error(row["error"]),
    )


def _error_json(error: ErrorInfo | None) -> str | None:
    return None if error is None else error.model_dump_json(exclude_none=True)


def _error(text: str | None) -> ErrorInfo | None:
    return None if text is None else ErrorInfo.model_validate_json(text)
