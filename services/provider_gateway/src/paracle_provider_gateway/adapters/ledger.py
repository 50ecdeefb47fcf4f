"""The ledger in PostgreSQL: one statement for each batch, the functions of `migrations/003_account_functions.sql`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import asyncpg

from paracle_chassis.postgres import Queries
from paracle_domain.budget.matching import Tally
from paracle_domain.budget.spec import Budget
from paracle_provider_gateway.adapters.clashes import in_turns
from paracle_provider_gateway.ledger import (
    Count,
    Elsewhere,
    KnownBudget,
    NoRoom,
    Order,
    Over,
    Page,
    Settlement,
    Stale,
    Verdict,
)


class PostgresLedger:
    """A `Ledger` on the tables of `migrations/`.

    Parameters
    ----------
    pool
        Whose commits nothing here waits for: the functions turn that off for their transactions.
    """

    def __init__(self, pool: asyncpg.Pool, queries: Queries, replica: str) -> None:
        self._pool = pool
        self._sql = queries
        self._replica = replica

    async def page(self, tenant: str) -> Page:
        rows = await self._pool.fetch(self._sql.page, tenant)
        known = [
            KnownBudget(Budget.model_validate_json(row["spec"]), row["born"]) for row in rows if row["spec"] is not None
        ]
        return Page(rows[0]["revision"] if rows else 0, tuple(known))

    async def open(self, orders: Sequence[Order]) -> Sequence[Verdict]:
        newest: dict[str, int] = {}
        for order in orders:
            newest[order.tenant] = max(order.revision, newest.get(order.tenant, 0))
        verdicts: dict[Order, Verdict] = dict.fromkeys(orders)
        verdicts |= {order: Stale() for order in orders if order.revision < newest[order.tenant]}
        batch = _Batch([order for order in orders if verdicts[order] is None])
        for row in await self._fetch(self._sql.open_batch, self._replica, *batch.arguments()):
            verdicts[batch.orders[row["at"] - 1]] = batch.verdict(row)
        return list(verdicts.values())

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settlement]:
        counts = {count.id for one in settlements for count, _ in one.order.counts}
        loads = {one.order.load for one in settlements if one.order.load is not None}
        columns = _columns(settlements)
        missing = await self._fetch(self._sql.settle_batch, self._replica, list(counts), list(loads), *columns)
        if not missing:
            return ()
        unsettled = [settlements[row[0] - 1] for row in missing]
        unknown = await self._fetch(self._sql.correct_batch, self._replica, *_columns(unsettled))
        return [unsettled[row[0] - 1] for row in unknown]

    async def note(self, cached: Sequence[Settlement]) -> None:
        orders = [one.order for one in cached]
        await self._pool.execute(
            self._sql.note_cached,
            self._replica,
            [order.tenant for order in orders],
            [order.call_id for order in orders],
            [order.serial for order in orders],
            *map(list, zip(*(order.labels for order in orders), strict=True)),
            [order.provider for order in orders],
            [order.model for order in orders],
            [one.saved.cost_usd for one in cached],
            [one.saved.total_tokens for one in cached],
        )

    async def is_gone(self, replica: str) -> bool:
        found: bool = await self._pool.fetchval(self._sql.is_gone, replica)
        return found

    async def close_call(self, tenant: str, call_id: str, replica: str) -> None:
        await self._fetch(self._sql.close_call, tenant, call_id, replica)

    async def close_orphans(self, most: int) -> int:
        await self._pool.execute(self._sql.forget_replicas)
        found: int = await self._pool.fetchval(self._sql.close_orphans, most)
        return found

    async def _fetch(self, sql: str, *arguments: Any) -> list[asyncpg.Record]:
        found: list[asyncpg.Record] = await in_turns(lambda: self._pool.fetch(sql, *arguments))
        return found


class _Batch:
    """Orders as columns, with what several of them share (books, deployments, counters) once.

    Orders of a tenant are by the same revision of its book.
    """

    def __init__(self, orders: Sequence[Order]) -> None:
        self.orders = orders
        self._books: dict[str, tuple[int, int]] = {}
        self._loads: dict[str, tuple[int, Order]] = {}
        self._counts: dict[Any, tuple[int, Count]] = {}
        self.book_of = [self._book(order) for order in orders]
        self.load_of = [self._load(order) for order in orders]
        self._pairs = [
            (at, self._count(count), strict) for at, order in enumerate(orders, 1) for count, strict in order.counts
        ]

    def arguments(self) -> list[Any]:
        orders = self.orders
        counts = [count for _, count in self._counts.values()]
        loads = [order.limits for _, order in self._loads.values()]
        return [
            [order.tenant for order in orders],
            [order.call_id for order in orders],
            [order.serial for order in orders],
            [order.number for order in orders],
            [order.mode for order in orders],
            self.book_of,
            self.load_of,
            *map(list, zip(*(order.labels for order in orders), strict=True)),
            [order.provider for order in orders],
            [order.model for order in orders],
            [order.usd for order in orders],
            [order.tokens for order in orders],
            [_ids(order) for order in orders],
            list(self._books),
            [revision for _, revision in self._books.values()],
            list(self._loads),
            [limits.concurrency for limits in loads],
            [limits.requests_per_minute for limits in loads],
            [limits.tokens_per_minute for limits in loads],
            [count.id for count in counts],
            [count.tenant for count in counts],
            [count.budget.name for count in counts],
            [count.born for count in counts],
            [count.subject for count in counts],
            [count.period for count in counts],
            [count.budget.limit_usd for count in counts],
            [count.budget.limit_tokens for count in counts],
            [at for at, _, _ in self._pairs],
            [count for _, count, _ in self._pairs],
            [strict for _, _, strict in self._pairs],
        ]

    def verdict(self, row: asyncpg.Record) -> Verdict:
        match row["verdict"]:
            case "stale":
                return Stale()
            case "elsewhere":
                return Elsewhere(row["owner"])
            case "over":
                return Over(self._count_at(row["by_index"]), _tally(row))
            case "full":
                return NoRoom(row["after_s"], self._count_at(row["by_index"]))
            case limit:
                return NoRoom(row["after_s"], limit=limit)

    def _count_at(self, place: int) -> Count:
        return list(self._counts.values())[place - 1][1]

    def _book(self, order: Order) -> int:
        return self._books.setdefault(order.tenant, (len(self._books) + 1, order.revision))[0]

    def _load(self, order: Order) -> int:
        return 0 if order.load is None else self._loads.setdefault(order.load, (len(self._loads) + 1, order))[0]

    def _count(self, count: Count) -> int:
        return self._counts.setdefault(count.id, (len(self._counts) + 1, count))[0]


def _ids(order: Order) -> str:
    return f"{{{','.join([str(count.id) for count, _ in order.counts])}}}" if order.counts else "{}"


_SETTLED: Final[tuple[Callable[[Settlement], Any], ...]] = (
    lambda one: one.order.tenant,
    lambda one: one.order.call_id,
    lambda one: one.order.serial,
    lambda one: one.ending,
    lambda one: one.error,
    lambda one: one.model,
    lambda one: one.usage.input_tokens,
    lambda one: one.usage.output_tokens,
    lambda one: one.usage.cached_tokens,
    lambda one: one.usage.reasoning_tokens,
    lambda one: one.usage.cost_usd,
    lambda one: one.counted_usd,
    lambda one: one.counted_tokens,
    lambda one: one.latency_s,
    lambda one: one.first_token_s,
)


def _columns(settlements: Sequence[Settlement]) -> list[list[Any]]:
    return [[column(one) for one in settlements] for column in _SETTLED]


def _tally(row: asyncpg.Record) -> Tally:
    return Tally(
        spent_usd=row["spent_usd"],
        reserved_usd=row["reserved_usd"],
        raised_usd=row["raised_usd"],
        spent_tokens=row["spent_tokens"],
        reserved_tokens=row["reserved_tokens"],
        raised_tokens=row["raised_tokens"],
    )
