"""A service under test, over the session's NATS."""

from collections.abc import Awaitable, Callable

import pytest

from paracle_chassis.nats_bus import NatsBus
from paracle_chassis.routes import Routes
from paracle_chassis.settings import ServiceSettings
from paracle_chassis.testing.infra import OpenBus

type Serve = Callable[..., Awaitable[NatsBus]]


@pytest.fixture
def serve(open_bus: OpenBus, settings: ServiceSettings) -> Serve:
    """Start a bus, serving some routes."""

    async def start(routes: Routes | None = None, *, settings: ServiceSettings = settings) -> NatsBus:
        bus = await open_bus(routes.service if routes else "caller", settings)
        if routes is not None:
            await bus.serve(routes)
        return bus

    return start
