"""Lists over 1,000,000 runs: how long the first page takes for each filter that somebody would use, rare or common.

`make bench ONLY=queries`, or by itself: `.venv/bin/python bench/queries.py [runs]`. The runs are made by one statement
in a PostgreSQL of its own, and asked for through the orchestrator's own index, a fresh connection for every filter,
so that no plan is tuned to the one before. A wrong answer fails the benchmark.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
from measure import percentile

from paracle_chassis import migrations
from paracle_chassis.postgres import Queries, create_pool
from paracle_chassis.settings import ServiceSettings
from paracle_domain.run.commands import RunFilter, RunStatus
from paracle_embedded import PostgresServer
from paracle_orchestrator.adapters.run_index import PostgresRunIndex

RUNS = 1_000_000
TIMES = 50
TENANT = "acme"
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)

# A run a second of 40 workflows: most completed, every 50th failed, 5 timed out, the last thousand running; a quarter
# has labels, three have a rare one, and the oldest thousand are another workflow's. A thousand are one run's children.
FILL = """
insert into runs (id, tenant, version, status, created_at, finished_at, workflow, revision, plan, principal, request,
                  labels, parent)
select 'run_' || lpad(n::text, 26, '0'), $2, 12,
       case when n > $1 - 1000 then 'running' when n % ($1 / 5) = 77 then 'timed_out'
            when n % 50 = 0 then 'failed' else 'completed' end,
       at, case when n <= $1 - 1000 then at + interval '2 s' end,
       case when n <= 1000 then 'old' else 'flow-' || n % 40 end, 1, 'sha256:' || md5(n::text), 'ada',
       md5(n::text) || md5(n::text),
       case when n % ($1 / 3) = 5 then '{"customer":"rare","team":"support"}'
            when n % 4 = 0 then '{"team":"support","env":"prod"}'
            when n % 4 = 1 and n < $1 / 2 then '{"team":"sales","env":"test"}' else '{}' end::json,
       case when n % ($1 / 1000) = 3 then 'run_00000000000000000000000001' end
  from generate_series(1, $1::int) as n, lateral (select timestamptz '2026-01-01Z' + n * interval '1 second' as at) as t
"""


@dataclass(frozen=True)
class Case:
    """What is asked, and how many runs its first page must have."""

    name: str
    query: RunFilter
    runs: int = 50
    limit: int = 50


def cases(runs: int) -> list[Case]:
    """Every filter by itself and with others; `runs` is how many there are."""
    late = EPOCH + timedelta(seconds=runs - 10)
    failed, timed_out = RunStatus.FAILED, RunStatus.TIMED_OUT
    team, rare, env = {"team": "support"}, {"customer": "rare"}, {"env": "prod"}
    return [
        Case("all", RunFilter()),
        Case("all, 500 a page", RunFilter(), 500, limit=500),
        Case("status, common", RunFilter(statuses=(RunStatus.COMPLETED,))),
        Case("status, 5 runs", RunFilter(statuses=(timed_out,)), 5),
        Case("statuses, several", RunFilter(statuses=(failed, timed_out, RunStatus.RUNNING))),
        Case("status, none", RunFilter(statuses=(RunStatus.CANCELLED,)), 0),
        Case("workflow, common", RunFilter(workflow="flow-7")),
        Case("workflow, old runs only", RunFilter(workflow="old")),
        Case("workflow, none", RunFilter(workflow="nope"), 0),
        Case("workflow + status", RunFilter(workflow="flow-10", statuses=(failed,))),
        Case("workflow + status, none", RunFilter(workflow="flow-7", statuses=(failed,)), 0),
        Case("label, common", RunFilter(labels=team)),
        Case("label, 3 runs", RunFilter(labels=rare), 3),
        Case("label, none", RunFilter(labels={"no": "such"}), 0),
        Case("label + status", RunFilter(labels=team, statuses=(failed,))),
        Case("label + status, none", RunFilter(labels=env, statuses=(timed_out,)), 0),
        Case("label + workflow", RunFilter(labels=team, workflow="flow-8")),
        Case("label + workflow, none", RunFilter(labels=team, workflow="flow-7"), 0),
        Case("label + workflow + status", RunFilter(labels=team, workflow="flow-20", statuses=(failed,))),
        Case("labels, two common", RunFilter(labels=team | env)),
        Case("labels, rare and common", RunFilter(labels=rare | team), 3),
        Case("labels, two that never meet", RunFilter(labels={"team": "sales"} | env), 0),
        Case("since", RunFilter(created_after=late), 11),
        Case("before", RunFilter(created_before=EPOCH + timedelta(seconds=100))),
        Case("since + status", RunFilter(created_after=late, statuses=(failed,)), 0),
        Case("since + before + workflow", RunFilter(created_after=EPOCH, created_before=late, workflow="flow-3")),
        Case("parent", RunFilter(parent="run_00000000000000000000000001")),
        Case("parent + status, none", RunFilter(parent="run_00000000000000000000000001", statuses=(failed,)), 0),
    ]


async def measure(dsn: str, runs: int = RUNS) -> dict[str, float]:
    """p50 and p99 in milliseconds of each case's first page, over `runs` runs made in the database at `dsn`."""
    connection = await asyncpg.connect(dsn)
    await migrations.migrate(connection, migrations.load("paracle_orchestrator"))
    await connection.execute(FILL.replace("$1::int", str(runs)).replace("$1", str(runs)).replace("$2", f"'{TENANT}'"))
    await connection.execute("vacuum analyze")
    await connection.close()
    figures: dict[str, float] = {}
    for case in cases(runs):
        async with create_pool(ServiceSettings(postgres_dsn=dsn)) as pool:
            index = PostgresRunIndex(pool, Queries.load("paracle_orchestrator"))
            took = [await _ask(index, case) for _ in range(TIMES)]
        figures[f"{case.name}.p50_ms"] = percentile(took, 0.50)
        figures[f"{case.name}.p99_ms"] = percentile(took, 0.99)
    return figures


async def _ask(index: PostgresRunIndex, case: Case) -> float:
    began = time.perf_counter()
    page = await index.page(TENANT, case.query, case.limit)
    took = (time.perf_counter() - began) * 1_000
    if len(page.runs) != case.runs:
        raise AssertionError(f"{case.name}: {len(page.runs)} runs instead of {case.runs}")
    return took


def show(figures: dict[str, float], runs: int) -> None:
    """The table."""
    print(f"\nfirst page over {runs:,} runs{'p50 ms':>20}{'p99 ms':>10}")
    for name in dict.fromkeys(key.rpartition(".")[0] for key in figures):
        print(f"  {name:<32}{figures[f'{name}.p50_ms']:>10.2f}{figures[f'{name}.p99_ms']:>10.2f}")


def run(runs: int = RUNS) -> dict[str, float]:
    """Measure and show; the figures by flat names."""
    with tempfile.TemporaryDirectory(prefix="paracle-queries-") as folder, PostgresServer(Path(folder)) as server:
        figures = asyncio.run(measure(server.dsn, runs))
    show(figures, runs)
    return {f"queries.{name.replace(', ', '_').replace(' ', '_')}": round(value, 3) for name, value in figures.items()}


if __name__ == "__main__":
    run(int(sys.argv[1]) if len(sys.argv) > 1 else RUNS)
