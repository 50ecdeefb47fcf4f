"""The machine's own floor: bare nats-py and asyncpg doing the same messages and commits.

Two processes, as in Paracle: a *decider* pulls starts and results, appends one row for each in one commit a batch, and
publishes tasks; a *worker* pulls tasks and publishes results. No contract, no state, no checks, no telemetry.

    start ─► decider ─► task ─► worker ─► result ─► decider ─► … ─► done

Where steps are agents, the worker asks a *model*, a third process, over core NATS. It keeps a row of each step before
that and one after, as an agent's journal does, and the model two of each question, as the ledger does.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg
import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import NoRespondersError

from paracle_chassis.frames import flushed

STREAM, STARTS = "FLOOR", "FLOOR_STARTS"
_BATCH = 500
_LOOK_S = 0.05
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
    """What a run is: steps one after the other, or one, `wide` side by side, and one; each takes `nap_s` seconds.

    `model_s`: each is an agent that asks a model once, which takes so many seconds.
    """

    chain: int = 0
    wide: int = 0
    nap_s: float = 0
    model_s: float = 0

    @property
    def waits(self) -> bool:
        """Whether its steps take a time that is not theirs."""
        return self.nap_s > 0 or self.model_s > 0

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
    inbox = client.new_inbox()
    came = await _Arrivals.on(client, inbox)
    request = json.dumps({"batch": 5_000, "expires": 3_600_000_000_000}).encode()
    ask = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}"
    await client.publish(ask, request, reply=inbox)
    asked = 5_000
    async for some in came.batches():
        if batch := [message for message in some if message.reply]:
            asked -= len(batch)
            if asked < 2_500:
                await client.publish(ask, request, reply=inbox)
                asked += 5_000
            await handle(batch)


class _Arrivals:
    """What comes on a subject, as much at once as there is."""

    def __init__(self) -> None:
        self._there: list[Msg] = []
        self._arrived = asyncio.Event()

    @classmethod
    async def on(cls, client: Client, subject: str) -> _Arrivals:
        found = cls()
        await client.subscribe(subject, cb=found._take, pending_msgs_limit=1_000_000)
        return found

    async def _take(self, message: Msg) -> None:
        self._there.append(message)
        self._arrived.set()

    async def batches(self) -> AsyncIterator[list[Msg]]:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._there:
                batch, self._there = self._there[:_BATCH], self._there[_BATCH:]
                yield batch


class _Background:
    """Work that nobody waits for."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def do(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _acked(client: Client, batch: list[Msg]) -> None:
    for message in batch:
        await client.publish(message.reply, b"+ACK")


async def _stored(client: Client, messages: list[tuple[str, bytes, str]]) -> None:
    """Publish to the stream; return when all are acknowledged."""
    js = client.jetstream()
    acks = [await js.publish_async(subject, body, headers={"Nats-Msg-Id": key}) for subject, body, key in messages]
    await asyncio.gather(*acks)


async def _kept(pool: asyncpg.Pool, batch: Sequence[Msg], what: str, seq: int) -> list[dict[str, Any]]:
    """The bodies of `batch`, of each of which a row is kept in one commit: number `seq` of `what` the run has."""
    found: list[dict[str, Any]] = [json.loads(message.data) for message in batch]
    await pool.execute(
        _APPEND,
        [f"{body['run']}{what}{body['step']}" for body in found],
        [seq] * len(found),
        [message.reply or message.subject for message in batch],
        [message.data.decode() for message in batch],
    )
    return found


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
    napping = _Background()

    async def answer(batch: list[Msg]) -> None:
        await asyncio.sleep(shape.nap_s)
        await _stored(client, [_result(message.data) for message in batch])
        await _acked(client, batch)

    async def handle(batch: list[Msg]) -> None:
        if shape.nap_s:
            napping.do(answer(batch))
        else:
            await answer(batch)

    await consume(client, STREAM, "worker", "floor.task", handle)


def _result(data: bytes) -> tuple[str, bytes, str]:
    body = json.loads(data)
    return "floor.result", json.dumps(body).encode(), f"{body['run']}.{body['step']}.result"


async def think(url: str, dsn: str) -> None:
    """The worker's process where each step asks the model."""
    client = await nats.connect(url, pending_size=64 * 1024 * 1024)
    pool = await asyncpg.create_pool(dsn, min_size=1, max_size=2)
    inbox = client.new_inbox()
    answers = await _Arrivals.on(client, f"{inbox}.*")
    waiting: dict[str, Msg] = {}
    await _until_heard(client)

    async def begin(batch: list[Msg]) -> None:
        for body, message in zip(await _kept(pool, batch, ".task", 1), batch, strict=True):
            waiting[body["run"]] = message
            await client.publish("floor.ask", message.data, reply=f"{inbox}.{body['run']}")

    async def end() -> None:
        async for batch in answers.batches():
            done = [waiting.pop(body["run"]) for body in await _kept(pool, batch, ".task", 2)]
            await _stored(client, [_result(message.data) for message in batch])
            await _acked(client, done)

    await asyncio.gather(consume(client, STREAM, "worker", "floor.task", begin), end())


async def _until_heard(client: Client) -> None:
    """Wait for the model to listen: what nobody hears is gone."""
    while True:
        try:
            await client.request("floor.ready", timeout=5)
        except NoRespondersError:
            await asyncio.sleep(_LOOK_S)
        else:
            return


async def answer(url: str, dsn: str, shape: Shape) -> None:
    """The model's process. Its rows are committed without waiting for the disk, as the ledger's are."""
    client = await nats.connect(url, pending_size=64 * 1024 * 1024)
    behind = {"synchronous_commit": "off"}
    pool = await asyncpg.create_pool(dsn, min_size=1, max_size=2, server_settings=behind)
    asked = await _Arrivals.on(client, "floor.ask")
    thinking = _Background()

    async def say_ready(message: Msg) -> None:
        await message.respond(b"")

    async def reply(batch: list[Msg]) -> None:
        await asyncio.sleep(shape.model_s)
        for message in batch:
            await client.publish(message.reply, message.data)
        await _kept(pool, batch, ".call", 2)

    await client.subscribe("floor.ready", cb=say_ready)
    async for batch in asked.batches():
        await _kept(pool, batch, ".call", 1)
        thinking.do(reply(batch))


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
    """`python bench/floor.py decide|work|think|answer SHAPE NATS POSTGRES`; the shape is JSON."""
    import uvloop  # noqa: PLC0415  # only these processes need it

    role, told, url, dsn = sys.argv[1:]
    shape = Shape(**json.loads(told))
    roles = {
        "decide": lambda: decide(url, dsn, shape),
        "work": lambda: work(url, shape),
        "think": lambda: think(url, dsn),
        "answer": lambda: answer(url, dsn, shape),
    }
    uvloop.run(roles[role]())


if __name__ == "__main__":
    main()
