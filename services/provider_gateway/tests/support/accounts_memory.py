"""A ledger in memory, shared by as many replicas as a test wants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

from paracle_domain.budget.matching import Amount, Room, Tally
from paracle_domain.inference.usage import Usage
from paracle_provider_gateway.ledger import (
    Elsewhere,
    Ending,
    KnownBudget,
    Mode,
    NoRoom,
    Order,
    Over,
    Page,
    Settlement,
    Stale,
    Verdict,
)

type Key = tuple[str, str, int]


@dataclass
class Record:
    """An attempt that has ended."""

    order: Order
    replica: str
    ending: Ending
    usage: Usage
    counted: Amount


@dataclass
class Load:
    """What a deployment is asked: now, and in each minute."""

    in_air: int = 0
    minutes: dict[int, list[int]] = field(default_factory=dict)

    def weighed(self, now: float, what: int) -> float:
        """What counts of requests (0) or tokens (1): this minute's, and the share of the last that is not over yet."""
        minute = int(now // 60)
        passed = now / 60 - minute
        return self.of(minute)[what] + self.of(minute - 1)[what] * (1 - passed)

    def of(self, minute: int) -> list[int]:
        return self.minutes.setdefault(minute, [0, 0])


@dataclass
class World:
    """What all replicas share."""

    pages: dict[str, Page] = field(default_factory=dict)
    tallies: dict[UUID, Tally] = field(default_factory=dict)
    open: dict[Key, tuple[str, Order]] = field(default_factory=dict)
    opened_in: dict[Key, int] = field(default_factory=dict)
    ended: dict[tuple[Key, str], Record] = field(default_factory=dict)
    loads: dict[str, Load] = field(default_factory=dict)
    replicas: set[str] = field(default_factory=set)

    def now(self) -> float:
        return datetime.now(UTC).timestamp()

    def set_budgets(self, tenant: str, *budgets: KnownBudget) -> None:
        self.pages[tenant] = Page(self.pages.get(tenant, Page()).revision + 1, budgets)


class MemoryLedger:
    """A `Ledger` of one replica on a world."""

    def __init__(self, world: World, replica: str) -> None:
        self.world = world
        self.replica = replica
        world.replicas.add(replica)

    async def page(self, tenant: str) -> Page:
        return self.world.pages.get(tenant, Page())

    async def open(self, orders: Sequence[Order]) -> Sequence[Verdict]:
        return [self._open(order) for order in orders]

    def _open(self, order: Order) -> Verdict:
        world = self.world
        if order.mode is Mode.AGAIN:
            if order.key not in world.open and (order.key, self.replica) not in world.ended:
                self._grant(order)
            return None
        if order.revision != world.pages.get(order.tenant, Page()).revision:
            return Stale()
        if order.mode is Mode.USUAL and (owner := self._elsewhere(order)) is not None:
            return Elsewhere(owner)
        verdict = self._limits(order)
        for count, strict in order.counts:
            if not strict:
                continue
            tally = world.tallies.get(count.id, Tally())
            room = tally.room(count.budget)
            if room is Room.OVER:
                return Over(count, tally)
            if room is Room.FULL:
                verdict = NoRoom(0.1, count)
        if verdict is None:
            self._grant(order)
        return verdict

    def _elsewhere(self, order: Order) -> str | None:
        for (tenant, call_id, _), (replica, _) in self.world.open.items():
            if (tenant, call_id) == order.key[:2] and replica != self.replica:
                return replica
        for ((tenant, call_id, _), replica), record in self.world.ended.items():
            if (tenant, call_id) == order.key[:2] and replica != self.replica and record.ending is Ending.COMPLETED:
                return replica
        return None

    def _limits(self, order: Order) -> NoRoom | None:
        if order.load is None:
            return None
        load, limits, now = self.world.loads.setdefault(order.load, Load()), order.limits, self.world.now()
        if limits.concurrency is not None and load.in_air >= limits.concurrency:
            return NoRoom(0.1, limit="concurrency")
        if limits.requests_per_minute is not None and load.weighed(now, 0) + 1 > limits.requests_per_minute:
            return NoRoom(1, limit="requests")
        used = load.weighed(now, 1)
        if limits.tokens_per_minute is not None and used > 0 and used + order.tokens > limits.tokens_per_minute:
            return NoRoom(1, limit="tokens")
        return None

    def _grant(self, order: Order) -> None:
        world = self.world
        world.open[order.key] = (self.replica, order)
        for count, _ in order.counts:
            tally = world.tallies.get(count.id, Tally())
            world.tallies[count.id] = tally.reserve(Amount(order.usd, order.tokens))
        if order.load is not None:
            load = world.loads.setdefault(order.load, Load())
            load.in_air += 1
            world.opened_in[order.key] = int(world.now() // 60)
            minute = load.of(world.opened_in[order.key])
            minute[0] += 1
            minute[1] += order.tokens

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settlement]:
        return [one for one in settlements if not self._settle(one)]

    def _settle(self, one: Settlement) -> bool:
        world, order = self.world, one.order
        counted = Amount(one.counted_usd, one.counted_tokens)
        record = Record(order, self.replica, one.ending, one.usage, counted)
        if world.open.get(order.key, ("", None))[0] == self.replica:
            self._close(order.key, record, unpriced=one.usage.cost_usd is None and order.usd is None)
            return True
        before = world.ended.get((order.key, self.replica))
        if before is not None and before.ending is Ending.UNKNOWN:
            world.ended[(order.key, self.replica)] = record
            more = Amount(
                (counted.usd or 0) - (before.counted.usd or Decimal(0)), counted.tokens - before.counted.tokens
            )
            for count, _ in order.counts:
                tally = world.tallies[count.id].spend(more)
                world.tallies[count.id] = _replace_calls(tally, world.tallies[count.id])
        return before is not None

    def _close(self, key: Key, record: Record, *, unpriced: bool) -> None:
        world = self.world
        _, order = world.open.pop(key)
        world.ended[(key, record.replica)] = record
        for count, _ in order.counts:
            tally = world.tallies[count.id].release(Amount(order.usd, order.tokens))
            if record.counted.tokens > 0:
                tally = tally.spend(Amount(None if unpriced else record.counted.usd, record.counted.tokens))
            world.tallies[count.id] = tally
        if order.load is not None:
            load = world.loads[order.load]
            load.in_air -= 1
            minute = load.of(world.opened_in.pop(key))
            minute[1] = max(0, minute[1] - order.tokens + record.counted.tokens)

    async def note(self, cached: Sequence[Settlement]) -> None:
        for one in cached:
            spared = Record(one.order, self.replica, one.ending, one.usage, Amount(one.counted_usd, one.counted_tokens))
            self.world.ended.setdefault((one.order.key, self.replica), spared)

    async def is_gone(self, replica: str) -> bool:
        return replica not in self.world.replicas

    async def close_call(self, tenant: str, call_id: str, replica: str) -> None:
        for key in [key for key, (of, _) in self.world.open.items() if key[:2] == (tenant, call_id) and of == replica]:
            self._lose(key)

    async def close_orphans(self, most: int) -> int:
        lost = [key for key, (replica, _) in self.world.open.items() if replica not in self.world.replicas][:most]
        for key in lost:
            self._lose(key)
        return len(lost)

    def _lose(self, key: Key) -> None:
        replica, order = self.world.open[key]
        counted = Amount(order.usd or Decimal(0), order.tokens)
        self._close(
            key, Record(order, replica, Ending.UNKNOWN, Usage(cost_usd=None), counted), unpriced=order.usd is None
        )


def _replace_calls(tally: Tally, before: Tally) -> Tally:
    """What is corrected is no new call."""
    return replace(tally, calls=before.calls, unpriced_calls=before.unpriced_calls)
