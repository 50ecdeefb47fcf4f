"""The load: starts runs with a bare NATS client, and hears how they end."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import Any

import nats
from nats.aio.client import Client

from paracle_chassis import frames
from paracle_chassis.inlet import Incoming, Inlet
from paracle_domain import subjects
from paracle_domain.ids import new_id

_ENDS = ("run_completed", "run_degraded", "run_failed", "run_cancelled", "run_timed_out")
_START = subjects.cmd(subjects.DEFAULT_TENANT, "orchestrator", "start_run")


class WrongResult(RuntimeError):
    """A run ended otherwise than it must, or not at all: the benchmark's figure would mean nothing."""


@dataclass(frozen=True)
class Job:
    """What is run: a workflow with an input, and what has to come of it."""

    workflow: str
    input: dict[str, Any]
    output: Any


@dataclass
class Load:
    """Runs in flight, seen from outside."""

    client: Client
    started: dict[str, float] = field(default_factory=dict)
    latency: dict[str, float] = field(default_factory=dict)
    bodies: list[bytes] = field(default_factory=list)
    _waiting: dict[str, asyncio.Future[None]] = field(default_factory=dict)

    @classmethod
    async def connect(cls, url: str) -> Load:
        load = cls(await nats.connect(url, pending_size=64 * 1024 * 1024))
        inlet = Inlet.on(load.client)
        for end in _ENDS:
            subject = subjects.evt(subjects.DEFAULT_TENANT, "run", "*", end)
            inlet.divert(await load.client.subscribe(subject), load._end)
        await frames.flushed(load.client)
        return load

    def _end(self, message: Incoming) -> None:
        run_id = message.subject.split(".")[5]
        began = self.started.get(run_id)
        if began is None or run_id in self.latency:
            return
        self.latency[run_id] = time.perf_counter() - began
        self.bodies.append(message.data)
        future = self._waiting.pop(run_id, None)
        if future is not None and not future.done():
            future.set_result(None)

    async def run(self, job: Job, body: str, timeout_s: float) -> None:
        """One run, from its start command (which nobody answers: its end is heard on its events) to its last event."""
        run_id = new_id("run")
        ended = self._waiting[run_id] = asyncio.get_running_loop().create_future()
        self.started[run_id] = time.perf_counter()
        command = f'{{"workflow":"{job.workflow}","run_id":"{run_id}","input":{body}}}'
        await frames.post(self.client, [frames.pub(_START, command.encode())])
        async with asyncio.timeout(timeout_s):
            await ended

    async def many(self, job: Job, runs: int, in_flight: int | None, timeout_s: float = 300) -> float:
        """`runs` runs, at most `in_flight` at a time (`None`: all at once); wall seconds."""
        body = json.dumps(job.input)
        window = asyncio.Semaphore(in_flight or runs)

        async def one() -> None:
            async with window:
                await self.run(job, body, timeout_s)

        began = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(runs)))
        return time.perf_counter() - began

    async def steady(self, job: Job, per_s: float, seconds: float, timeout_s: float = 60) -> None:
        """Runs that are started at a steady rate, whatever becomes of those before."""
        body = json.dumps(job.input)
        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in range(int(per_s * seconds)):
                due = began + number / per_s
                if (early := due - time.perf_counter()) > 0:
                    await asyncio.sleep(early)
                group.create_task(self.run(job, body, timeout_s))

    def check(self, job: Job, runs: int) -> list[float]:
        """Latencies in milliseconds of all runs so far, in their order, each of which completed with the right output.

        Raises
        ------
        WrongResult
            If one is missing or wrong.
        """
        if len(self.latency) != runs:
            raise WrongResult(f"{len(self.latency)} of {runs} runs ended")
        for body in self.bodies:
            record: dict[str, Any] = json.loads(body)
            if record["type"] != "run.completed" or record["data"].get("output") != job.output:
                raise WrongResult(f"run {record['id']} ended with {record['type']}: {str(record['data'])[:300]}")
        return [self.latency[run_id] * 1_000 for run_id in self.started]

    def reset(self) -> None:
        """Forget all runs so far."""
        self.started.clear()
        self.latency.clear()
        self.bodies.clear()
        self._waiting.clear()

    async def close(self) -> None:
        await self.client.close()
