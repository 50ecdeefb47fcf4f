"""Worker pools: listed, shown, drained and resumed, by the client and by the command line."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from paracle_client import AsyncClient, Client
from paracle_domain.run.commands import ApprovalPage, RunStatus, StepStatus, StepView
from paracle_domain.task.pools import PoolList


def unserved(make: Any) -> Any:
    return make.pool(state="unserved", waiting=3, in_hand=0, concurrency=0, replicas=())


def test_both_clients_list_show_drain_and_resume(api: Any, make: Any) -> None:
    one = make.pool()
    api.on("GET /v1/pools", PoolList(pools=(one,)))
    for path in ("GET /v1/pools/gpu", "POST /v1/pools/gpu/drain", "POST /v1/pools/gpu/resume"):
        api.on(path, one)
    with Client(api.url) as client:
        assert client.pools().pools == (one,)
        assert client.get_pool("gpu") == one
        client.drain_pool("gpu", reason="new drivers")
    assert api.asked[-1].json == {"reason": "new drivers"}

    async def use() -> None:
        async with AsyncClient(api.url) as client:
            assert (await client.pools()).pools == (one,)
            assert await client.get_pool("gpu") == one
            assert await client.drain_pool("gpu") == one
            assert await client.resume_pool("gpu") == one

    asyncio.run(use())


def test_pools_are_listed(paracle: Callable[..., Any], api: Any, make: Any) -> None:
    bare = make.pool("agents", replicas=({**make.pool().replicas[0].model_dump(), "memory_ceiling_mb": None},))
    api.on("GET /v1/pools", PoolList(pools=(bare, make.pool("gpu"), unserved(make))))
    lines = [" ".join(line.split()) for line in paracle("pools", "ls").out.splitlines()]
    assert lines == [
        "POOL STATE WAITING IN HAND AT MOST REPLICAS MEMORY",
        "agents open 1,500 2 4 1 300 MiB",
        "gpu open 1,500 2 4 1 300 of 1,024 MiB",
        "gpu nobody serves it 3 0 0 0",
    ]
    assert len(json.loads(paracle("pools", "ls", "-o", "json").out)["pools"]) == 3
    api.on("GET /v1/pools", PoolList(pools=()))
    assert paracle("pools", "ls").out == "no pools\n"


def test_a_pool_is_shown_with_its_replicas_and_why_it_is_drained(
    paracle: Callable[..., Any], api: Any, make: Any
) -> None:
    drain = {"since": make.START, "principal": "ann", "reason": "new \x1b[2J drivers"}
    api.on("GET /v1/pools/gpu", make.pool(state="draining", drain=drain))
    shown = paracle("pools", "show", "gpu").out
    for part in ("draining", "2 of at most 4", "by ann on ", "drivers", "node-7", "4711", "300 of 1,024 MiB"):
        assert part in shown
    assert "\x1b" not in shown
    api.on("GET /v1/pools/gpu", unserved(make))
    assert "PARACLE_POOLS=gpu" in paracle("pools", "show", "gpu").out
    assert json.loads(paracle("pools", "show", "gpu", "-o", "json").out)["waiting"] == 3
    api.on("POST /v1/pools/gpu/drain", make.pool(state="drained", in_hand=0, concurrency=0, replicas=()))
    assert "no agent runtime serves it" in paracle("pools", "drain", "gpu").out, "it may have been mistyped"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"in_hand": 0}, "waits for its processes to say that they have nothing in hand"),
        ({"in_hand": 1}, "waits for 1 task in hand"),
        (
            {"in_hand": 3, "for_people": 2},
            "waits for 3 tasks in hand, 2 of which wait for people (paracle approvals ls)",
        ),
    ],
)
def test_a_pool_that_drains_says_what_it_waits_for(
    paracle: Callable[..., Any], api: Any, make: Any, given: dict[str, int], told: str
) -> None:
    api.on("GET /v1/pools/gpu", make.pool(state="draining", aside=1_999, **given))
    lines = [" ".join(line.split()) for line in paracle("pools", "show", "gpu").out.splitlines()]
    assert told in lines
    assert "aside 1,999 turns of sessions that wait for earlier ones" in lines


def test_draining_waits_until_nothing_is_in_hand(paracle: Callable[..., Any], api: Any, make: Any) -> None:
    busy, done = make.pool(state="draining"), make.pool(state="drained", in_hand=0)
    api.on("POST /v1/pools/gpu/drain", busy)
    api.on("GET /v1/pools/gpu", busy, done)
    assert "drained" in paracle("pools", "drain", "gpu", "--reason", "new drivers", "--wait").out
    assert api.asked[0].json == {"reason": "new drivers"}
    api.on("GET /v1/pools/gpu", busy)
    late = paracle("pools", "drain", "gpu", "--wait", "--timeout", "0")
    assert (late.code, late.err) == (1, "error: after 0 s, pool gpu still waits for 2 tasks in hand\n")
    assert "draining" in paracle("pools", "drain", "gpu").out
    api.on("POST /v1/pools/gpu/resume", make.pool())
    assert "open" in paracle("pools", "resume", "gpu").out


def test_a_run_says_which_pool_it_waits_for_in_vain(paracle: Callable[..., Any], api: Any, make: Any) -> None:
    part = StepView(id="each[0]", status=StepStatus.RUNNING, target_kind="agent", target="x", pool="browser")
    steps = (
        StepView(id="a", status=StepStatus.RUNNING, target_kind="agent", target="x", pool="gpu"),
        StepView(id="each", status=StepStatus.RUNNING, target_kind="map", target="", parts=(part,), parts_total=1),
        StepView(id="b", status=StepStatus.COMPLETED, target_kind="agent", target="x", pool="done"),
        StepView(id="c", status=StepStatus.PENDING, target_kind="agent", target="x", pool="agents"),
    )
    api.on(f"GET /v1/runs/{make.RUN}", make.view(RunStatus.RUNNING, steps=steps))
    api.on("GET /v1/pools/gpu", unserved(make))
    api.on("GET /v1/pools/browser", make.pool("browser"))
    api.on("GET /v1/approvals", ApprovalPage(approvals=()))
    shown = paracle("runs", "show", make.RUN).out
    assert "pool gpu takes no new tasks: nobody serves it (paracle pools show gpu)" in shown
    assert "agent x; pool gpu" in shown
    assert "pool browser takes" not in shown
    assert "pool agents" not in shown
    api.on("GET /v1/pools/browser", make.problem("unavailable", 503, "no agent_runtime is running"))
    assert "worker pools are unknown: no agent_runtime is running" in paracle("runs", "show", make.RUN).out
