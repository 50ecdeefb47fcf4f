"""The worker pools that this process serves: how much each may have in hand, and when nothing new is taken."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from paracle_agent_runtime import telemetry
from paracle_agent_runtime.memory import resident_mb
from paracle_chassis.garbage import give_back
from paracle_chassis.room import Room
from paracle_domain.task.pools import PoolState

_log = logging.getLogger(__name__)

# Nothing is taken above the ceiling until this share of it is free again: it must not open and close all the time.
_RELIEF: Final = 0.95
# Nothing else goes on while memory is given back, which takes seconds in a large process: it is to be a small part of
# all time, or what is in hand would never be done.
_TIDY_EVERY_S: Final = 2.0
_REST: Final = 20.0


@dataclass(frozen=True, slots=True)
class PoolReport:
    """How one pool stands in one process; `in_hand` by tenant, and `for_people` of those, while it drains."""

    state: PoolState
    concurrency: int
    in_hand: Mapping[str, int]
    for_people: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """How one process of the runtime stands: what it says of itself with every sign of life."""

    host: str = ""
    pid: int = 0
    memory_mb: int = 0
    memory_ceiling_mb: int | None = None
    pools: Mapping[str, PoolReport] = field(default_factory=dict)


class Pool:
    """A worker pool as this process serves it."""

    def __init__(self, name: str, concurrency: int) -> None:
        self.name = name
        self.room = Room(concurrency)
        self.in_hand: Counter[str] = Counter()
        self._left = asyncio.Event()

    def enter(self, tenant: str) -> None:
        """A task of `tenant` is taken on."""
        self.in_hand[tenant] += 1
        self.room.enter()

    def leave(self, tenant: str) -> None:
        """A task of `tenant` has gone."""
        self.in_hand[tenant] -= 1
        if not self.in_hand[tenant]:
            del self.in_hand[tenant]
        self.room.leave()
        self._left.set()

    async def until_free(self) -> None:
        """Wait for a place: what comes nevertheless, since it was on its way."""
        while not self.room.free:
            self._left.clear()
            await self._left.wait()


class Pools:
    """All pools of this process. It takes nothing of those that are drained, and of none while it has too much memory.

    Parameters
    ----------
    sizes
        Most tasks at once, by pool.
    ceiling_mb
        Memory in use above which nothing new is taken; `None`: no such bound.
    measure
        Gives the memory in use, in MiB.
    tidy
        Gives back what is not in use.
    clock
        Gives seconds, from whenever on.
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        *,
        ceiling_mb: int | None = None,
        measure: Callable[[], int] = resident_mb,
        tidy: Callable[[], None] = give_back,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pools = {name: Pool(name, size) for name, size in sizes.items()}
        self._ceiling_mb = ceiling_mb
        self._measure = measure
        self._tidy = tidy
        self._clock = clock
        self._tidy_from = -math.inf
        self._drained: frozenset[str] = frozenset()
        self.stopping = False
        self.over_memory = False

    def __iter__(self) -> Iterator[Pool]:
        return iter(self._pools.values())

    def __getitem__(self, name: str) -> Pool:
        return self._pools[name]

    def drain(self, names: Collection[str]) -> None:
        """Take nothing of the pools in `names` from now on, and of all others again."""
        drained = frozenset(names) & self._pools.keys()
        for name in sorted(drained - self._drained):
            _log.info("pool %s is drained: nothing new is taken", name)
        for name in sorted(self._drained - drained):
            _log.info("pool %s is resumed", name)
        self._drained = drained
        self._settle()

    def stop(self) -> None:
        """Say that this process ends."""
        self.stopping = True

    def weigh(self) -> None:
        """Look at the memory in use, and take nothing new above the ceiling."""
        if self._ceiling_mb is None:
            return
        used, most = self._measure(), self._ceiling_mb * _RELIEF if self.over_memory else self._ceiling_mb
        began = self._clock()
        if used > most and began >= self._tidy_from:
            self._tidy()
            used, ended = self._measure(), self._clock()
            self._tidy_from = ended + max(_TIDY_EVERY_S, _REST * (ended - began))
        over = used > most
        if over == self.over_memory:
            return
        self.over_memory = over
        if over:
            _log.warning("%d MiB in use, the ceiling is %d MiB: no new tasks are taken", used, self._ceiling_mb)
        else:
            _log.info("%d MiB in use, the ceiling is %d MiB: tasks are taken again", used, self._ceiling_mb)
        self._settle()

    def _settle(self) -> None:
        for pool in self:
            closed = self.over_memory or pool.name in self._drained
            if closed != pool.room.closed:
                (pool.room.close if closed else pool.room.open)()

    def _state(self, pool: Pool) -> PoolState:
        if self.stopping:
            return PoolState.DRAINING if pool.in_hand else PoolState.DRAINED
        if pool.name in self._drained:
            return PoolState.DRAINING if pool.in_hand or not pool.room.quiet else PoolState.DRAINED
        return PoolState.OVER_MEMORY if self.over_memory else PoolState.OPEN

    def report(self, for_people: Callable[[Pool], Mapping[str, int]] = lambda _: {}) -> WorkerReport:
        """How all stands now; metrics say the same. `for_people` counts tasks of a pool that wait for people."""
        memory_mb = self._measure()
        pools = {pool.name: self._report(pool, for_people) for pool in self}
        for name, one in pools.items():
            about = {"pool": name}
            telemetry.pool_tasks.set(sum(one.in_hand.values()), about)
            telemetry.pool_concurrency.set(one.concurrency, about)
            telemetry.pool_open.set(int(one.state is PoolState.OPEN), about)
        telemetry.memory.set(memory_mb)
        return WorkerReport(socket.gethostname(), os.getpid(), memory_mb, self._ceiling_mb, pools)

    def _report(self, pool: Pool, for_people: Callable[[Pool], Mapping[str, int]]) -> PoolReport:
        state = self._state(pool)
        waiting = for_people(pool) if state is PoolState.DRAINING else {}
        return PoolReport(state, pool.room.size, dict(pool.in_hand), waiting)

    def facts(self) -> Mapping[str, Any]:
        """What readiness shows of it."""
        return {
            "memory_mb": self._measure(),
            "memory_ceiling_mb": self._ceiling_mb,
            "pools": {
                pool.name: {
                    "state": self._state(pool),
                    "in_hand": pool.in_hand.total(),
                    "concurrency": pool.room.size,
                }
                for pool in self
            },
        }
