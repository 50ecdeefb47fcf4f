"""Paracle's benchmarks: `make bench`, or `make bench ONLY=chain,start`.

Each workload runs on an embedded stack with everything durable and telemetry on, and beside it, in the same run, the
floor of the machine: bare nats-py and asyncpg doing the same messages and commits; beside `gateway`, its provider asked
directly. A wrong or missing run fails the benchmark. Besides the table, all figures go to `bench/results.json`, flat,
and which Python they are of.

`agents` (1,000 and 5,000 of them at once, each waiting two seconds for its model), `soak` (ten minutes at half the peak
rate; `SOAK_S` shortens it; what is not flat fails it) and `history` (ten times the runs, ten times the steps) only run
when they are asked for.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from typing import Any, override
from urllib import request

import gateway
import journal
import psutil
import purge
import queries
import routing
import uvloop
from workloads import HERE, ON_DEMAND, WORKLOADS, Figures, manifests, measure

from paracle_client.stack import SERVICES, Stack, leave_when_told

TOGETHER = {"agents": ("agents1000", "agents5000")}
ROOT = HERE.parent / ".paracle" / "bench"
COLUMNS = (
    ("steps/s", "steps_per_s"),
    ("floor", "floor_steps_per_s"),
    ("ratio", "floor_ratio"),
    ("CPU ms/step", "cpu_ms_per_step"),
    ("wall s", "wall_s"),
    ("p50 ms", "p50_ms"),
    ("p95 ms", "p95_ms"),
    ("p99 ms", "p99_ms"),
    ("floor p50", "floor_p50_ms"),
    ("KB/run", "kb_per_run"),
    ("rows/step", "rows_per_step"),
    ("DB B/step", "bytes_per_step"),
    ("WAL B/step", "log_bytes_per_step"),
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--only", default=os.environ.get("ONLY", ""), help="workloads to run, separated by commas")
    parser.add_argument(
        "--repeat", type=int, default=int(os.environ.get("REPEAT", "3")), help="times each; the median counts"
    )
    chosen = parser.parse_args()
    leave_when_told()
    known = [*(workload.name for workload in WORKLOADS), "gateway", *ALONE, *ON_DEMAND]
    asked = [part for name in chosen.only.split(",") if name for part in TOGETHER.get(name, (name,))]
    names = asked or [name for name in known if name not in ON_DEMAND]
    if unknown := set(names) - set(known):
        parser.error(f"no workload {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    figures: dict[str, float] = {}
    if wanted := [name for name in names if name not in ALONE]:
        with gateway.instant() as provider_url, stack(provider_url) as up:
            for name in wanted:
                found = uvloop.run(_measured(up, name, chosen.repeat, provider_url))
                figures |= {f"{name}.{key}": round(value, 4) for key, value in found.items()}
        show(figures)
    for name in names:
        if name in ALONE:
            figures |= ALONE[name]()
    routing.show(figures)
    (HERE / "results.json").write_text(json.dumps({"python": interpreter(), **figures}, indent=2) + "\n", "utf-8")
    return int(any(key.endswith(".flat") and not value for key, value in figures.items()))


def _measured(up: Stack, name: str, repeat: int, provider_url: str) -> Coroutine[Any, Any, Figures]:
    if name == "gateway":
        return gateway.run(up, repeat, provider_url)
    workload = next((workload for workload in WORKLOADS if workload.name == name), None)
    return measure(up, workload, repeat) if workload is not None else _on_demand(up, name, repeat)


async def _on_demand(up: Stack, name: str, repeat: int) -> Figures:
    return await ON_DEMAND[name](up, repeat)


@contextmanager
def stack(provider_url: str, gateway: Mapping[str, str] = MappingProxyType({})) -> Iterator[Stack]:
    """An embedded stack of the benchmark's own, on fresh data, with the benchmark's manifests and provider.

    `gateway`: what else the provider gateway is told.
    """
    shutil.rmtree(ROOT, ignore_errors=True)
    with collector() as endpoint:
        told = {service.name: {"PARACLE_OTLP_ENDPOINT": endpoint} for service in SERVICES}
        told["provider_gateway"]["PARACLE_MODEL_CONCURRENCY"] = "10000"  # the sandbox has no limit to be kept
        told["provider_gateway"]["PARACLE_OPENAI_BASE_URL"] = provider_url
        told["provider_gateway"] |= gateway
        up = Stack(ROOT, port=0, report=lambda line: print(line, file=sys.stderr), extra_env=told)
        try:
            up.up()
            text = manifests().encode()
            apply = request.Request(f"{up.url}/v1/manifests", data=text, headers={"Content-Type": "application/yaml"})
            with request.urlopen(apply) as answer:
                assert answer.status < 300
            yield up
        finally:
            up.down()


# These need no services, or have a stack of their own; the first two have a PostgreSQL of their own.
ALONE: dict[str, Callable[[], Figures]] = {
    "queries": queries.run,
    "purge": purge.run,
    "journal": journal.run,
    "failover": lambda: routing.failover(stack),
    "noisy": lambda: routing.noisy(stack),
}


class _Taken(BaseHTTPRequestHandler):
    """Takes whatever telemetry is sent, and forgets it."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    @override
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def collector() -> Iterator[str]:
    """Where the services send their telemetry."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Taken)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


def interpreter() -> str:
    """The version of this Python, and how it was built, on which figures depend."""
    told = subprocess.run([sys.executable, HERE.parent / "scripts/interpreter"], stdout=subprocess.PIPE, check=False)
    return told.stdout.decode().strip()


def show(figures: dict[str, float]) -> None:
    """The table, and below it what does not fit in."""
    cores, memory = psutil.cpu_count(), psutil.virtual_memory().total / 2**30
    print(
        f"\n{cores} cores, {memory:.0f} GiB; Python {interpreter()}; all six services, telemetry on; "
        "PostgreSQL: fsync, synchronous_commit on; "
        "NATS: sync_interval 100ms (answers come from PostgreSQL), TASKS, RESULTS, EVENTS behind (persist_mode async)"
    )
    rest = {key: value for key, value in figures.items() if not key.startswith("gateway.")}
    if len(rest) < len(figures):
        gateway.show(figures)
    if not rest:
        return
    print(f"{'workload':<10}" + "".join(f"{title:>12}" for title, _ in COLUMNS))
    for name in dict.fromkeys(key.partition(".")[0] for key in rest):
        found = [rest.pop(f"{name}.{column}", None) for _, column in COLUMNS]
        print(f"{name:<10}" + "".join(f"{'' if value is None else f'{value:,.2f}':>12}" for value in found))
    for key in [key for key in rest if key.partition(".")[0] in ON_DEMAND]:
        print(f"{key:<40}{rest[key]:>12,.2f}")


if __name__ == "__main__":
    sys.exit(main())
