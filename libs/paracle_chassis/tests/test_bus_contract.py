"""Both buses, one suite."""

from collections.abc import AsyncIterator

import pytest

from paracle_chassis.testing.contracts.bus import BusContract, MakeBus
from paracle_chassis.testing.memory import MemoryBus


class TestMemoryBus(BusContract):
    @pytest.fixture
    async def make(self) -> AsyncIterator[MakeBus]:
        buses = []

        async def start(routes):
            bus = MemoryBus()
            buses.append(bus)
            await bus.serve(routes)
            return bus

        yield start
        for bus in buses:
            await bus.drain()


@pytest.mark.connected
class TestNatsBus(BusContract):
    @pytest.fixture
    def make(self, serve) -> MakeBus:
        return serve
