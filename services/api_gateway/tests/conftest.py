"""The API over scripted services, asked in process and over a real socket."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import httpx2
import pytest
import uvicorn
from api_fakes import HandBells, HandOutputs, Orchestrator, ScriptedBus

from paracle_api_gateway.app import Api, create_app
from paracle_api_gateway.edge import Edge
from paracle_api_gateway.server import config, listen
from paracle_api_gateway.settings import Settings
from paracle_chassis.testing.eventually import eventually
from paracle_domain.errors import ParacleError


@dataclass
class World:
    """Everything around the API that a test may turn."""

    bus: ScriptedBus
    bells: HandBells
    orchestrator: Orchestrator
    outputs: HandOutputs
    app: Api = field(init=False)
    settings: Settings
    outage: ParacleError | None = None

    async def check(self) -> None:
        if self.outage is not None:
            raise self.outage


@pytest.fixture
def world() -> World:
    settings = Settings(api_port=0, sse_poll_s=0.05, sse_keep_alive_s=0.05, drain_timeout_s=5)
    bus, bells = ScriptedBus(), HandBells()
    found = World(bus, bells, Orchestrator(bus), HandOutputs(), settings)
    found.app = create_app(settings, bus=bus, bells=bells, outputs=found.outputs, check=found.check)
    return found


@pytest.fixture
async def client(world: World) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(app=Edge(world.app, only_local=True), raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as found:
        yield found


@pytest.fixture
async def url(world: World) -> AsyncIterator[str]:
    """Where the API listens for real."""
    listener = listen("127.0.0.1", 0)
    server = uvicorn.Server(config(world.app, world.settings))
    serving = asyncio.create_task(server.serve([listener]))
    await eventually(lambda: server.started)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    world.app.state.closing.set()
    server.should_exit = True
    await serving
