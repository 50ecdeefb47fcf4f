"""Paracle's benchmarks: `make bench`, or `make bench ONLY=chain,start`.

Each workload runs on an embedded stack of its own with everything durable, and beside it, in the same run, the floor of
the machine: bare nats-py and asyncpg doing the same messages and commits. A wrong or missing run fails the benchmark.
Besides the table, all figures go to `bench/results.json`, flat.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib import request

import floor
import nats
import psutil
import purge
import queries
from load import PAYLOAD, Load
from measure import Snapshot, percentile

from paracle_client.stack import Stack

HERE = Path(__file__).parent
ROOT = HERE.parent / ".paracle" / "bench"
CHAIN_STEPS = 5


@dataclass(frozen=True)
class Workload:
    """Runs of one workflow. `in_flight` is `None` for as many as there are; `warm` runs go before and do not count."""

    name: str
    workflow: str
    steps: int
    runs: int
    in_flight: int | None
    warm: int
    runs_of_floor: int


WORKLOADS = (
    Workload("chain50", "bench-chain", CHAIN_STEPS, 1_000, 50, 200, 1_000),
    Workload("chain", "bench-chain", CHAIN_STEPS, 1_000, None, 200, 1_000),
    Workload("start", "bench-one", 1, 500, 1, 50, 500),
)
# These need no services: each has a PostgreSQL of its own.
ALONE = {"queries": queries.run, "purge": purge.run}


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--only", default=os.environ.get("ONLY", ""), help="workloads to run, separated by commas")
    parser.add_argument(
        "--repeat", type=int, default=int(os.environ.get("REPEAT", "3")), help="times each; the median counts"
    )
    chosen = parser.parse_args()
    names = [name for name in chosen.only.split(",") if name]
    known = [*(workload.name for workload in WORKLOADS), *ALONE]
    if unknown := set(names) - set(known):
        parser.error(f"no workload {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    figures: dict[str, float] = {}
    if wanted := [workload for workload in WORKLOADS if not names or workload.name in names]:
        with stack() as up:
            for workload in wanted:
                figures |= asyncio.run(measure(up, workload, chosen.repeat))
        show(figures)
    for name in names or ALONE:
        if name in ALONE:
            figures |= ALONE[name]()
    (HERE / "results.json").write_text(json.dumps(figures, indent=2) + "\n", "utf-8")
    return 0


@contextmanager
def stack() -> Iterator[Stack]:
    """An embedded stack of the benchmark's own, on fresh data, with the benchmark's manifests applied."""
    shutil.rmtree(ROOT, ignore_errors=True)
    up = Stack(ROOT, port=0, report=lambda line: print(line, file=sys.stderr))
    try:
        up.up()
        text = (HERE / "manifests.yaml").read_bytes()
        apply = request.Request(f"{up.url}/v1/manifests", data=text, headers={"Content-Type": "application/yaml"})
        with request.urlopen(apply) as answer:
            assert answer.status < 300
        yield up
    finally:
        up.down()


async def measure(up: Stack, workload: Workload, repeat: int) -> dict[str, float]:
    """The figures of `workload`: the median of `repeat` measurements, each followed by one of its floor."""
    rows = []
    load = await Load.connect(up.nats_url)
    await load.many(workload.workflow, workload.warm, workload.in_flight or 50)
    for number in range(repeat):
        rows.append(await once(up, workload, load) | await floor_of(up, workload, number))
        print(f"{workload.name} {number + 1}/{repeat}: {rows[-1]['steps_per_s']:,.0f} steps/s", file=sys.stderr)
    await load.close()
    middle = {key: percentile([row[key] for row in rows], 0.5) for key in rows[0]}
    middle["floor_ratio"] = middle["steps_per_s"] / middle["floor_steps_per_s"]
    return {f"{workload.name}.{key}": round(value, 4) for key, value in middle.items()}


async def once(up: Stack, workload: Workload, load: Load) -> dict[str, float]:
    """One measurement. CPU is that of all processes of the stack, without the load's."""
    load.reset()
    pids = [pid for name in ("nats", "postgres", *SERVICES) if (pid := up.pid(name))]
    before = Snapshot.of(pids)
    wall = await load.many(workload.workflow, workload.runs, workload.in_flight)
    after = Snapshot.of(pids)
    latencies = load.check(workload.runs)
    steps = workload.runs * workload.steps
    return {
        "steps_per_s": steps / wall,
        "cpu_ms_per_step": (after.cpu_s - before.cpu_s) * 1_000 / steps,
        "wall_s": wall,
        "p50_ms": percentile(latencies, 0.50),
        "p95_ms": percentile(latencies, 0.95),
        "p99_ms": percentile(latencies, 0.99),
        "rss_mb": after.rss / 2**20,
    }


SERVICES = ("registry", "orchestrator", "agent_runtime", "provider_gateway", "observability", "api_gateway")


async def floor_of(up: Stack, workload: Workload, number: int) -> dict[str, float]:
    """The floor of `workload` on the same servers."""
    client = await nats.connect(up.nats_url)
    dsn = up.postgres.dsn
    await floor.provision(client, dsn)
    script = (sys.executable, str(HERE / "floor.py"))
    start = asyncio.create_subprocess_exec
    processes = [
        await start(*script, "decide", up.nats_url, dsn, str(workload.steps)),
        await start(*script, "work", up.nats_url),
    ]
    servers = [pid for name in ("nats", "postgres") if (pid := up.pid(name))]
    try:
        await floor.load(up.nats_url, 50, 1, PAYLOAD, f"warm{number}")
        pids = [*servers, *(process.pid for process in processes)]
        before = Snapshot.of(pids)
        wall, latencies = await floor.load(
            up.nats_url, workload.runs_of_floor, workload.in_flight, PAYLOAD, f"floor{number}"
        )
        after = Snapshot.of(pids)
    finally:
        for process in processes:
            process.kill()
            await process.wait()
        await floor.remove(client, dsn)
        await client.close()
    steps = workload.runs_of_floor * workload.steps
    return {
        "floor_steps_per_s": steps / wall,
        "floor_cpu_ms_per_step": (after.cpu_s - before.cpu_s) * 1_000 / steps,
        "floor_p50_ms": percentile(latencies, 0.50),
        "floor_p99_ms": percentile(latencies, 0.99),
    }


def show(figures: dict[str, float]) -> None:
    """The table."""
    cores, memory = psutil.cpu_count(), psutil.virtual_memory().total / 2**30
    print(f"\n{cores} cores, {memory:.0f} GiB; everything durable: PostgreSQL fsync on, NATS sync_interval as embedded")
    columns = (
        "steps_per_s",
        "floor_steps_per_s",
        "floor_ratio",
        "cpu_ms_per_step",
        "p50_ms",
        "p95_ms",
        "p99_ms",
        "floor_p50_ms",
    )
    print(f"{'workload':<10}" + "".join(f"{column:>19}" for column in columns))
    for name in dict.fromkeys(key.partition(".")[0] for key in figures):
        print(f"{name:<10}" + "".join(f"{figures[f'{name}.{column}']:>19,.2f}" for column in columns))


if __name__ == "__main__":
    sys.exit(main())
