"""The soak: chains at half of the rate at which they can be done, and whether anything grows by it.

First everything that is bounded fills. By number: EVENTS ends at some millions of messages, of each of which NATS holds
a place in memory; so many chains are done as fast as possible, five hundred in flight (five minutes). The last of them
tell the rate: an empty stack does more, but only for seconds. By time: NATS knows the ids of TASKS and RESULTS for two
minutes, its caches and its collector let go after some more seconds, and what the services remember is as many as there
are in so long. That is the warm-up (`SOAK_WARM_S`, 150); a steady state can only be looked for behind it, for `SOAK_S`
(600) seconds.

It is flat if

- no process grows: a straight line through its memory, looked at every two seconds, rises over the whole time by at
  most 10 MB, or 5 % of it (without what is shared, as PostgreSQL's buffers, which are as large as they are told to be);
- no latency grows: the median of the minutes' p50 and p99 in the last third is at most half more than in the first.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from math import ceil
from statistics import linear_regression, median
from time import perf_counter

from load import Job, Load, WrongResult
from measure import Stored, percentile, private_bytes

from paracle_client.stack import SERVICES, Stack
from paracle_domain.subjects import EVENTS

_LOOK_S = 2.0
_MINUTE_S = 60.0
_LEAST_MB, _SHARE = 10.0, 0.05
_SLOWER = 1.5
_PORTION, _IN_FLIGHT = 5_000, 500


@dataclass
class Sizes:
    """The memory of each process over time: `(second, MB)`."""

    of: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def look(self, up: Stack, second: float) -> None:
        for name in ("nats", "postgres", *(service.name for service in SERVICES)):
            if not (pid := up.pid(name)):
                raise WrongResult(f"{name} is gone after {second:.0f} s")
            self.of.setdefault(name, []).append((second, private_bytes(pid, children=name == "postgres") / 2**20))

    def last(self) -> str:
        """The latest look."""
        return ", ".join(f"{name} {looks[-1][1]:.0f}" for name, looks in self.of.items()) + " MB"

    def figures(self, seconds: float) -> tuple[dict[str, float], list[str]]:
        """What is reported, and which processes grow."""
        found: dict[str, float] = {}
        growing = []
        for name, looks in self.of.items():
            times, sizes = zip(*looks, strict=True)
            size, growth = median(sizes), linear_regression(times, sizes).slope * seconds
            found |= {f"{name}_mb": size, f"{name}_growth_mb": growth}
            if growth > max(_LEAST_MB, _SHARE * size):
                growing.append(f"{name} grew by {growth:.0f} MB")
        return found, growing


@dataclass(frozen=True)
class Minute:
    """How long the runs that were started in a minute took."""

    runs: int
    p50_ms: float
    p99_ms: float


async def soak(up: Stack, _repeat: int, job: Job, steps: int) -> dict[str, float]:
    """The figures; `flat` is 1 or 0."""
    seconds, warm_s = float(os.environ.get("SOAK_S", "600")), float(os.environ.get("SOAK_WARM_S", "150"))
    load = await Load.connect(up.nats_url)
    print(f"soak: filling {EVENTS}", file=sys.stderr)
    rate = await _fill(load, job) / 2
    print(f"soak: {rate:.0f} runs/s; warming up for {warm_s:.0f} s", file=sys.stderr)
    await load.steady(job, rate, warm_s)
    load.reset()
    before, began = await Stored.of(up), perf_counter()
    async with looking(up) as sizes:
        minutes = await _minutes(load, job, rate, seconds, sizes)
    wall, after = perf_counter() - began, await Stored.of(up)
    await load.close()
    done = sum(minute.runs for minute in minutes) * steps
    memory, growing = sizes.figures(wall)
    speed, slower = _latencies(minutes)
    for what in [*growing, *slower]:
        print(f"soak: not flat: {what}", file=sys.stderr)
    return {
        "steps_per_s": done / wall,
        **speed,
        "bytes_per_step": (after.size - before.size) / done,
        "log_bytes_per_step": (after.log - before.log) / done,
        **memory,
        "flat": float(not growing and not slower),
    }


async def _fill(load: Load, job: Job) -> float:
    """Go on until the stream of events is as long as it ever becomes; runs/s at the end."""
    jetstream = load.client.jetstream()
    while True:
        rate = _PORTION / await load.many(job, _PORTION, _IN_FLIGHT)
        load.reset()
        info = await jetstream.stream_info(EVENTS)
        if info.config.max_msgs is None or info.state.messages >= info.config.max_msgs:
            return rate


async def _minutes(load: Load, job: Job, rate: float, seconds: float, sizes: Sizes) -> list[Minute]:
    """At least three, of which a short soak has shorter ones: the last is held against the first."""
    found: list[Minute] = []
    number = max(3, ceil(seconds / _MINUTE_S))
    for _ in range(number):
        await load.steady(job, rate, seconds / number)
        latencies = load.check(job, len(load.started))
        load.reset()
        found.append(Minute(len(latencies), percentile(latencies, 0.50), percentile(latencies, 0.99)))
        latency = f"p50 {found[-1].p50_ms:.1f} ms, p99 {found[-1].p99_ms:.1f} ms"
        print(f"soak {len(found)}: {latency}; {sizes.last()}", file=sys.stderr)
    return found


def _latencies(minutes: Sequence[Minute]) -> tuple[dict[str, float], list[str]]:
    third = len(minutes) // 3
    found: dict[str, float] = {}
    slower = []
    for name in ("p50_ms", "p99_ms"):
        every = [float(getattr(minute, name)) for minute in minutes]
        first, last = median(every[:third]), median(every[-third:])
        found |= {name: median(every), f"{name}_first": first, f"{name}_last": last}
        if last > first * _SLOWER:
            slower.append(f"{name} went from {first:.1f} to {last:.1f}")
    return found, slower


@asynccontextmanager
async def looking(up: Stack) -> AsyncIterator[Sizes]:
    """Look at the memory of all processes again and again within it."""
    sizes = Sizes()
    began = perf_counter()

    async def look() -> None:
        while True:
            sizes.look(up, perf_counter() - began)
            await asyncio.sleep(_LOOK_S)

    task = asyncio.create_task(look())
    try:
        yield sizes
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):  # whatever else ended it makes "flat" mean nothing
            await task
