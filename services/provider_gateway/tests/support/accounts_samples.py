"""Ledgers in memory and in PostgreSQL, and what is opened in them."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Protocol
from uuid import UUID

import asyncpg
from accounts_memory import MemoryLedger, World

from paracle_chassis.postgres import Queries
from paracle_domain.budget.matching import Tally
from paracle_domain.budget.spec import Budget
from paracle_domain.inference.usage import Usage
from paracle_domain.provider.spec import DeploymentLimits
from paracle_provider_gateway.adapters.ledger import PostgresLedger
from paracle_provider_gateway.ledger import Count, Ending, KnownBudget, Ledger, Mode, Order, Settlement

_numbers = itertools.count(1)


class Bank(Protocol):
    """A place for ledgers of several replicas, with a way to look into it."""

    def ledger(self, replica: str) -> Ledger: ...

    async def set_budgets(self, tenant: str, *budgets: Budget) -> None: ...

    async def tally(self, count: Count) -> Tally: ...

    async def endings(self) -> dict[tuple[str, int, str], str]: ...

    async def in_air(self, load: str) -> int: ...

    async def tokens(self, load: str) -> tuple[int, int]:
        """Of the latest minute in which something was asked, and of the one before."""
        ...

    async def a_minute_passes(self, load: str) -> None: ...

    async def lose(self, replica: str) -> None: ...

    async def forget(self, order: Order) -> None: ...


class MemoryBank:
    def __init__(self) -> None:
        self.world = World()

    def ledger(self, replica: str) -> Ledger:
        return MemoryLedger(self.world, replica)

    async def set_budgets(self, tenant: str, *budgets: Budget) -> None:
        self.world.set_budgets(tenant, *(KnownBudget(one, 1) for one in budgets))

    async def tally(self, count: Count) -> Tally:
        return self.world.tallies.get(count.id, Tally())

    async def endings(self) -> dict[tuple[str, int, str], str]:
        return {
            (key[1], one.order.number, replica): one.ending.value for (key, replica), one in self.world.ended.items()
        }

    async def in_air(self, load: str) -> int:
        return self.world.loads[load].in_air

    async def tokens(self, load: str) -> tuple[int, int]:
        minutes = self.world.loads[load]
        latest = max(minutes.minutes)
        return minutes.of(latest)[1], minutes.of(latest - 1)[1]

    async def a_minute_passes(self, load: str) -> None:
        found = self.world.loads[load]
        found.minutes = {minute - 1: counts for minute, counts in found.minutes.items()}
        self.world.opened_in = {key: minute - 1 for key, minute in self.world.opened_in.items()}

    async def lose(self, replica: str) -> None:
        self.world.replicas.discard(replica)

    async def forget(self, order: Order) -> None:
        del self.world.open[order.key]
        for count, _strict in order.counts:
            self.world.tallies.pop(count.id)


class PostgresBank:
    def __init__(self, pool: asyncpg.Pool) -> None:
        self.pool = pool
        self.queries = Queries.load("paracle_provider_gateway")

    def ledger(self, replica: str) -> Ledger:
        return PostgresLedger(self.pool, self.queries, replica)

    async def join(self, *replicas: str) -> None:
        """These are there, and have nothing to tell."""
        for replica in replicas:
            await self.pool.execute(self.queries.seen, replica)
            await self.pool.execute(self.queries.steady, replica)

    async def set_budgets(self, tenant: str, *budgets: Budget) -> None:
        async with self.pool.acquire() as connection, connection.transaction():
            await connection.execute(
                "insert into books values ($1, 1) on conflict (tenant) do update set revision = books.revision + 1",
                tenant,
            )
            await connection.execute("delete from budgets where tenant = $1", tenant)
            for one in budgets:
                await connection.execute(
                    "insert into budgets values ($1, $2, $3, 1, 1, 'ann', now())",
                    tenant,
                    one.name,
                    one.model_dump_json(),
                )

    async def tally(self, count: Count) -> Tally:
        row = await self.pool.fetchrow(
            "select spent_usd, reserved_usd, raised_usd, spent_tokens, reserved_tokens, raised_tokens, calls,"
            " unpriced_calls from counters where id = $1",
            count.id,
        )
        return Tally() if row is None else Tally(*row)

    async def endings(self) -> dict[tuple[str, int, str], str]:
        rows = await self.pool.fetch("select call_id, number, replica, outcome from attempts")
        return {tuple(row)[:3]: row["outcome"] for row in rows}

    async def in_air(self, load: str) -> int:
        found: int = await self.pool.fetchval("select in_air from loads where deployment = $1", load)
        return found

    async def tokens(self, load: str) -> tuple[int, int]:
        row = await self.pool.fetchrow("select tokens, tokens_before from loads where deployment = $1", load)
        assert row is not None
        return row["tokens"], row["tokens_before"]

    async def a_minute_passes(self, load: str) -> None:
        await self.pool.execute("update loads set minute = minute - 1 where deployment = $1", load)
        await self.pool.execute("update open_attempts set opened_at = opened_at - interval '1 minute'")

    async def lose(self, replica: str) -> None:
        await self.pool.execute("delete from replicas where id = $1", replica)

    async def forget(self, order: Order) -> None:
        await self.pool.execute("delete from open_attempts where call_id = $1", order.call_id)
        await self.pool.execute("delete from counters where id = any($1)", [count.id for count, _ in order.counts])


@dataclass
class KnownRuns:
    """Runs, of which those that go on are known."""

    going: set[str] = field(default_factory=set)
    asked: list[tuple[str, str]] = field(default_factory=list)

    async def has_ended(self, tenant: str, run_id: str) -> bool:
        self.asked.append((tenant, run_id))
        return run_id not in self.going


def budget(name: str = "b", **more: Any) -> Budget:
    more = {"limit_usd": Decimal(1)} | more
    return Budget(name=name, **more)


def count_of(one: Budget, subject: str = "acme", period: str = "total", tenant: str = "acme") -> Count:
    digest = hashlib.blake2b(repr((tenant, one.name, subject, period)).encode(), digest_size=16).digest()
    return Count(UUID(bytes=digest), tenant, one, 1, subject, period)


def order(*counts: Count, usd: str | None = "0.1", tokens: int = 10, **more: Any) -> Order:
    given: dict[str, Any] = {
        "tenant": "acme",
        "call_id": f"call-{next(_numbers)}",
        "serial": next(_numbers),
        "number": 1,
        "labels": (None, "ann", "a", None, None, None, None),
        "provider": "openai",
        "model": "big",
        "load": None,
        "limits": DeploymentLimits(),
        "revision": 0,
        "mode": Mode.USUAL,
    } | more
    strict = given.pop("strict", True)
    price = None if usd is None else Decimal(usd)
    return Order(usd=price, tokens=tokens, counts=tuple((count, strict) for count in counts), **given)


def settled(one: Order, ending: Ending = Ending.COMPLETED, usd: str | None = "0.05", tokens: int = 5) -> Settlement:
    price = None if usd is None else Decimal(usd)
    usage = Usage(input_tokens=tokens, model_calls=1, cost_usd=price)
    return Settlement(one, ending, None, "big-1", usage, price or Decimal(0), tokens, 1.5, None)
