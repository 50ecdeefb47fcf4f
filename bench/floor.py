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
from collections.abc import Awaitable, Callable

import asyncpg
import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

STREAM = "FLOOR"
_BATCH = 500
_APPEND = (
    "insert into floor_history (id, seq, cause, events) "
    "select u.id, u.seq, u.cause, u.events::json from unnest($1::text[], $2::int[], $3::text[], $4::text[]) "
    "as u(id, seq, cause, events) on conflict do nothing"
)
type Handle = Callable[[list[Msg]], Awaitable[None]]


async def provision(client: Client, dsn: str) -> None:
    """A stream and a table of its own."""
    config = {
        "name": STREAM,
        "subjects": ["floor.start", "floor.task", "floor.result"],
        "retention": "workqueue",
        "storage": "file",
        "num_replicas": 1,
        "persist_mode": "async",  # as TASKS and RESULTS are
    }
    answer = await client.request(f"$JS.API.STREAM.CREATE.{STREAM}", json.dumps(config).encode(), timeout=5)
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
    """Take the stream and the table away again."""
    await client.jetstream().delete_stream(STREAM)
    connection = await asyncpg.connect(dsn)
    await connection.execute("drop table if exists floor_history")
    await connection.close()


async def consume(client: Client, durable: str, filters: list[str], handle: Handle) -> None:
    """Pull what is there, at once, for ever: one standing request on one inbox."""
    js = client.jetstream()
    config = nats.js.api.ConsumerConfig(
        durable_name=durable, filter_subjects=filters, ack_policy=nats.js.api.AckPolicy.EXPLICIT, max_ack_pending=20_000
    )
    await js.add_consumer(STREAM, config)
    buffer: list[Msg] = []
    arrived = asyncio.Event()

    async def on_message(message: Msg) -> None:
        buffer.append(message)
        arrived.set()

    inbox = client.new_inbox()
    await client.subscribe(inbox, cb=on_message, pending_msgs_limit=1_000_000)
    request = json.dumps({"batch": 5_000, "expires": 3_600_000_000_000}).encode()
    ask = f"$JS.API.CONSUMER.MSG.NEXT.{STREAM}.{durable}"
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
            for message in batch:
                await client.publish(message.reply, b"+ACK")


async def _stored(client: Client, messages: list[tuple[str, bytes, str]]) -> None:
    """Publish to the stream; return when all are acknowledged."""
    js = client.jetstream()
    acks = [await js.publish_async(subject, body, headers={"Nats-Msg-Id": key}) for subject, body, key in messages]
    await asyncio.gather(*acks)


async def decide(url: str, dsn: str, steps: int) -> None:
    """The decider's process."""
    client = await nats.connect(url)
    pool = await asyncpg.create_pool(dsn, min_size=1, max_size=2)

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
            run, step = body["run"], body["step"]
            following = json.dumps({"run": run, "step": step + 1, "payload": body["payload"]}).encode()
            if step < steps:
                tasks.append(("floor.task", following, f"{run}.{step}"))
            else:
                await client.publish(f"floor.done.{run}", following)
        await _stored(client, tasks)

    await consume(client, "decider", ["floor.start", "floor.result"], handle)


async def work(url: str) -> None:
    """The worker's process."""
    client = await nats.connect(url)

    async def handle(batch: list[Msg]) -> None:
        results = []
        for message in batch:
            body = json.loads(message.data)
            results.append(("floor.result", json.dumps(body).encode(), f"{body['run']}.{body['step']}.result"))
        await _stored(client, results)

    await consume(client, "worker", ["floor.task"], handle)


async def load(url: str, runs: int, in_flight: int | None, payload: str, prefix: str) -> tuple[float, list[float]]:
    """Drive `runs` runs through; wall seconds, and each run's latency in milliseconds."""
    client = await nats.connect(url, pending_size=64 * 1024 * 1024)
    waiting: dict[str, asyncio.Future[None]] = {}

    async def done(message: Msg) -> None:
        future = waiting.pop(message.subject.rpartition(".")[2], None)
        if future is not None:
            future.set_result(None)

    await client.subscribe("floor.done.*", cb=done)
    await client.flush()
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
    """`python bench/floor.py decide URL DSN STEPS` or `… work URL`."""
    import uvloop  # noqa: PLC0415  # only these processes need it

    role, *rest = sys.argv[1:]
    if role == "decide":
        uvloop.run(decide(rest[0], rest[1], int(rest[2])))
    else:
        uvloop.run(work(rest[0]))


if __name__ == "__main__":
    main()
