"""What the machine did: CPU of processes, percentiles, and a figure's place in the results."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import psutil


@dataclass(frozen=True)
class Snapshot:
    """CPU seconds and resident bytes of a set of process trees at one moment."""

    cpu_s: float
    rss: int

    @classmethod
    def of(cls, pids: Iterable[int]) -> Snapshot:
        """Of `pids` and all their children. CPU of children that have ended and were waited for is included."""
        cpu, rss = 0.0, 0
        for pid in pids:
            root = psutil.Process(pid)
            for process in (root, *root.children(recursive=True)):
                try:
                    times = process.cpu_times()
                    cpu += times.user + times.system
                    if process is root:
                        cpu += times.children_user + times.children_system
                    rss += process.memory_info().rss
                except psutil.NoSuchProcess:  # a Postgres backend that has just ended: its parent has its time
                    continue
        return cls(cpu, rss)


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` (0 to 1) of `values` lie, by nearest rank."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
