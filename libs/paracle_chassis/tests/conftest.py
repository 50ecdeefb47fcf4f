"""A service under test, over the session's NATS."""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from paracle_chassis.nats_bus import NatsBus
from paracle_chassis.routes import Routes
from paracle_chassis.settings import ServiceSettings

type Serve = Callable[..., Awaitable[NatsBus]]


@pytest.fixture
async def serve(settings: ServiceSettings) -> AsyncIterator[Serve]:
    """Start a bus, serving some routes; every one is drained and closed after the test."""
    started: list[NatsBus] = []

    async def start(routes: Routes | None = None, *, settings: ServiceSettings = settings) -> NatsBus:
        bus = NatsBus(routes.service if routes else "caller", settings)
        started.append(bus)
        await bus.open()
        if routes is not None:
            await bus.serve(routes)
        return bus

    yield start
    for bus in started:
        await bus.drain(1)
        await bus.close()
