"""What the machine did: CPU and memory of processes, rows and bytes of databases, percentiles."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import asyncpg
import psutil

from paracle_client.stack import SERVICES, Stack

_LOOK_S = 0.1
_SETTLE_S = 0.5


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


def private_bytes(pid: int, *, children: bool) -> int:
    """Resident bytes of a process, and of all its `children`, without what they share with others.

    To look for children takes some milliseconds, in which whoever asks does nothing else.
    """
    root, found = psutil.Process(pid), 0
    for process in (root, *(root.children(recursive=True) if children else ())):
        try:
            memory = process.memory_info()
        except psutil.NoSuchProcess:
            continue
        found += memory.rss - memory.shared
    return found


def pids_of(up: Stack, *, postgres: bool = True) -> list[int]:
    """The processes of the stack. PostgreSQL's share their memory, which would be counted for each of them."""
    names = ("nats", *(("postgres",) if postgres else ()), *(service.name for service in SERVICES))
    return [pid for name in names if (pid := up.pid(name))]


@dataclass(frozen=True)
class Stored:
    """Rows and bytes in all databases, and bytes of write-ahead log, at one moment."""

    rows: int
    size: int
    log: int

    @classmethod
    async def of(cls, up: Stack) -> Stored:
        """As PostgreSQL counts."""
        connection = await asyncpg.connect(up.postgres.dsn)
        try:
            databases = await connection.fetch(
                "select datname, pg_database_size(datname) as size from pg_database where datname like 'paracle%'"
            )
            log = await connection.fetchval("select pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint")
        finally:
            await connection.close()
        rows = 0
        for database in databases:
            connection = await asyncpg.connect(up.postgres.dsn_of(database["datname"]))
            try:
                rows += await connection.fetchval(
                    "select coalesce(sum(n_tup_ins - n_tup_del), 0)::bigint from pg_stat_user_tables"
                )
            finally:
                await connection.close()
        return cls(rows, sum(database["size"] for database in databases), log)


@dataclass
class Peak:
    """The most memory that was seen."""

    rss: int = 0


@asynccontextmanager
async def watched(up: Stack, pids: Sequence[int] = ()) -> AsyncIterator[Peak]:
    """Look at the memory of NATS and the services (or of `pids`), which have no children, again and again within it.

    This is done where the load is made. To look for children is to read about every process of the machine, and for the
    twenty milliseconds that it took, no run was started and none heard of.
    """
    processes = [psutil.Process(pid) for pid in pids or pids_of(up, postgres=False)]
    peak = Peak()

    async def look() -> None:
        while True:
            peak.rss = max(peak.rss, sum(process.memory_info().rss for process in processes))
            await asyncio.sleep(_LOOK_S)

    looking = asyncio.create_task(look())
    try:
        yield peak
    finally:
        looking.cancel()
        with suppress(asyncio.CancelledError):  # whatever else ended it makes the figure none
            await looking


async def settled(pids: Sequence[int]) -> None:
    """Wait until what follows from a load (audit, statistics) is done too: it belongs to its cost."""
    before = Snapshot.of(pids).cpu_s
    while True:
        await asyncio.sleep(_SETTLE_S)
        now = Snapshot.of(pids).cpu_s
        if now - before < _SETTLE_S * 0.1:
            return
        before = now


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` (0 to 1) of `values` lie, by nearest rank."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
