"""The provider gateway, against calling the same provider directly: one after the other, in the same run.

The provider (`provider.py`) answers at once, so what is measured is the way to it. Directly is `aiohttp` from this
process; through the gateway is NATS from this process. Both read the whole answer; streams are read piece by piece.
A budget of the tenant, with room for all of them, counts every call; that it did is looked at in the end.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import aiohttp
import nats
import provider
from load import WrongResult
from measure import Snapshot, percentile, pids_of, settled
from nats.aio.client import Client

from paracle_chassis import frames
from paracle_chassis.inlet import Incoming, Inlet
from paracle_client.stack import Stack
from paracle_domain import subjects
from paracle_domain.budget.messages import BudgetList, BudgetView, ListBudgets, SetBudget
from paracle_domain.budget.spec import Budget, Unpriced
from paracle_domain.ids import new_id
from paracle_domain.inference.request import Complete

LEVELS: Final = (1, 16, 64, 256)
_CALLS: Final = {1: 300, 16: 1_500, 64: 3_000, 256: 3_000}
_STREAMS: Final = {1: 150, 16: 400, 64: 800, 256: 800}
_PROMPT: Final = "Say what you were made to say. " * 16
_COMPLETE: Final = subjects.rpc(subjects.DEFAULT_TENANT, Complete.service, Complete.method)
_TIMEOUT_S: Final = 60
_BUDGET: Final = Budget(name="bench", limit_usd=Decimal(1_000_000), limit_tokens=10**12, unpriced=Unpriced.ALLOW)

type Figures = dict[str, float]

COLUMNS: Final = (
    ("per s", "rps"),
    ("direct per s", "direct_rps"),
    ("CPU ms", "cpu_ms"),
    ("all CPU ms", "all_cpu_ms"),
    ("+p50 ms", "added_p50_ms"),
    ("+p95 ms", "added_p95_ms"),
    ("+p99 ms", "added_p99_ms"),
    ("+first p50", "ttft_added_p50_ms"),
    ("+first p95", "ttft_added_p95_ms"),
    ("+first p99", "ttft_added_p99_ms"),
)


@contextmanager
def instant() -> Iterator[str]:
    """The base URL of a provider that answers at once."""
    script = Path(provider.__file__)
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
    finally:
        process.kill()
        process.wait()


@dataclass
class Took:
    """Seconds that calls took until their answer, and until their first piece, was there."""

    whole: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)


type Ask = Callable[[Took], Awaitable[None]]


class Direct:
    """Asks the provider itself."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._url = f"{url}/chat/completions"
        self._session = session

    async def ask(self, took: Took) -> None:
        began = time.perf_counter()
        async with self._session.post(self._url, json=self._body(streamed=False)) as answer:
            text = (await answer.json())["choices"][0]["message"]["content"]
        took.whole.append(time.perf_counter() - began)
        _same(text)

    async def stream(self, took: Took) -> None:
        began, first, pieces = time.perf_counter(), 0.0, []
        async with self._session.post(self._url, json=self._body(streamed=True)) as answer:
            async for line in answer.content:
                if not line.startswith(b"data: {"):
                    continue
                for choice in json.loads(line[6:])["choices"]:
                    first = first or time.perf_counter() - began
                    pieces.append(choice["delta"].get("content", ""))
        took.whole.append(time.perf_counter() - began)
        took.first.append(first)
        _same("".join(pieces))

    @staticmethod
    def _body(*, streamed: bool) -> dict[str, Any]:
        return {"model": provider.MODEL, "messages": [{"role": "user", "content": _PROMPT}], "stream": streamed}


class Through:
    """Asks the gateway, over a bare NATS client."""

    def __init__(self, client: Client) -> None:
        self.asked = 0
        self._client = client
        self._inbox = client.new_inbox()
        self._answers: dict[str, asyncio.Future[bytes]] = {}
        self._first: dict[str, float] = {}
        message = {"role": "user", "parts": [{"type": "text", "text": _PROMPT}]}
        request = {"model": f"openai-compatible/{provider.MODEL}", "messages": [message]}
        self._rest = json.dumps(request)[1:]

    @classmethod
    async def connect(cls, url: str) -> Through:
        made = cls(await nats.connect(url, pending_size=64 * 1024 * 1024))
        inlet = Inlet.on(made._client)
        inlet.divert(await made._client.subscribe(f"{made._inbox}.*"), made._on_answer)
        out = subjects.out(subjects.DEFAULT_TENANT, subjects.ANY)
        inlet.divert(await made._client.subscribe(out), made._on_piece)
        await frames.flushed(made._client)
        return made

    async def ask(self, took: Took) -> None:
        took.whole.append(await self._ask(""))

    async def stream(self, took: Took) -> None:
        task_id = new_id("task")
        began = time.perf_counter()
        took.whole.append(await self._ask(f'"stream_to":"{task_id}",'))
        took.first.append(self._first.pop(task_id) - began)

    async def close(self) -> None:
        await self._client.close()

    async def _ask(self, more: str) -> float:
        call_id = new_id("call")
        self.asked += 1
        answer = self._answers[call_id] = asyncio.get_running_loop().create_future()
        began = time.perf_counter()
        body = f'{{"call_id":"{call_id}",{more}{self._rest}'.encode()
        await frames.post(self._client, [b"PUB %b %b.%b %d\r\n%b\r\n" % self._line(call_id, body)])
        async with asyncio.timeout(_TIMEOUT_S):
            said = json.loads(await answer)
        seconds = time.perf_counter() - began
        if "message" not in said:
            raise WrongResult(f"the gateway answered {said}")
        _same(said["message"]["parts"][0]["text"])
        return seconds

    def _line(self, call_id: str, body: bytes) -> tuple[bytes, bytes, bytes, int, bytes]:
        return _COMPLETE.encode(), self._inbox.encode(), call_id.encode(), len(body), body

    def _on_answer(self, message: Incoming) -> None:
        if message.data and (answer := self._answers.pop(message.subject.rpartition(".")[2], None)) is not None:
            answer.set_result(message.data)

    def _on_piece(self, message: Incoming) -> None:
        self._first.setdefault(message.subject.rpartition(".")[2], time.perf_counter())


def _same(text: str) -> None:
    if text != provider.TEXT:
        raise WrongResult(f"an answer says {text[:100]!r}")


async def _many(ask: Ask, calls: int, at_once: int) -> tuple[float, Took]:
    """Wall seconds of so many calls, and what each took."""
    took, left = Took(), iter(range(calls))

    async def one_after_the_other() -> None:
        for _ in left:
            await ask(took)

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(one_after_the_other())
    return time.perf_counter() - began, took


async def run(up: Stack, repeat: int, url: str) -> Figures:
    """All figures: the median of `repeat` measurements each.

    Raises
    ------
    WrongResult
        If an answer is not the provider's, or the budget did not count every call.
    """
    through = await Through.connect(up.nats_url)
    await _set_budget(up)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        direct = Direct(url, session)
        for ask in (through.ask, through.stream, direct.ask, direct.stream):
            await _many(ask, 200, 64)  # what is done once is no call's
        rows = []
        for number in range(repeat):
            rows.append(await _once(up, direct, through))
            print(f"gateway {number + 1}: {rows[-1]['rps_c64']:,.0f} requests/s", file=sys.stderr)
    await settled(pids_of(up))
    await _check_budget(up, through.asked)
    await through.close()
    return {key: percentile([row[key] for row in rows], 0.5) for key in rows[0]}


async def _set_budget(up: Stack) -> None:
    """Let a budget count all calls from now on."""
    BudgetView.model_validate_json(await _told(up, SetBudget(budget=_BUDGET)))


async def _check_budget(up: Stack, calls: int) -> None:
    (view,) = BudgetList.model_validate_json(await _told(up, ListBudgets(name=_BUDGET.name))).budgets
    counted = sum(use.calls for use in view.uses)
    if counted != calls:
        raise WrongResult(f"the budget counted {counted} of {calls} calls")


async def _told(up: Stack, asked: SetBudget | ListBudgets) -> bytes:
    """What the gateway answers; `nats` by itself, since the load's inbox takes no answers of others."""
    subject = subjects.rpc(subjects.DEFAULT_TENANT, asked.service, asked.method)
    async with await nats.connect(up.nats_url) as client:
        return (await client.request(subject, asked.model_dump_json().encode(), timeout=_TIMEOUT_S)).data


async def _once(up: Stack, direct: Direct, through: Through) -> Figures:
    found: Figures = {}
    await settled(pids_of(up))
    for at_once, calls in _CALLS.items():
        row = await _compared(up, direct.ask, through.ask, calls, at_once)
        found |= {f"{key}_c{at_once}": value for key, value in row.items()}
    for at_once, calls in _STREAMS.items():
        row = await _compared(up, direct.stream, through.stream, calls, at_once)
        found |= {f"stream_{key}_c{at_once}": value for key, value in row.items()}
    return found | {
        "ttft_added_p50_ms": found["stream_ttft_added_p50_ms_c1"],
        "streams_per_s": found["stream_rps_c64"],
        "rss_mb": Snapshot.of(_gateway(up)).rss / 2**20,
    }


async def _compared(up: Stack, directly: Ask, through: Ask, calls: int, at_once: int) -> Figures:
    """`calls` calls each way. CPU is that of a call through the gateway, without this process and the provider."""
    wanted_wall, wanted = await _many(directly, calls, at_once)
    own, all_ = Snapshot.of(_gateway(up)).cpu_s, Snapshot.of(pids_of(up)).cpu_s
    wall, took = await _many(through, calls, at_once)
    own, all_ = Snapshot.of(_gateway(up)).cpu_s - own, Snapshot.of(pids_of(up)).cpu_s - all_
    found = {
        "rps": calls / wall,
        "direct_rps": calls / wanted_wall,
        "cpu_ms": own * 1_000 / calls,
        "all_cpu_ms": all_ * 1_000 / calls,
    }
    for share in (50, 95, 99):
        found[f"added_p{share}_ms"] = _added(took.whole, wanted.whole, share)
    if took.first:
        found |= {f"ttft_added_p{share}_ms": _added(took.first, wanted.first, share) for share in (50, 95, 99)}
    return found


def _added(took: list[float], wanted: list[float], share: int) -> float:
    return (percentile(took, share / 100) - percentile(wanted, share / 100)) * 1_000


def _gateway(up: Stack) -> list[int]:
    return [pid for pid in (up.pid("provider_gateway"),) if pid]


def show(figures: Figures) -> None:
    """The table: a row for each kind and number of calls at once."""
    print(f"\n{'gateway':<16}" + "".join(f"{title:>12}" for title, _ in COLUMNS))
    for kind in ("", "stream_"):
        for at_once in LEVELS:
            cells = [figures.get(f"gateway.{kind}{key}_c{at_once}") for _, key in COLUMNS]
            name = f"{'streams' if kind else 'whole'}, {at_once} at once"
            print(f"{name:<16}" + "".join(f"{'' if cell is None else f'{cell:,.2f}':>12}" for cell in cells))
    print(f"gateway's memory {figures['gateway.rss_mb']:,.0f} MB")
