"""Each provider, over real HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from importlib import import_module

import pytest
from provider_gateway_samples import MAKERS, TRANSPORTS, Peer, gateway

from paracle_provider_gateway.adapters.config import TransportName


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> TransportName:
    """What carries requests."""
    found: TransportName = request.param
    if found == "sdk":  # they are imported by the first request otherwise, while a test counts how long it waits
        for module in ("openai.resources.chat", "openai.resources.responses", "anthropic.resources"):
            import_module(module)
    return found


@pytest.fixture(params=sorted(MAKERS))
async def peer(request: pytest.FixtureRequest, transport: TransportName) -> AsyncIterator[Peer]:
    """Each provider in turn, over each transport, over real HTTP."""
    make_server, make_provider = MAKERS[request.param]
    async with make_server() as server:
        provider = make_provider(server, transport)
        yield Peer(request.param, server, provider, gateway(provider))
        await provider.close()
