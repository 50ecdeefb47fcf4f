"""Budgets in PostgreSQL, and the outbox of what happens to them."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

import asyncpg

from paracle_chassis.bus import Bus, Outgoing
from paracle_chassis.postgres import Queries
from paracle_domain import subjects
from paracle_domain.budget.matching import Tally
from paracle_domain.budget.messages import RaiseBudget
from paracle_domain.budget.spec import Budget
from paracle_domain.envelope import Context, Envelope
from paracle_domain.machine import EventRecord
from paracle_provider_gateway.adapters.clashes import in_turns
from paracle_provider_gateway.bookkeeping import question_of
from paracle_provider_gateway.budgets import StoredBudget, StoredUse, Word
from paracle_provider_gateway.ledger import Count

SOURCE: Final = "paracle/provider_gateway"
BATCH: Final = 200
OUTBOX_EVERY_S: Final = 5.0
IN_DOUBT: Final = timedelta(minutes=10)


class PostgresBudgets:
    """A `BudgetStore` on the tables of `migrations/`."""

    def __init__(self, pool: asyncpg.Pool, queries: Queries) -> None:
        self._pool = pool
        self._sql = queries

    async def put(self, tenant: str, budget: Budget, word: Word) -> None:
        spec = budget.model_dump_json(exclude_none=True)

        async def work(connection: Any) -> None:
            await connection.execute(self._sql.put_budget, tenant, budget.name, spec, word.principal)
            await self._note(connection, tenant, budget.name, "set", word, json.loads(spec))

        await self._changed(work)

    async def remove(self, tenant: str, name: str, word: Word) -> None:
        async def work(connection: Any) -> None:
            await connection.execute(self._sql.lock_counters, tenant, name)
            await self._note(connection, tenant, name, "deleted", word, {})
            await connection.execute(self._sql.remove_counters, tenant, name)
            await connection.execute(self._sql.remove_budget, tenant, name)

        await self._changed(work)

    async def lift(self, count: Count, order: RaiseBudget, word: Word) -> bool:
        tenant, name, identity = count.tenant, count.budget.name, _identity(count)
        more = {"usd": None if order.usd is None else str(order.usd), "tokens": order.tokens}
        added = {key: value for key, value in more.items() if value is not None}
        data = {"subject": count.subject, "period": count.period, "key": order.key, **added}

        async def work(connection: Any) -> bool:
            is_void = order.question is not None and order.question != await self._question(connection, count)
            if await connection.fetchval(self._sql.note_raise, tenant, name, order.key, is_void) is None:
                known: bool = await connection.fetchval(self._sql.is_raised, tenant, name, order.key)
                return known
            if not is_void:
                await connection.execute(self._sql.raise_counter, *identity, order.usd or 0, order.tokens or 0)
            await self._note(connection, tenant, name, "raise_void" if is_void else "raised", word, data)
            return not is_void

        return await self._changed(work)

    async def _question(self, connection: Any, count: Count) -> str | None:
        """What people are asked about a count, as it is now and till the transaction ends; nothing if it is gone.

        The count is held before its budget, as by calls.
        """
        usd, tokens = await connection.fetchrow(self._sql.hold_counter, *_identity(count))
        row = await connection.fetchrow(self._sql.lock_budget, count.tenant, count.budget.name)
        if row is None or row["born"] != count.born:
            return None
        tally = Tally(raised_usd=usd, raised_tokens=tokens)
        return question_of(replace(count, budget=Budget.model_validate_json(row["spec"])), tally)

    async def find(self, tenant: str, name: str | None = None, scope: str | None = None) -> Sequence[StoredBudget]:
        rows = await self._pool.fetch(self._sql.find_budgets, tenant, name, scope)
        return [
            StoredBudget(
                Budget.model_validate_json(row["spec"]), row["born"], row["revision"], row["set_by"], row["set_at"]
            )
            for row in rows
        ]

    async def uses(
        self, tenant: str, names: Sequence[str], periods: Sequence[str], subject: str | None, most: int
    ) -> Sequence[StoredUse]:
        rows = await self._pool.fetch(self._sql.budget_uses, tenant, list(names), list(periods), subject, most)
        return [StoredUse(row["budget"], row["subject"], row["period"], Tally(*row[4:]), row["hit_at"]) for row in rows]

    async def _note(self, connection: Any, tenant: str, name: str, what: str, word: Word, data: dict[str, Any]) -> None:
        said = data if word.reason is None else data | {"reason": word.reason}
        await connection.execute(self._sql.note_event, tenant, name, f"budget.{what}", word.principal, json.dumps(said))

    async def _changed[R](self, work: Callable[[Any], Awaitable[R]]) -> R:
        """One transaction; done again where calls got in its way."""

        async def transaction() -> R:
            async with self._pool.acquire() as connection, connection.transaction():
                return await work(connection)

        return await in_turns(transaction)


class BudgetOutbox:
    """Tells the world what happened to budgets; `drain` is the round of a `Background`.

    On a single server events are written behind: what was told lately is told again after NATS may have been away.
    """

    def __init__(self, pool: asyncpg.Pool, queries: Queries, bus: Bus) -> None:
        self._pool = pool
        self._sql = queries
        self._bus = bus
        self._in_doubt = True

    def doubt(self) -> None:
        """What was told lately may be lost: the next round tells it again."""
        self._in_doubt = True

    async def drain(self) -> None:
        """Publish all that waits."""
        if self._in_doubt:
            await self._pool.execute(self._sql.mark_events_untold, IN_DOUBT)
            self._in_doubt = False
        while rows := await self._pool.fetch(self._sql.untold_events, BATCH):
            await self._bus.publish([_event(row) for row in rows])
            keys = [(row["tenant"], row["budget"], row["seq"]) for row in rows]
            await self._pool.execute(self._sql.mark_events_told, *map(list, zip(*keys, strict=True)))


def _identity(count: Count) -> tuple[Any, ...]:
    return count.id, count.tenant, count.budget.name, count.born, count.subject, count.period


def _event(row: asyncpg.Record) -> Outgoing:
    record = EventRecord(
        entity="budget",
        id=row["budget"],
        seq=row["seq"],
        type=row["type"],
        at=row["at"],
        data=json.loads(row["data"]),
    )
    tenant = row["tenant"]
    subject = subjects.evt(tenant, "budget", row["budget"], row["type"].rpartition(".")[2])
    context = Context(tenant, principal=row["principal"] or SOURCE)
    return Outgoing(subject, record, Envelope.wrap(record.type_name, SOURCE, context, id=record.message_id(tenant)))
