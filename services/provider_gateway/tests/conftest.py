"""Each provider, over real HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from provider_gateway_samples import MAKERS, Peer, gateway


@pytest.fixture(params=sorted(MAKERS))
async def peer(request: pytest.FixtureRequest) -> AsyncIterator[Peer]:
    """Each provider in turn, over real HTTP."""
    make_server, make_provider = MAKERS[request.param]
    async with make_server() as server:
        provider = make_provider(server)
        yield Peer(request.param, server, provider, gateway(provider))
        await provider.close()
