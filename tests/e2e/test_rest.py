"""The REST API over real runs: event streams that are taken up again, the API's own description, and cancelling."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

import httpx2
import pytest
import yaml
from tests.e2e.histories import assert_sound, audit
from tests.e2e.load import GO, manifests
from tests.e2e.world import MAILS, System

from paracle_chassis.testing.eventually import eventually
from paracle_chassis.testing.fake_openai import FakeOpenAI
from paracle_chassis.testing.wire import Turn, call, say
from paracle_domain.run.commands import RunStatus, StepStatus

SSE = {"accept": "text/event-stream"}
SLEEPER = {"model": {"name": "openai-compatible/fake-model"}, "instructions": "Take your time.", "tools": ["count"]}
MANIFESTS = [
    {"kind": "Agent", "metadata": {"name": "sleeper"}, "spec": SLEEPER},
    {
        "kind": "Workflow",
        "metadata": {"name": "sleeping"},
        "spec": {
            "steps": [
                {"id": "first", "agent": "sleeper", "input": {"run": "{{ input.run }}"}},
                {"id": "beside", "agent": "sleeper", "input": {"run": "{{ input.run }}"}},
                {"id": "after", "agent": "sleeper", "needs": ["first"], "input": {"run": "{{ input.run }}"}},
            ]
        },
    },
]


@pytest.fixture
async def rest(system: System) -> AsyncIterator[httpx2.AsyncClient]:
    """A bare HTTP client; the manifests of these tests are in."""
    own = yaml.safe_dump_all([{"apiVersion": "paracle/v1"} | one for one in MANIFESTS])
    await asyncio.to_thread(system.apply, f"{manifests(system.effects.port)}\n---\n{own}")
    async with httpx2.AsyncClient(base_url=system.url, timeout=30, trust_env=False) as client:
        yield client


async def frames(rest: httpx2.AsyncClient, run_id: str, **headers: str) -> AsyncGenerator[dict[str, str]]:
    """Server-sent events of a run, as field and value."""
    async with rest.stream("GET", f"/v1/runs/{run_id}/events", headers=SSE | headers) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith(SSE["accept"])
        frame: dict[str, str] = {}
        async for line in response.aiter_lines():
            if not line:
                if "event" in frame:  # a comment keeps the connection alive, nothing more
                    yield frame
                frame = {}
            name, _, value = line.partition(": ")
            if name:
                frame[name] = value


async def test_a_stream_that_broke_is_taken_up_where_it_broke(system: System, rest: httpx2.AsyncClient) -> None:
    started = (await rest.post("/v1/workflows/triage/runs", json={"input": {"folder": MAILS}})).json()
    run_id = started["run_id"]
    seen: list[dict[str, str]] = []
    async with asyncio.timeout(60):
        async with aclosing(frames(rest, run_id)) as stream:
            async for frame in stream:
                seen.append(frame)
                if frame["event"] == "step.completed":
                    break  # the connection is closed in the middle of the run
        assert seen[-1]["event"] == "step.completed"
        assert not (await rest.get(f"/v1/runs/{run_id}")).json()["run"].get("finished_at")
        assert (await rest.post(f"/v1/runs/{run_id}/signals/{GO}", json={})).is_success
        resumed = [frame async for frame in frames(rest, run_id, **{"Last-Event-ID": seen[-1]["id"]})]
    numbers = [int(frame["id"]) for frame in seen + resumed]
    assert numbers == list(range(1, len(numbers) + 1))
    assert resumed[-1]["event"] == "run.completed"
    async with system.client() as client:
        events = await assert_sound(client, run_id)
    assert [frame["event"] for frame in seen + resumed] == [event.type for event in events]


async def test_the_api_describes_itself(rest: httpx2.AsyncClient) -> None:
    document = (await rest.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.")
    operations = {one["operationId"] for path in document["paths"].values() for one in path.values()}
    assert {"start_run", "get_run_events", "cancel_run", "apply_manifests", "get_run_usage"} <= operations
    page = await rest.get("/docs")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")


async def test_an_idempotency_key_starts_one_run(rest: httpx2.AsyncClient) -> None:
    async def start(run: str) -> httpx2.Response:
        return await rest.post(
            "/v1/workflows/chain/runs", json={"input": {"run": run}}, headers={"Idempotency-Key": "order-4713"}
        )

    answers = await asyncio.gather(*(start("key") for _ in range(5)))
    assert [answer.status_code for answer in answers] == [202] * 5
    assert len({answer.json()["run_id"] for answer in answers}) == 1
    other = await start("another")
    assert (other.status_code, other.json()["code"]) == (409, "conflict")


async def test_cancel_means_stop(system: System, rest: httpx2.AsyncClient, openai: FakeOpenAI) -> None:
    """Two models are talking, one has called a tool: after the answer nothing new begins, and streams are closed."""
    openai.script(call("count", {"run": "cancelled", "step": "one"}))
    openai.otherwise = Turn(text="This is never said to its end. " * 1_000, drip_s=0.2)
    started = (await rest.post("/v1/workflows/sleeping/runs", json={"input": {"run": "cancelled"}})).json()
    run_id = started["run_id"]
    await eventually(lambda: len(openai.journal) == 3 and len(system.effects.calls("cancelled")) == 1)
    talking = [seen for seen in openai.journal if not seen.gone.is_set()][-2:]

    answer = await rest.post(f"/v1/runs/{run_id}/cancel", json={"reason": "enough"})
    assert answer.status_code == 202
    assert answer.json()["status"] in {RunStatus.CANCELLING, RunStatus.CANCELLED}
    async with asyncio.timeout(30):
        for seen in talking:
            await seen.gone.wait()
    async with system.client() as client, asyncio.timeout(30):
        ended = await client.wait(run_id)
        assert ended.run.status is RunStatus.CANCELLED
        assert {step.status for step in ended.steps} == {StepStatus.CANCELLED}
        events = await assert_sound(client, run_id)
        asked_at = next(event.at for event in events if event.type == "run.cancelling")
        assert next(event for event in events if event.type == "run.cancelling").data["reason"] == "enough"
        later = [one.event for one in await audit(client, run_id) if one.event.at > asked_at]
    assert {one.type for one in later if one.entity == "task"} <= {"task.cancelled"}
    assert len(openai.journal) == 3
    assert len(system.effects.calls("cancelled")) == 1
    assert (await rest.post(f"/v1/runs/{run_id}/cancel", json={})).status_code in {202, 409}


async def test_an_agent_is_heard_while_it_speaks(system: System, openai: FakeOpenAI, rest: httpx2.AsyncClient) -> None:
    """Also from the middle, and by those who come when all is said."""
    openai.script(call("count", {"run": "heard", "step": "one"}), say("One and two and three and four."))
    async with system.client() as client, asyncio.timeout(60):
        accepted = await client.invoke("sleeper", "Hello.")
        started = [one async for one in client.events(accepted.run_id, follow=True) if one.type == "step.started"]
        task_id = str(started[0].data["task_id"])
        whole = [one async for one in client.output(task_id)]
        middle = whole[len(whole) // 2].seq
        rest_of_it = [one async for one in client.output(task_id, after=middle)]
    texts = [one.delta.change.text for one in whole if one.delta is not None and one.delta.change.type == "text"]
    assert "".join(texts) == "One and two and three and four."
    assert [one.tool.stage for one in whole if one.tool is not None] == ["started", "ended"]
    assert [one.ended for one in whole] == [False] * (len(whole) - 1) + [True]
    assert not any(one.gap for one in whole + rest_of_it)
    assert rest_of_it == [one for one in whole if one.seq > middle or one.ended]


async def test_what_has_ended_is_not_cancelled(system: System, rest: httpx2.AsyncClient, openai: FakeOpenAI) -> None:
    openai.otherwise = say("Done.")
    run = await system.invoke("sleeper", "Hello.")
    assert run.run.status is RunStatus.COMPLETED
    answer: Any = await rest.post(f"/v1/runs/{run.run.run_id}/cancel", json={})
    assert answer.status_code in {202, 409}, answer.json()
    assert (await rest.get(f"/v1/runs/{run.run.run_id}")).json()["run"]["status"] == RunStatus.COMPLETED
