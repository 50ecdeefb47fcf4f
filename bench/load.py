"""The load: starts runs with a bare NATS client, and hears how they end."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import Any

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

from paracle_domain import subjects
from paracle_domain.ids import new_id

PAYLOAD = "x" * 500
_ENDS = ("run_completed", "run_degraded", "run_failed", "run_cancelled", "run_timed_out")
_START = subjects.cmd(subjects.DEFAULT_TENANT, "orchestrator", "start_run")


class WrongResult(RuntimeError):
    """A run ended otherwise than it must, or not at all: the benchmark's figure would mean nothing."""


@dataclass
class Load:
    """Runs in flight, seen from outside."""

    client: Client
    started: dict[str, float] = field(default_factory=dict)
    latency: dict[str, float] = field(default_factory=dict)
    bodies: list[bytes] = field(default_factory=list)
    _ended: asyncio.Event = field(default_factory=asyncio.Event)
    _waiting: dict[str, asyncio.Future[None]] = field(default_factory=dict)

    @classmethod
    async def connect(cls, url: str) -> Load:
        load = cls(await nats.connect(url, pending_size=64 * 1024 * 1024))
        for end in _ENDS:
            await load.client.subscribe(subjects.evt(subjects.DEFAULT_TENANT, "run", "*", end), cb=load._end)
        await load.client.flush()
        return load

    async def _end(self, message: Msg) -> None:
        run_id = message.subject.split(".")[5]
        began = self.started.get(run_id)
        if began is None or run_id in self.latency:
            return
        self.latency[run_id] = time.perf_counter() - began
        self.bodies.append(message.data)
        future = self._waiting.pop(run_id, None)
        if future is not None and not future.done():
            future.set_result(None)

    async def start(self, workflow: str) -> str:
        """Publish a start command; the run's id. Nobody answers: how it ends is heard on its events."""
        run_id = new_id("run")
        body = json.dumps({"workflow": workflow, "run_id": run_id, "input": {"payload": PAYLOAD}}).encode()
        self._waiting[run_id] = asyncio.get_running_loop().create_future()
        self.started[run_id] = time.perf_counter()
        await self.client.publish(_START, body)
        return run_id

    async def run(self, workflow: str, timeout_s: float = 30) -> None:
        """One run, from its start command to its last event."""
        run_id = await self.start(workflow)
        ended = self._waiting.get(run_id)
        if ended is not None:
            await asyncio.wait_for(ended, timeout_s)

    async def many(self, workflow: str, runs: int, in_flight: int | None, timeout_s: float = 300) -> float:
        """`runs` runs, at most `in_flight` at a time (`None`: all at once); wall seconds."""
        window = asyncio.Semaphore(in_flight or runs)

        async def one() -> None:
            async with window:
                await self.run(workflow, timeout_s)

        began = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(runs)))
        return time.perf_counter() - began

    def check(self, runs: int) -> list[float]:
        """Latencies in milliseconds of all runs so far, each of which completed with the right output.

        Raises
        ------
        WrongResult
            If one is missing or wrong.
        """
        if len(self.latency) != runs:
            raise WrongResult(f"{len(self.latency)} of {runs} runs ended")
        for body in self.bodies:
            record: dict[str, Any] = json.loads(body)
            if record["type"] != "run.completed" or record["data"].get("output") != {"payload": PAYLOAD}:
                raise WrongResult(f"run {record['id']} ended with {record['type']}: {str(record['data'])[:300]}")
        return [seconds * 1_000 for seconds in self.latency.values()]

    def reset(self) -> None:
        """Forget all runs so far."""
        self.started.clear()
        self.latency.clear()
        self.bodies.clear()
        self._waiting.clear()

    async def close(self) -> None:
        await self.client.close()
