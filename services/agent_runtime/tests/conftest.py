"""Fixtures of the agent runtime's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from runtime_stage import Stage
from runtime_world import Gateway


@pytest.fixture
async def stage(request: pytest.FixtureRequest) -> AsyncIterator[Stage]:
    made = Stage(Gateway(*getattr(request, "param", ())))
    async with made.runtime:
        await made.start()
        yield made
        await made.bus.drain()
