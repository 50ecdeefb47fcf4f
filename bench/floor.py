"""The machine's own floor: bare nats-py and asyncpg doing the same messages and commits.

Two processes, as in Paracle: a *decider* pulls starts and results, appends one row for each in one commit a batch, and
publishes tasks; a *worker* pulls tasks and publishes results. No contract, no state, no checks, no telemetry.

    start ─► decider ─► task ─► worker ─► result ─► decider ─► … ─► done
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import asyncpg
import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

from paracle_chassis.frames import flushed

STREAM, STARTS = "FLOOR", "FLOOR_STARTS"
_BATCH = 500
_APPEND = (
    "insert into floor_history (id, seq, cause, events) "
    "select u.id, u.seq, u.cause, u.events::json from unnest($1::text[], $2::int[], $3::text[], $4::text[]) "
    "as u(id, seq, cause, events) on conflict do nothing"
)
_STREAMS: dict[str, dict[str, Any]] = {
    STREAM: {"subjects": ["floor.task", "floor.result"], "persist_mode": "async"},  # as TASKS and RESULTS are
    STARTS: {"subjects": ["floor.start"], "no_ack": True, "duplicate_window": 100_000_000},  # as COMMANDS is
}
type Handle = Callable[[list[Msg]], Awaitable[None]]


@dataclass(frozen=True)
class Shape:
    """What a run is: steps one after the other, or one, `wide` side by side, and one; each takes `nap_s` seconds."""

    chain: int = 0
    wide: int = 0
    nap_s: float = 0

    @property
    def steps(self) -> int:
        return self.wide + 2 if self.wide else self.chain

    def following(self, step: int, joined: Counter[str], run: str) -> range | None:
        """The steps that begin when number `step` (0: the start) has ended; `None` when it was the last."""
        if not self.wide or step == 0:
            return range(step + 1, step + 2) if step < self.steps else None
        if step == 1:
            return range(2, self.wide + 2)
        if step == self.steps:
            return None
        joined[run] += 1
        return range(self.steps, self.steps + 1) if joined[run] == self.wide else range(0)


async def provision(client: Client, dsn: str) -> None:
    """Streams and a table of its own."""
    for name, more in _STREAMS.items():
        config = {"name": name, "retention": "workqueue", "storage": "file", "num_replicas": 1, **more}
        answer = await client.request(f"$JS.API.STREAM.CREATE.{name}", json.dumps(config).encode(), timeout=5)
        if "error" in json.loads(answer.data):
            raise RuntimeError(f"the floor's stream cannot be made: {answer.data.decode()}")
    connection = await asyncpg.connect(dsn)
    await connection.execute("drop table if exists floor_history")
    await connection.execute(
        "create table floor_history (id text, seq int, cause text, at timestamptz default now(), events json, "
        "primary key (id, seq))"
    )
    await connection.close()


async def remove(client: Client, dsn: str) -> None:
    """Take the streams and the table away again."""
    for name in _STREAMS:
        await client.jetstream().delete_stream(name)
    connection = await asyncpg.connect(dsn)
    await connection.execute("drop table if exists floor_history")
    await connection.close()


async def consume(client: Client, stream: str, durable: str, subject: str, handle: Handle) -> None:
    """Pull what is there, at once, for ever: one standing request on one inbox."""
    js = client.jetstream()
    config = nats.js.api.ConsumerConfig(
        durable_name=durable, filter_subject=subject, ack_policy=nats.js.api.AckPolicy.EXPLICIT, max_ack_pending=20_000
    )
    await js.add_consumer(stream, config)
    buffer: list[Msg] = []
    arrived = asyncio.Event()

    async def on_message(message: Msg) -> None:
        buffer.append(message)
        arrived.set()

    inbox = client.new_inbox()
    await client.subscribe(inbox, cb=on_message, pending_msgs_limit=1_000_000)
    request = json.dumps({"batch": 5_000, "expires": 3_600_000_000_000}).encode()
    ask = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}"
    await client.publish(ask, request, reply=inbox)
    asked = 5_000
    while True:
        await arrived.wait()
        arrived.clear()
        while buffer:
            batch, buffer[:] = [m for m in buffer[:_BATCH] if m.reply], buffer[_BATCH:]
            if not batch:
                continue
            asked -= len(batch)
            if asked < 2_500:
                await client.publish(ask, request, reply=inbox)
                asked += 5_000
            await handle(batch)


async def _acked(client: Client, batch: list[Msg]) -> None:
    for message in batch:
        await client.publish(message.reply, b"+ACK")


async def _stored(client: Client, messages: list[tuple[str, bytes, str]]) -> None:
    """Publish to the stream; return when all are acknowledged."""
    js = client.jetstream()
    acks = [await js.publish_async(subject, body, headers={"Nats-Msg-Id": key}) for subject, body, key in messages]
    await asyncio.gather(*acks)


async def decide(url: str, dsn: str, shape: Shape) -> None:
    """The decider's process."""
    client = await nats.connect(url, pending_size=64 * 1024 * 1024)
    pool = await asyncpg.create_pool(dsn, min_size=1, max_size=2)
    joined: Counter[str] = Counter()

    async def handle(batch: list[Msg]) -> None:
        found = [(json.loads(message.data), message) for message in batch]
        await pool.execute(
            _APPEND,
            [body["run"] for body, _ in found],
            [body["step"] for body, _ in found],
            [message.reply for _, message in found],
            [message.data.decode() for _, message in found],
        )
        tasks = []
        for body, _ in found:
            run, payload = body["run"], body["payload"]
            steps = shape.following(body["step"], joined, run)
            if steps is None:
                await client.publish(f"floor.done.{run}", json.dumps(body).encode())
                continue
            for step in steps:
                following = json.dumps({"run": run, "step": step, "payload": payload}).encode()
                tasks.append(("floor.task", following, f"{run}.{step}"))
        await _stored(client, tasks)
        await _acked(client, batch)

    await asyncio.gather(
        consume(client, STARTS, "decider", "floor.start", handle),
        consume(client, STREAM, "decider", "floor.result", handle),
    )


async def work(url: str, shape: Shape) -> None:
    """The worker's process."""
    client = await nats.connect(url, pending_size=64 * 1024 * 1024)
    napping: set[asyncio.Task[None]] = set()

    async def answer(batch: list[Msg]) -> None:
        await asyncio.sleep(shape.nap_s)
        results = []
        for message in batch:
            body = json.loads(message.data)
            results.append(("floor.result", json.dumps(body).encode(), f"{body['run']}.{body['step']}.result"))
        await _stored(client, results)
        await _acked(client, batch)

    async def handle(batch: list[Msg]) -> None:
        if not shape.nap_s:
            await answer(batch)
            return
        nap = asyncio.create_task(answer(batch))
        napping.add(nap)
        nap.add_done_callback(napping.discard)

    await consume(client, STREAM, "worker", "floor.task", handle)


async def load(url: str, runs: int, in_flight: int | None, payload: str, prefix: str) -> tuple[float, list[float]]:
    """Drive `runs` runs through; wall seconds, and each run's latency in milliseconds."""
    client = await nats.connect(url, pending_size=64 * 1024 * 1024)
    waiting: dict[str, asyncio.Future[None]] = {}

    async def done(message: Msg) -> None:
        future = waiting.pop(message.subject.rpartition(".")[2], None)
        if future is not None:
            future.set_result(None)

    await client.subscribe("floor.done.*", cb=done)
    await flushed(client)
    window = asyncio.Semaphore(in_flight or runs)
    latencies: list[float] = []

    async def one(number: int) -> None:
        async with window:
            run = f"{prefix}-{number}"
            ended = waiting[run] = asyncio.get_running_loop().create_future()
            began = time.perf_counter()
            await client.publish("floor.start", json.dumps({"run": run, "step": 0, "payload": payload}).encode())
            await asyncio.wait_for(ended, 120)
            latencies.append((time.perf_counter() - began) * 1_000)

    began = time.perf_counter()
    await asyncio.gather(*(one(number) for number in range(runs)))
    wall = time.perf_counter() - began
    await client.close()
    return wall, latencies


def main() -> None:
    """`python bench/floor.py decide|work SHAPE NATS [POSTGRES]`; the shape is JSON."""
    import uvloop  # noqa: PLC0415  # only these processes need it

    role, shape, *servers = sys.argv[1:]
    if role == "decide":
        uvloop.run(decide(servers[0], servers[1], Shape(**json.loads(shape))))
    else:
        uvloop.run(work(servers[0], Shape(**json.loads(shape))))


if __name__ == "__main__":
    main()
