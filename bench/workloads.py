"""The workloads: what is run, how much of it, and which figures come of it."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import floor
import nats
import psutil
import soaking
from floor import Shape
from load import Job, Load
from measure import Snapshot, Stored, percentile, pids_of, settled, watched

from paracle_client.stack import Stack

type Figures = dict[str, float]
HERE = Path(__file__).parent
PAYLOAD = "x" * 500
NAP_S = 2.0
_ENOUGH = 1_000  # runs in flight, for the memory of one to stand out from that of a batch
WIDE = 100


def chain(steps: int) -> Job:
    """Steps one after the other, each handing its payload on."""
    name = {1: "bench-one", 5: "bench-chain"}.get(steps, f"bench-chain-{steps}")
    return Job(name, {"payload": PAYLOAD}, {"payload": PAYLOAD})


FAN = Job("bench-fan", {"items": list(range(WIDE)), "payload": PAYLOAD}, {"items": list(range(WIDE))})
SLEEP = Job("bench-sleep", {}, {"slept_s": 2})


@dataclass(frozen=True)
class Workload:
    """Runs of one job. `in_flight` is `None` for as many as there are; `warm` runs go before and do not count."""

    name: str
    job: Job
    shape: Shape
    runs: int
    in_flight: int | None
    warm: int
    once: bool = False

    @property
    def steps(self) -> int:
        return self.runs * self.shape.steps


WORKLOADS = (
    Workload("chain50", chain(5), Shape(chain=5), 1_000, 50, 200),
    Workload("chain", chain(5), Shape(chain=5), 1_000, None, 200),
    Workload("fanout", FAN, Shape(wide=WIDE), 100, None, 10),
    Workload("sleepers", SLEEP, Shape(chain=1, nap_s=NAP_S), 10_000, None, 500, once=True),
    Workload("start", chain(1), Shape(chain=1), 500, 1, 50),
)


async def measure(up: Stack, workload: Workload, repeat: int) -> Figures:
    """The figures of `workload`: the median of `repeat` measurements, each followed by one of its floor."""
    rows = []
    load = await Load.connect(up.nats_url)
    await load.many(workload.job, workload.warm, workload.in_flight or 50)
    for number in range(1 if workload.once else repeat):
        rows.append(await once(up, workload, load) | await floor_of(up, workload, number))
        print(f"{workload.name} {number + 1}: {rows[-1]['steps_per_s']:,.0f} steps/s", file=sys.stderr)
    await load.close()
    middle = {key: percentile([row[key] for row in rows], 0.5) for key in rows[0]}
    middle["floor_ratio"] = middle["steps_per_s"] / middle["floor_steps_per_s"]
    return middle


async def once(up: Stack, workload: Workload, load: Load) -> Figures:
    """One measurement. CPU is that of all processes of the stack, without the load's."""
    load.reset()
    pids, own = pids_of(up), pids_of(up, postgres=False)
    await settled(pids)
    stored, before, memory = await Stored.of(up), Snapshot.of(pids), Snapshot.of(own).rss
    async with watched(up) as peak:
        wall = await load.many(workload.job, workload.runs, workload.in_flight)
        await settled(pids)
    after, kept = Snapshot.of(pids), await Stored.of(up)
    latencies = load.check(workload.job, workload.runs)
    figures = {
        "steps_per_s": workload.steps / wall,
        "cpu_ms_per_step": (after.cpu_s - before.cpu_s) * 1_000 / workload.steps,
        "wall_s": wall,
        "p50_ms": percentile(latencies, 0.50),
        "p95_ms": percentile(latencies, 0.95),
        "p99_ms": percentile(latencies, 0.99),
        "rss_mb": after.rss / 2**20,
        "rows_per_step": (kept.rows - stored.rows) / workload.steps,
        "bytes_per_step": (kept.size - stored.size) / workload.steps,
        "log_bytes_per_step": (kept.log - stored.log) / workload.steps,
    }
    if workload.in_flight is None and workload.runs >= _ENOUGH:
        figures["kb_per_run"] = max(0, peak.rss - memory) / 1_024 / workload.runs
    return figures


async def floor_of(up: Stack, workload: Workload, number: int) -> Figures:
    """The floor of `workload` on the same servers."""
    client = await nats.connect(up.nats_url)
    dsn = up.postgres.dsn
    await floor.provision(client, dsn)
    script, shape = (sys.executable, str(HERE / "floor.py")), json.dumps(asdict(workload.shape))
    start = asyncio.create_subprocess_exec
    roles = ("decide", "think", "answer") if workload.shape.model_s else ("decide", "work")
    processes = [await start(*script, role, shape, up.nats_url, dsn) for role in roles]
    servers = [pid for name in ("nats", "postgres") if (pid := up.pid(name))]
    try:
        await floor.load(up.nats_url, 50, None if workload.shape.waits else 1, PAYLOAD, f"warm{number}")
        pids = [*servers, *(process.pid for process in processes)]
        before = Snapshot.of(pids)
        wall, latencies = await floor.load(up.nats_url, workload.runs, workload.in_flight, PAYLOAD, f"floor{number}")
        after = Snapshot.of(pids)
    finally:
        for process in processes:
            process.kill()
            await process.wait()
        await floor.remove(client, dsn)
        await client.close()
    return {
        "floor_steps_per_s": workload.steps / wall,
        "floor_wall_s": wall,
        "floor_cpu_ms_per_step": (after.cpu_s - before.cpu_s) * 1_000 / workload.steps,
        "floor_p50_ms": percentile(latencies, 0.50),
        "floor_p99_ms": percentile(latencies, 0.99),
    }


async def soak(up: Stack, repeat: int) -> Figures:
    """`SOAK_S` seconds (600) of chains at half of the rate at which they can be done; what is to stay flat."""
    return await soaking.soak(up, repeat, chain(5), 5)


async def history(up: Stack, repeat: int) -> Figures:
    """What a step costs with ten times the runs in the database, and in a run of ten times the steps."""
    load = await Load.connect(up.nats_url)
    pids = pids_of(up)

    async def cost(steps: int, runs: int) -> float:
        found = []
        for _ in range(repeat):
            load.reset()
            await settled(pids)
            before = Snapshot.of(pids).cpu_s
            await load.many(chain(steps), runs, 100)
            await settled(pids)
            found.append((Snapshot.of(pids).cpu_s - before) * 1_000 / (steps * runs))
            load.check(chain(steps), runs)
        return percentile(found, 0.5)

    await load.many(chain(5), 200, 50)
    few = await cost(5, 500)
    await load.many(chain(5), 9 * 500 * repeat, 500)
    many = await cost(5, 500)
    short, long = await cost(10, 500), await cost(100, 50)
    await load.close()
    return {
        "cpu_ms_per_step_few_runs": few,
        "cpu_ms_per_step_many_runs": many,
        "runs_ratio": many / few,
        "cpu_ms_per_step_short_runs": short,
        "cpu_ms_per_step_long_runs": long,
        "steps_ratio": long / short,
    }


THINK = Job("bench-thinker", {}, "completed")
THINK_S = 2.0
_AT_REST: dict[str, int] = {}


def agents(number: int) -> Callable[[Stack, int], Awaitable[Figures]]:
    """So many agents at once in one process of the agent runtime, each waiting for a model that takes two seconds."""

    async def run(up: Stack, repeat: int) -> Figures:
        load = await Load.connect(up.nats_url)
        runtime = [pid for pid in (up.pid("agent_runtime"),) if pid]
        await load.many(THINK, 100, None)  # what is allocated once is no agent's
        _AT_REST.setdefault(up.nats_url, Snapshot.of(runtime).rss)  # memory that was needed once is not given back
        bare = Workload(f"agents{number}", THINK, Shape(chain=1, model_s=THINK_S), number, None, warm=100)
        rows = []
        for time in range(repeat):
            rows.append(await _agents_once(up, load, number, runtime) | await floor_of(up, bare, time))
            rows[-1]["floor_times_ideal"] = rows[-1]["floor_wall_s"] / THINK_S
        await load.close()
        return {key: percentile([row[key] for row in rows], 0.5) for key in rows[0]}

    return run


async def _agents_once(up: Stack, load: Load, number: int, runtime: list[int]) -> Figures:
    load.reset()
    await settled(pids_of(up))
    before, idle = Snapshot.of(pids_of(up)).cpu_s, psutil.cpu_times().idle
    async with watched(up, runtime) as peak:
        wall = await load.many(THINK, number, None)
    idle = psutil.cpu_times().idle - idle
    latencies = load.check(THINK, number)
    cpu = Snapshot.of(pids_of(up)).cpu_s - before
    cores = psutil.cpu_count() or 1
    print(
        f"{number:,} agents: {wall:.2f} s, {wall / THINK_S:.2f} times the model's; "
        f"of {cores * wall:.1f} s of the cores {cpu:.1f} for the stack, {idle:.1f} idle",
        file=sys.stderr,
    )
    return {
        "wall_s": wall,
        "times_ideal": wall / THINK_S,
        "p50_ms": percentile(latencies, 0.50),
        "p99_ms": percentile(latencies, 0.99),
        "cpu_ms_per_agent": cpu * 1_000 / number,
        "stack_share": cpu / cores / wall,
        "idle_share": idle / cores / wall,  # the rest is what others of the machine took, and the load
        "kb_per_agent": (peak.rss - _AT_REST[up.nats_url]) / 1_024 / number,
        "runtime_rss_mb": peak.rss / 2**20,
    }


ON_DEMAND: dict[str, Callable[[Stack, int], Awaitable[Figures]]] = {
    "soak": soak,
    "history": history,
    "agents1000": agents(1_000),
    "agents5000": agents(5_000),
}


def manifests() -> str:
    """What the workloads run: the file, and chains of other lengths."""
    return "\n---\n".join([(HERE / "manifests.yaml").read_text("utf-8"), _chain_of(10), _chain_of(100)])


def _chain_of(steps: int) -> str:
    def step(number: int) -> str:
        source = "input.payload" if number == 1 else f"steps.s{number - 1}.output.payload"
        return f'    - {{id: s{number}, tool: bench-noop, input: {{payload: "{{{{ {source} }}}}"}}}}'

    lines = "\n".join(map(step, range(1, steps + 1)))
    return (
        f"apiVersion: paracle/v1\nkind: Workflow\nmetadata: {{name: bench-chain-{steps}}}\n"
        f"spec:\n  steps:\n{lines}\n"
        f'  output: {{payload: "{{{{ steps.s{steps}.output.payload }}}}"}}\n'
    )
