"""Failover and fairness of the provider gateway, each on a gateway of its own limits.

`failover`: the first route of a model answers 500, or hangs, or is well again. Shown is how long calls took, against
the time that the first deployment is given, and how often it was asked while it was ill.

`noisy`: four tenants call one after the other, with and without a fifth that keeps fifty calls for each of theirs in
the air. The gateway has room for 16 at once, and each takes its provider 100 ms, which no hosted model beats: what the
tenants contend for are the gateway's slots, and not the machine's cores, of which it is shown how busy they are (the
calls and the provider take their part of them, too). Shown is by how much the four's p95 grows.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Any, Final
from urllib import request

import nats
import provider
import uvloop
from aiohttp import web
from load import WrongResult
from measure import Snapshot, percentile, pids_of
from nats.aio.client import Client

from paracle_client.stack import Stack
from paracle_domain import subjects
from paracle_domain.ids import new_id
from paracle_domain.inference.request import Complete

TIMEOUT_S: Final = 0.5
SLOTS: Final = 16
TAKES_S: Final = 0.1
_CALLS: Final = 400
_AT_ONCE: Final = 16
_QUIET: Final = 4
_NOISE: Final = 50
_ROUNDS: Final = 100
_COOLDOWN_S: Final = 1.0
_ANYBODYS: Final = "openai-compatible/m"

type Figures = dict[str, float]


class Ailing:
    """A server of models that can be well, answer 500, or hang; and takes its time."""

    def __init__(self, takes_s: float = 0.0) -> None:
        self.mode = "well"
        self.asked = 0
        self.url = ""
        self._takes_s = takes_s

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Ailing]:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _answer(self, _asked: web.Request) -> web.StreamResponse:
        self.asked += 1
        if self.mode == "hang":
            await asyncio.sleep(60)
        if self.mode == "500":
            return web.json_response({"error": {"message": "ill"}}, status=500)
        await asyncio.sleep(self._takes_s)
        return web.Response(body=provider.WHOLE.partition(b"\r\n\r\n")[2], content_type="application/json")


type MakeStack = Callable[[str, dict[str, str]], AbstractContextManager[Stack]]
"""A stack with that base URL of its provider, whose gateway is told so."""


def failover(stack: MakeStack) -> Figures:
    """How calls fare while their first deployment fails."""
    return uvloop.run(_failover(stack))


def noisy(stack: MakeStack) -> Figures:
    """How much one tenant's noise costs the others."""
    return uvloop.run(_noisy(stack))


async def _failover(stack: MakeStack) -> Figures:
    found: Figures = {}
    async with Ailing().running() as ill, Ailing().running() as sound:
        with stack(sound.url, ENVIRONMENT) as up:
            first = _provider("ailing", ill.url, timeouts={"total_s": TIMEOUT_S})
            await asyncio.to_thread(_apply, up, first, _provider("sound", sound.url), _model("ailing", "sound"))
            async with await nats.connect(up.nats_url) as client:
                await _spread(client, "steady")  # what is done once is no call's
                for mode in ("well", "500", "hang"):
                    found |= await _ill(client, ill, mode)
    found["hang_p99_of_timeout"] = found["hang_p99_ms"] / TIMEOUT_S / 1_000
    return {f"failover.{key}": round(value, 4) for key, value in found.items()}


async def _ill(client: Client, ill: Ailing, mode: str) -> Figures:
    ill.mode, ill.asked = mode, 0
    seconds = await _spread(client, "steady")
    asked = ill.asked
    figures = {f"{mode}_p{share}_ms": percentile(seconds, share / 100) * 1_000 for share in (50, 99)}
    return figures | {f"{mode}_asked": asked, f"{mode}_healed_s": await _heal(client, ill)}


async def _noisy(stack: MakeStack) -> Figures:
    tenants = [f"quiet{number}" for number in range(_QUIET)]
    async with Ailing(TAKES_S).running() as server:
        with stack(server.url, ENVIRONMENT) as up:
            async with await nats.connect(up.nats_url) as client:
                await _quiet(client, tenants, 20)
                alone, alone_busy = await _busy(up, _quiet(client, tenants, _ROUNDS))
                noise = [asyncio.create_task(_for_ever(client, "noisy")) for _ in range(_NOISE * _QUIET)]
                await _quiet(client, tenants, 20)
                beside, beside_busy = await _busy(up, _quiet(client, tenants, _ROUNDS))
                if silent := sum(task.done() for task in noise):
                    raise WrongResult(f"{silent} of {len(noise)} callers of the noisy tenant gave up")
                for task in noise:
                    task.cancel()
                await asyncio.gather(*noise, return_exceptions=True)
    found = {f"alone_p{share}_ms": percentile(alone, share / 100) * 1_000 for share in (50, 95)}
    found |= {f"beside_p{share}_ms": percentile(beside, share / 100) * 1_000 for share in (50, 95)}
    found["p95_growth"] = found["beside_p95_ms"] / found["alone_p95_ms"] - 1
    found |= {"alone_busy": alone_busy, "beside_busy": beside_busy}
    return {f"noisy.{key}": round(value, 4) for key, value in found.items()}


async def _busy[T](up: Stack, work: Awaitable[T]) -> tuple[T, float]:
    """What `work` gives, and which share of the machine's cores was busy with it: stack, calls and provider."""

    def cpu_s() -> float:
        return time.process_time() + Snapshot.of(pids_of(up)).cpu_s

    cpu, began = cpu_s(), time.perf_counter()
    found = await work
    return found, (cpu_s() - cpu) / (time.perf_counter() - began) / (os.cpu_count() or 1)


async def _spread(client: Client, model: str) -> list[float]:
    seconds: list[float] = []
    left = iter(range(_CALLS))

    async def one_after_the_other() -> None:
        for _ in left:
            took, _deployment = await _call(client, subjects.DEFAULT_TENANT, model)
            seconds.append(took)

    async with asyncio.TaskGroup() as group:
        for _ in range(_AT_ONCE):
            group.create_task(one_after_the_other())
    return seconds


async def _heal(client: Client, ill: Ailing) -> float:
    """Seconds from when the first deployment is well again until it answers again."""
    ill.mode = "well"
    began = time.perf_counter()
    while (await _call(client, subjects.DEFAULT_TENANT, "steady"))[1] != "ailing/m":
        if time.perf_counter() - began > 70:
            raise WrongResult("the deployment that is well again is not found")
    return time.perf_counter() - began


async def _quiet(client: Client, tenants: list[str], rounds: int) -> list[float]:
    seconds: list[float] = []

    async def calls(tenant: str) -> None:
        for _ in range(rounds):
            took, _deployment = await _call(client, tenant, _ANYBODYS)
            seconds.append(took)

    await asyncio.gather(*map(calls, tenants))
    return seconds


async def _for_ever(client: Client, tenant: str) -> None:
    while True:
        await _call(client, tenant, _ANYBODYS)


async def _call(client: Client, tenant: str, model: str) -> tuple[float, str]:
    """Seconds till the answer, and the deployment that gave it."""
    said = {"role": "user", "parts": [{"type": "text", "text": "Say what you were made to say."}]}
    body = json.dumps({"call_id": new_id("call"), "model": model, "messages": [said], "timeout_s": 60}).encode()
    inbox = client.new_inbox()
    answers = await client.subscribe(inbox)
    began = time.perf_counter()
    try:
        await client.publish(subjects.rpc(tenant, Complete.service, Complete.method), body, reply=inbox)
        while not (data := (await answers.next_msg(timeout=90)).data):
            pass  # a sign of life
    finally:
        await answers.unsubscribe()
    seconds, answer = time.perf_counter() - began, json.loads(data)
    if "message" not in answer:
        raise WrongResult(f"the gateway answered {answer}")
    return seconds, str(answer["deployment"])


def _provider(name: str, url: str, **more: Any) -> dict[str, Any]:
    spec = {"base_url": url, **more}
    return {"apiVersion": "paracle/v1", "kind": "Provider", "metadata": {"name": name}, "spec": spec}


def _model(*names: str) -> dict[str, Any]:
    spec = {"routes": [{"model": f"{name}/m"} for name in names]}
    return {"apiVersion": "paracle/v1", "kind": "Model", "metadata": {"name": "steady"}, "spec": spec}


def _apply(up: Stack, *manifests: dict[str, Any]) -> None:
    text = "\n---\n".join(map(json.dumps, manifests)).encode()
    headers = {"Content-Type": "application/yaml"}
    with request.urlopen(request.Request(f"{up.url}/v1/manifests", data=text, headers=headers)) as answer:
        if answer.status >= 300:
            raise WrongResult(answer.read().decode())


def show(figures: Figures) -> None:
    """What was found, in words."""
    found = {key.partition(".")[2]: value for key, value in figures.items() if key.startswith("failover.")}
    if found:
        print(f"\n{'failover':<10}{'p50 ms':>10}{'p99 ms':>10}{'asked':>10}{'healed s':>10}")
        for mode in ("well", "500", "hang"):
            cells = [found[f"{mode}_{key}"] for key in ("p50_ms", "p99_ms", "asked", "healed_s")]
            print(f"{mode:<10}" + "".join(f"{cell:>10,.2f}" for cell in cells))
        print(f"hanging, p99 is {found['hang_p99_of_timeout']:.0%} of the deployment's time")
    if "noisy.p95_growth" in figures:
        alone, beside = figures["noisy.alone_p95_ms"], figures["noisy.beside_p95_ms"]
        growth, busy = figures["noisy.p95_growth"], [figures[f"noisy.{when}_busy"] for when in ("alone", "beside")]
        print(f"\nnoisy: p95 of the quiet {alone:,.1f} ms alone, {beside:,.1f} ms beside it ({growth:+.0%})")
        print(f"of the cores' time {busy[0]:.0%} was used alone, {busy[1]:.0%} beside it")


ENVIRONMENT: Final = {
    "PARACLE_PROVIDER_HOSTS": "127.0.0.1",
    "PARACLE_BREAKER_COOLDOWN_S": str(_COOLDOWN_S),
    "PARACLE_MODEL_CONCURRENCY": str(SLOTS),
}
"""What the gateway of these workloads is told."""
