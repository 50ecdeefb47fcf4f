"""Whose turn it is: fair between tenants, and by priority within each. Pure; every operation costs O(log n).

Source: Goyal, Vin and Cheng, Start-time Fair Queuing, 1996, once over the tenants, which weigh the same, and within
each over its priorities. Who asks fifty times as much as others waits for its own; nobody waits for ever.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Final

from paracle_domain.inference.request import Priority

WEIGHTS: Final[Mapping[Priority, float]] = {"high": 16.0, "normal": 4.0, "low": 1.0}
"""How many turns a tenant's calls of each priority get while some of all of them wait."""
_DEBTS_KEPT: Final = 64


class Turns[K: Hashable]:
    """Turns of keys: those that wait get turns in proportion to their weights (1 if none is given)."""

    def __init__(self, weights: Mapping[K, float] | None = None) -> None:
        self._weights = weights
        self._now = 0.0  # the start of the latest turn, in virtual time
        self._waiting: dict[K, int] = {}
        self._queue: list[tuple[float, int, K]] = []
        self._queued: set[K] = set()  # keys that wait, or did until their last turn was dropped
        self._paid_till: dict[K, float] = {}
        self._look_at = _DEBTS_KEPT
        self._numbers = count()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, key: K) -> None:
        """`key` asks for one more turn."""
        self._waiting[key] = self._waiting.get(key, 0) + 1
        if key not in self._queued:
            self._line_up(key, max(self._now, self._paid_till.pop(key, 0.0)))

    def drop(self, key: K) -> None:
        """`key` asks for one turn less; its place in the queue is passed over if nothing is left of it."""
        if self._waiting[key] > 1:
            self._waiting[key] -= 1
        else:
            del self._waiting[key]

    def take(self, may: Callable[[K], bool] | None = None) -> K | None:
        """Whose turn it is now, of those who `may` have one; `None` if none of those who wait may.

        Who may not is passed over, and gains nothing by it.
        """
        found = self._first(may)
        if found is None:
            return None
        start, key = found
        self.drop(key)
        paid_till = start + 1.0 / (1.0 if self._weights is None else self._weights[key])
        if key in self._waiting:
            self._line_up(key, paid_till)
        elif self._waiting:
            self._remember(key, paid_till)
        else:
            self._begin_anew()
        return key

    def _first(self, may: Callable[[K], bool] | None) -> tuple[float, K] | None:
        found: tuple[float, K] | None = None
        passed_over: list[tuple[float, int, K]] = []
        while found is None and self._queue:
            start, number, key = heapq.heappop(self._queue)
            if key in self._waiting and may is not None and not may(key):
                passed_over.append((start, number, key))
                continue
            self._queued.discard(key)
            if key in self._waiting:
                self._now, found = start, (start, key)
        for start, number, key in passed_over:
            heapq.heappush(self._queue, (max(start, self._now), number, key))
        return found

    def _line_up(self, key: K, start: float) -> None:
        self._queued.add(key)
        heapq.heappush(self._queue, (start, next(self._numbers), key))

    def _remember(self, key: K, paid_till: float) -> None:
        """Who waits no more and is back at once has gained nothing by it; what is over is forgotten now and then."""
        self._paid_till[key] = paid_till
        if len(self._paid_till) > self._look_at:
            self._paid_till = {other: till for other, till in self._paid_till.items() if till > self._now}
            self._look_at = _DEBTS_KEPT + 2 * len(self._paid_till)

    def _begin_anew(self) -> None:
        self._now = 0.0
        self._queue.clear()
        self._queued.clear()
        self._paid_till.clear()


@dataclass(frozen=True, slots=True, eq=False)
class Ticket[T]:
    """A place in the queue, for `item`."""

    tenant: str
    priority: Priority
    item: T


class FairQueue[T]:
    """Items of tenants; first come, first served among those of one tenant and priority."""

    def __init__(self) -> None:
        self._tenants = Turns[str]()
        self._priorities: dict[str, Turns[Priority]] = {}
        self._tickets: dict[tuple[str, Priority], OrderedDict[Ticket[T], None]] = {}

    def __bool__(self) -> bool:
        return bool(self._tenants)

    def push(self, tenant: str, priority: Priority, item: T) -> Ticket[T]:
        """Line `item` up."""
        ticket = Ticket(tenant, priority, item)
        self._tenants.add(tenant)
        if tenant not in self._priorities:
            self._priorities[tenant] = Turns(WEIGHTS)
        self._priorities[tenant].add(priority)
        self._tickets.setdefault((tenant, priority), OrderedDict())[ticket] = None
        return ticket

    def pop(self, may: Callable[[str], bool] | None = None) -> T | None:
        """The item whose turn it is, of the tenants who `may` have one; `None` if there is none."""
        tenant = self._tenants.take(may)
        if tenant is None:
            return None
        priority = self._priorities[tenant].take()
        assert priority is not None, "all that it has may go"
        tickets = self._tickets[tenant, priority]
        ticket, _ = tickets.popitem(last=False)
        self._tidy(tenant, priority)
        return ticket.item

    def discard(self, ticket: Ticket[T]) -> None:
        """Take a ticket out of the queue, if it is still in it."""
        tickets = self._tickets.get((ticket.tenant, ticket.priority))
        if tickets is None or ticket not in tickets:
            return
        del tickets[ticket]
        self._tenants.drop(ticket.tenant)
        self._priorities[ticket.tenant].drop(ticket.priority)
        self._tidy(ticket.tenant, ticket.priority)

    def _tidy(self, tenant: str, priority: Priority) -> None:
        if not self._tickets[tenant, priority]:
            del self._tickets[tenant, priority]
        if not self._priorities[tenant]:
            del self._priorities[tenant]
