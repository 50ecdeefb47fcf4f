"""A purge of 100,000 ended runs, and what it does to the commits of those that live.

`make bench ONLY=purge`, or by itself: `.venv/bin/python bench/purge.py [runs]`. In a PostgreSQL of its own, ended runs
with their histories are made by one statement. Then batches of live runs are moved on through the orchestrator's own
store, one commit after the other, first alone, then beside the orchestrator's own purge at its own pace.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
from measure import percentile

from paracle_chassis import migrations
from paracle_chassis.event_store import Append, Page, PostgresEventStore
from paracle_chassis.postgres import Queries, create_pool
from paracle_chassis.settings import ServiceSettings
from paracle_chassis.testing.memory import MemoryBus
from paracle_domain.ids import new_id
from paracle_embedded import PostgresServer
from paracle_orchestrator.adapters.postgres import RUN_TABLES
from paracle_orchestrator.adapters.retention import PostgresRetention
from paracle_orchestrator.retention import Keeping, Purger

RUNS = 100_000
PAGES = 6
LIVE = 50
ALONE_S = 5.0
IDLE_S = 3_600.0
BODY = b'{"type":"step.completed","step":"a","attempt":1,"output":"' + b"x" * 500 + b'"}'

# Runs that ended an hour ago, each with six pages of a step's output; a quarter has labels.
FILL_RUNS = """
insert into runs (id, tenant, version, status, created_at, finished_at, workflow, revision, plan, principal, request,
                  labels)
select 'run_' || lpad(n::text, 26, '0'), 'acme', 12, 'completed', now() - interval '2 hours', now() - interval '1 hour',
       'flow-' || n % 40, 1, 'sha256:' || md5(n::text), 'ada', md5(n::text) || md5(n::text),
       case when n % 4 = 0 then '{"team":"support"}' else '{}' end::json
  from generate_series(1, $1) as n
"""
FILL_HISTORY = """
insert into run_history (id, seq, cause, at, events)
select 'run_' || lpad(n::text, 26, '0'), 2 * page - 1, 'cause', now(), $2::text::json
  from generate_series(1, $1) as n, generate_series(1, $3) as page
"""


async def measure(dsn: str, runs: int) -> dict[str, float]:
    """Latencies of commits in milliseconds, alone and beside the purge, and how long that took."""
    connection = await asyncpg.connect(dsn)
    await migrations.migrate(connection, migrations.load("paracle_orchestrator"))
    events = (b"[" + BODY + b",\n" + BODY + b"]").decode()
    await connection.execute(FILL_RUNS, runs, timeout=600)
    await connection.execute(FILL_HISTORY, runs, events, PAGES, timeout=600)
    await connection.execute("vacuum analyze")
    await connection.execute("checkpoint")
    await connection.close()
    async with create_pool(ServiceSettings(postgres_dsn=dsn)) as pool:
        live = Live(PostgresEventStore(pool, RUN_TABLES))
        alone = await live.commit_until(asyncio.create_task(asyncio.sleep(ALONE_S)))
        purger = Purger(
            PostgresRetention(pool, Queries.load("paracle_orchestrator")),
            Keeping(for_s=60, least_s=60),
            MemoryBus(),
            lambda: datetime.now(UTC),
            every_s=IDLE_S,
        )
        began = time.perf_counter()
        beside = await live.commit_until(asyncio.create_task(purge(purger)))
        took = time.perf_counter() - began
        if left := await pool.fetchval("select count(*) from runs where status = 'completed'"):
            raise AssertionError(f"{left} of {runs} runs were not purged")
    return {
        "runs": runs,
        "wall_s": took,
        **{f"alone_{name}": value for name, value in _of(alone).items()},
        **{f"beside_{name}": value for name, value in _of(beside).items()},
    }


async def purge(purger: Purger) -> None:
    """Rounds at their own pace, until nothing is due."""
    pause = 0.0
    while pause < IDLE_S:
        await asyncio.sleep(pause)
        pause = await purger.round()


class Live:
    """Runs that are moved on, fifty in a commit, as a busy orchestrator does."""

    def __init__(self, store: PostgresEventStore) -> None:
        self._store = store

    async def commit_until(self, done: asyncio.Task[Any]) -> list[float]:
        """Commit again and again until `done`; the milliseconds of each commit."""
        took: list[float] = []
        while not done.done():
            ids = [new_id("run") for _ in range(LIVE)]
            for step in range(PAGES):
                at = datetime.now(UTC)
                page = Page(2 * step + 1, "cause", at, (BODY, BODY))
                facts = _FACTS if step == 0 else None
                batch = [Append(name, "live", 2 * step, (page,), "running", facts=facts) for name in ids]
                began = time.perf_counter()
                assert not await self._store.append(batch)
                took.append((time.perf_counter() - began) * 1_000)
        await done
        return took


_FACTS: dict[str, Any] = {
    **dict.fromkeys(RUN_TABLES.facts),
    "workflow": "live",
    "revision": 1,
    "plan": "sha256:live",
    "principal": "ada",
    "request": "r",
    "labels": "{}",
    "priority": 0,
    "waits": False,
}


def _of(took: list[float]) -> dict[str, float]:
    return {"p50_ms": percentile(took, 0.50), "p99_ms": percentile(took, 0.99), "max_ms": max(took)}


def run(runs: int = RUNS) -> dict[str, float]:
    """Measure and show; the figures by flat names."""
    with tempfile.TemporaryDirectory(prefix="paracle-purge-") as folder, PostgresServer(Path(folder)) as server:
        figures = asyncio.run(measure(server.dsn, runs))
    print(f"\n{runs:,} runs purged in {figures['wall_s']:.1f} s; a commit of {LIVE} live runs takes (ms)")
    for name in ("alone", "beside"):
        words = ", ".join(f"{what} {figures[f'{name}_{what}_ms']:.2f}" for what in ("p50", "p99", "max"))
        print(f"  {name:<8}{words}")
    return {f"purge.{name}": round(value, 3) for name, value in figures.items()}


if __name__ == "__main__":
    run(int(sys.argv[1]) if len(sys.argv) > 1 else RUNS)
