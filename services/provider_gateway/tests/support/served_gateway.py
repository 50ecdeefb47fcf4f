"""The service as it runs, behind real NATS and PostgreSQL, with no provider but those that a test names."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from memory_registry import MemoryRegistry

from paracle_chassis.nats_bus import NatsBus
from paracle_chassis.testing.infra import OpenBus, migrated
from paracle_provider_gateway.app import create_app
from paracle_provider_gateway.settings import GatewaySettings

_FROM_OUTSIDE = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "OPENAI_BASE_URL", "ANTHROPIC_BASE_URL")


@asynccontextmanager
async def served(
    nats_url: str,
    postgres_dsn: str,
    open_bus: OpenBus,
    registry: MemoryRegistry,
    *,
    replicas: int = 1,
    **chosen: Any,
) -> AsyncIterator[NatsBus]:
    """A caller's bus, with `replicas` of the service behind NATS; `chosen` are settings of theirs."""
    with pytest.MonkeyPatch.context() as patch:
        for name in _FROM_OUTSIDE:
            patch.delenv(name, raising=False)
        await migrated(postgres_dsn, "paracle_provider_gateway")
        settings = GatewaySettings(
            nats_url=nats_url, postgres_dsn=postgres_dsn, provider_hosts=("127.0.0.1",), **chosen
        )
        await (await open_bus("registry")).serve(registry.routes())
        async with AsyncExitStack() as running:
            for _ in range(replicas):
                await running.enter_async_context(create_app(settings).running())
            yield await open_bus("agent_runtime")
