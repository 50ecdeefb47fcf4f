"""A `TriggerStore` in memory, held to the same contract as the one on PostgreSQL."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from paracle_domain.errors import ErrorInfo
from paracle_domain.registry import TriggerChange
from paracle_domain.run.commands import RunStatus
from paracle_domain.trigger.commands import FireStatus, TriggerCounts, TriggerRun
from paracle_orchestrator.adapters.trigger_store import KEPT_STARTS
from paracle_orchestrator.triggers.ports import Decide, Edit, Learn, MessageKey, Start, Trigger, TriggerKey


@dataclass
class Row:
    start: Start
    retry_at: datetime | None
    open: bool


def plus(trigger: Trigger, **more: int) -> Trigger:
    counts = {name: getattr(trigger.counts, name) + number for name, number in more.items()}
    return replace(trigger, counts=trigger.counts.model_copy(update=counts))


class MemoryTriggerStore:
    """`runs` stands for the table of that name: how the runs that began are."""

    def __init__(self) -> None:
        self.runs: dict[str, RunStatus] = {}
        self.triggers: dict[TriggerKey, Trigger] = {}
        self.starts: dict[str, Row] = {}
        self.keys: dict[tuple[str, str, str], MessageKey] = {}
        self.tenants: dict[str, tuple[int, datetime]] = {}

    async def version(self, tenant: str) -> int:
        return self.tenants[tenant][0] if tenant in self.tenants else 0

    async def learn(
        self, tenant: str, changes: Sequence[TriggerChange], version: int, now: datetime, learn: Learn
    ) -> None:
        for change in changes:
            found = learn(self.triggers.get((tenant, change.name)), change)
            if found is not None:
                self.triggers[found.key] = found
        self.tenants[tenant] = (max(version, await self.version(tenant)), now)

    async def unchecked(self, now: datetime, before: datetime, limit: int) -> Sequence[str]:
        found = [tenant for tenant, (_, at) in self.tenants.items() if at < before][:limit]
        self.tenants |= {tenant: (self.tenants[tenant][0], now) for tenant in found}
        return found

    async def get(self, tenant: str, name: str) -> Trigger | None:
        found = self.triggers.get((tenant, name))
        return None if found is None or found.deleted else found

    async def page(self, tenant: str, after: str, limit: int) -> Sequence[Trigger]:
        alive = [one for one in self.triggers.values() if one.tenant == tenant and one.name > after and not one.deleted]
        return sorted(alive, key=lambda one: one.name)[:limit]

    async def on_messages(self, tenants: Sequence[str]) -> Sequence[Trigger]:
        return [one for one in self.triggers.values() if one.tenant in tenants and one.spec.subject and not one.deleted]

    async def change(self, tenant: str, name: str, edit: Edit) -> Trigger | None:
        known = await self.get(tenant, name)
        if known is not None:
            self.triggers[known.key] = known = edit(known)
        return known

    async def decide_due(self, now: datetime, limit: int, decide: Decide) -> int:
        due = [one for one in self.triggers.values() if one.due_at and one.due_at <= now and not one.deleted][:limit]
        for trigger in due:
            decided = decide(trigger, self._under_way(trigger.key))
            self.triggers[trigger.key] = decided.trigger
            for start in decided.starts:
                self._add(start, now)
        return len(due)

    def _under_way(self, key: TriggerKey) -> list[str]:
        found = []
        for row in self.starts.values():
            if row.start.key == key:
                self._look_at(row)
                found += [row.start.run_id] if row.open else []
        return found

    def _look_at(self, row: Row) -> None:
        """Close it if its run has ended."""
        status = self.runs.get(row.start.run_id)
        under_way = row.start.status is FireStatus.PENDING or (status is not None and not status.terminal)
        row.open = row.open and under_way

    def _add(self, start: Start, retry_at: datetime) -> bool:
        if start.run_id in self.starts:
            return False
        pending = start.status is FireStatus.PENDING
        self.starts[start.run_id] = Row(start, retry_at if pending else None, pending)
        return True

    async def soonest(self) -> datetime | None:
        return min((one.due_at for one in self.triggers.values() if one.due_at), default=None)

    async def add(self, start: Start, retry_at: datetime) -> Start:
        if self._add(start, retry_at) and start.status is FireStatus.FAILED:
            self.triggers[start.key] = plus(self.triggers[start.key], failed=1)
        return self.starts[start.run_id].start

    async def claim_pending(self, now: datetime, until: datetime, limit: int) -> Sequence[Start]:
        pending = [row for row in self.starts.values() if row.retry_at is not None]
        ready = [row for row in pending if row.retry_at is not None and row.retry_at <= now]
        due = [row for row in ready if not any(earlier(other, row) for other in pending)]
        for row in due[:limit]:
            row.retry_at = until
        return [row.start for row in due[:limit]]

    async def settle(self, start: Start, error: ErrorInfo | None) -> None:
        row = self.starts[start.run_id]
        if row.start.status is not FireStatus.PENDING:
            return
        status = FireStatus.STARTED if error is None else FireStatus.FAILED
        row.start, row.retry_at, row.open = replace(row.start, status=status, error=error), None, error is None
        self._count(row.start)

    def _count(self, start: Start) -> None:
        trigger = self.triggers.get(start.key)
        if trigger is None:
            return
        if start.status is FireStatus.STARTED:
            trigger = replace(trigger, last_at=max(filter(None, (trigger.last_at, start.at))))
        self.triggers[start.key] = plus(trigger, **{"fired" if start.error is None else "failed": 1})

    async def take_keys(self, keys: Sequence[MessageKey], now: datetime) -> set[str]:
        own = set()
        for key in sorted(keys, key=lambda key: not self._has(key)):
            place = (key.tenant, key.trigger, key.key)
            held = self.keys.get(place)
            if held is None or held.expires_at <= now or held.run_id == key.run_id:
                self.keys[place] = key
                own.add(key.run_id)
        return own

    async def release_keys(self, keys: Sequence[MessageKey]) -> None:
        for key in keys:
            if self._has(key):
                del self.keys[key.tenant, key.trigger, key.key]

    def _has(self, key: MessageKey) -> bool:
        held = self.keys.get((key.tenant, key.trigger, key.key))
        return held is not None and held.run_id == key.run_id

    async def record(self, starts: Sequence[Start], counts: Mapping[TriggerKey, TriggerCounts]) -> None:
        for start in starts:
            if start.run_id not in self.starts:
                self.starts[start.run_id] = Row(start, None, open=False)
                self._count(start)
        for key, count in counts.items():
            more = {"dropped": count.dropped, "duplicates": count.duplicates, "failed": count.failed}
            self.triggers[key] = plus(self.triggers[key], **more)

    async def last(self, tenant: str, name: str, limit: int) -> Sequence[TriggerRun]:
        return [
            TriggerRun(
                run_id=start.run_id,
                cause=start.cause,
                at=start.at,
                scheduled_at=start.scheduled_at,
                status=start.status,
                run_status=self.runs.get(start.run_id),
                error=start.error,
            )
            for start in self._newest((tenant, name))[:limit]
        ]

    def _newest(self, key: TriggerKey) -> list[Start]:
        found = [row.start for row in self.starts.values() if row.start.key == key]
        order = {start.run_id: (start.at, start.scheduled_at or start.at, start.run_id) for start in found}
        return sorted(found, key=lambda start: order[start.run_id], reverse=True)

    async def tidy(self, now: datetime) -> None:
        for row in self.starts.values():
            self._look_at(row)
        self.keys = {place: key for place, key in self.keys.items() if key.expires_at > now}
        by_trigger: defaultdict[TriggerKey, list[Start]] = defaultdict(list)
        for key in self.triggers:
            by_trigger[key] = self._newest(key)[KEPT_STARTS:]
        for old in by_trigger.values():
            for start in old:
                if not self.starts[start.run_id].open and start.status is not FireStatus.PENDING:
                    del self.starts[start.run_id]


def earlier(one: Row, other: Row) -> bool:
    """Whether `other` waits for `one`."""
    first, second = one.start, other.start
    return first.key == second.key and bool(
        first.scheduled_at and second.scheduled_at and first.scheduled_at < second.scheduled_at
    )
