"""Replicas that ask each other for what came of a call, over real NATS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from provider_gateway_samples import CONTEXT, ask, gateway

from paracle_chassis.testing.infra import OpenBus
from paracle_domain.errors import Conflict
from paracle_domain.inference.response import Completion
from paracle_provider_gateway.adapters.neighbours import NatsNeighbours
from paracle_provider_gateway.adapters.sandbox import SandboxProvider
from paracle_provider_gateway.calls import CallTable
from paracle_provider_gateway.service import fingerprint

pytestmark = pytest.mark.connected


@dataclass
class Street:
    """Replica `a`, whose calls are looked at, and what `b` hears of them."""

    calls: CallTable
    other: NatsNeighbours

    async def heard(self, call_id: str, question: bytes, *, replica: str = "a", tenant: str = "acme"):
        return await self.other.answer(replica, tenant, call_id, question)


@pytest.fixture
async def street(open_bus: OpenBus) -> AsyncIterator[Street]:
    calls = CallTable()
    async with (
        NatsNeighbours(await open_bus("provider_gateway"), "a", calls),
        NatsNeighbours(await open_bus("provider_gateway"), "b", CallTable()) as other,
    ):
        yield Street(calls, other)
    await calls.close()


async def test_an_answer_is_waited_for_and_told(street: Street):
    request, gate = ask(), asyncio.Event()
    answer = await gateway(SandboxProvider()).completions.complete(request, CONTEXT)

    async def work() -> Completion:
        await gate.wait()
        return answer

    at_home = asyncio.create_task(street.calls.once(("acme", request.call_id), fingerprint(request), work))
    away = asyncio.create_task(street.heard(request.call_id, fingerprint(request)))
    done, _ = await asyncio.wait((at_home, away), timeout=0)
    assert not done
    with pytest.raises(Conflict, match="made before with another request"):
        await street.heard(request.call_id, fingerprint(ask("Something else?")))
    gate.set()
    assert await at_home == await away == answer
    with pytest.raises(Conflict, match="made before with another request"):
        await street.heard(request.call_id, fingerprint(ask("Something else?")))


async def test_nobody_tells_of_calls_of_others_or_of_none(street: Street):
    request = ask()
    answer = await gateway(SandboxProvider()).completions.complete(request, CONTEXT)

    async def work() -> Completion:
        return answer

    await street.calls.once(("acme", request.call_id), fingerprint(request), work)
    assert await street.heard(request.call_id, fingerprint(request), tenant="other") is None
    assert await street.heard("no-such-call", fingerprint(request)) is None
    assert await street.heard(request.call_id, fingerprint(request), replica="gone") is None
