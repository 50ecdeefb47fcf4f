"""The real process over a real NATS: bells, start, drain, and refusals to start."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE

import httpx2
import pytest
from api_fakes import RUN, event, frames

from paracle_api_gateway.adapters.nats import NatsBells
from paracle_chassis.bus import outgoing
from paracle_chassis.nats_bus import NatsBus
from paracle_chassis.routes import Routes
from paracle_chassis.testing.eventually import eventually
from paracle_chassis.testing.infra import OpenBus
from paracle_domain import subjects
from paracle_domain.envelope import Context
from paracle_domain.run.commands import GetRunEvents, RunEvents
from paracle_embedded import free_port

pytestmark = pytest.mark.connected
CALL = Context(tenant="default")


@pytest.fixture
async def bus(open_bus: OpenBus) -> NatsBus:
    return await open_bus("orchestrator")


async def tell(bus: NatsBus, told) -> None:
    subject = subjects.evt("default", "run", told.id, told.type.replace(".", "_"))
    await bus.broadcast(outgoing(subject, told, CALL, source="paracle/test"))


async def test_a_bell_rings_for_its_run_only_and_is_shared(bus: NatsBus):
    bells = NatsBells(bus.link)
    async with (
        bells.watch("default", RUN) as first,
        bells.watch("default", RUN) as second,
        bells.watch("acme", RUN) as foreign,
    ):
        assert len(bells) == 2
        await tell(bus, event(1))
        await asyncio.wait_for(asyncio.gather(first.wait(), second.wait()), 30)
        assert not foreign.is_set()
    assert len(bells) == 0


async def test_many_who_come_and_go_at_once_leave_nothing_behind(bus: NatsBus):
    bells = NatsBells(bus.link)

    async def visit() -> None:
        async with bells.watch("default", RUN) as bell:
            await tell(bus, event(1))
            await asyncio.wait_for(bell.wait(), 30)

    before = len(bus.client._subs)
    await asyncio.gather(*(visit() for _ in range(50)))
    assert len(bells) == 0
    assert len(bus.client._subs) == before


class Process:
    """`python -m paracle_api_gateway`."""

    def __init__(self, nats_url: str, **env: str):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._env = os.environ | {"PARACLE_NATS_URL": nats_url, "PARACLE_API_PORT": str(self.port)} | env

    async def start(self):
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "paracle_api_gateway", env=self._env, stderr=PIPE
        )
        return self

    async def ready(self) -> bool:
        async with httpx2.AsyncClient() as client:
            try:
                return (await client.get(self.url + "/readyz")).status_code == 200
            except httpx2.TransportError:
                return False

    async def end(self) -> tuple[int, str]:
        _, told = await asyncio.wait_for(self.process.communicate(), 30)
        return await self.process.wait(), told.decode()


async def test_a_process_serves_streams_and_drains_with_one_open(nats_url: str, bus: NatsBus):
    known = [event(1, "run.started")]

    async def events(question: GetRunEvents, _call: Context) -> RunEvents:
        return RunEvents(events=tuple(known[question.after :]), terminal=False)

    routes = Routes("orchestrator")
    routes.rpc(GetRunEvents, events)
    await bus.serve(routes)
    api = await Process(nats_url, PARACLE_SSE_POLL_S="60").start()
    await eventually(api.ready, within_s=60)
    async with httpx2.AsyncClient(timeout=30) as client:
        path = f"{api.url}/v1/runs/{RUN}/events"
        async with client.stream("GET", path, headers={"Accept": "text/event-stream"}) as response:
            chunks = response.aiter_text()
            text = ""
            while "id: 1\n" not in text:
                text += await anext(chunks)
            known.append(event(2))

            async def rung() -> bool:
                nonlocal text
                await tell(
                    bus, known[-1]
                )  # the first may come before the subscription: then the page has it, or this rings
                text += await anext(chunks)
                return "id: 2\n" in text

            await eventually(rung)
            assert [frame["id"] for frame in frames(text) if "id" in frame] == ["1", "2"]
            api.process.send_signal(signal.SIGTERM)
            async for _ in chunks:
                pass
    code, log = await api.end()
    assert code == 0
    assert "Traceback" not in log


async def test_a_service_that_is_not_there_is_a_503_that_may_be_tried_again(nats_url: str):
    api = await Process(nats_url).start()
    await eventually(api.ready, within_s=60)
    async with httpx2.AsyncClient(timeout=30) as client:
        response = await client.get(api.url + "/v1/agents")
    assert (response.status_code, response.json()["retryable"]) == (503, True)
    api.process.send_signal(signal.SIGINT)
    assert (await api.end())[0] == 0


async def test_it_does_not_start_where_it_should_not(nats_url: str):
    async def outcome(**env: str) -> tuple[int, str]:
        return await (await Process(nats_url, **env).start()).end()

    open_to_all, without_nats = await asyncio.gather(
        outcome(PARACLE_API_HOST="0.0.0.0"),
        outcome(PARACLE_NATS_URL="nats://127.0.0.1:1", PARACLE_CONNECT_TIMEOUT_S="0.2"),
    )
    assert open_to_all[0] == 2
    assert "PARACLE_API_ALLOW_UNAUTHENTICATED" in open_to_all[1]
    assert without_nats[0] == 1
    assert "NATS does not answer" in without_nats[1]


async def test_readiness_follows_nats(nats_server):
    api = await Process(nats_server.url).start()
    await eventually(api.ready, within_s=60)
    nats_server.kill()

    async def unready() -> bool:
        return not await api.ready()

    await eventually(unready, within_s=30)
    api.process.send_signal(signal.SIGTERM)
    assert (await api.end())[0] == 0
