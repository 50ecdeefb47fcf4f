"""Replicas that ask each other for what came of a call, over real NATS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import override

import pytest
from provider_gateway_samples import CONTEXT, ask, embed, gateway

from paracle_chassis.frames import flushed
from paracle_chassis.nats_bus import NatsBus
from paracle_chassis.testing.eventually import eventually
from paracle_chassis.testing.infra import OpenBus
from paracle_domain import subjects
from paracle_domain.errors import Conflict, Unavailable
from paracle_domain.inference.chat import ChatMessage
from paracle_domain.inference.embedding import Embeddings
from paracle_domain.inference.request import Complete
from paracle_domain.inference.response import Completion
from paracle_domain.inference.usage import Usage
from paracle_provider_gateway.adapters import neighbours
from paracle_provider_gateway.adapters.neighbours import PIECE, NatsNeighbours
from paracle_provider_gateway.adapters.sandbox import SandboxProvider
from paracle_provider_gateway.calls import CallKey, CallTable, Landed
from paracle_provider_gateway.ports import Answer, Held
from paracle_provider_gateway.service import fingerprint

pytestmark = pytest.mark.connected


@dataclass
class Signs:
    """Which replicas show signs of life, and who was asked about."""

    alive: set[str] = field(default_factory=lambda: {"a", "b"})
    asked: list[str] = field(default_factory=list)

    async def is_gone(self, replica: str) -> bool:
        self.asked.append(replica)
        return replica not in self.alive


class Table(CallTable):
    """Does what a test wants once it was asked what came of a call."""

    def __init__(self) -> None:
        super().__init__()
        self.then: list[Callable[[], object]] = []

    @override
    def landed(self, key: CallKey, fingerprint: bytes) -> Landed | None:
        found = super().landed(key, fingerprint)
        if self.then:
            self.then.pop()()
        return found


@dataclass
class Street:
    """Replica `a`, whose calls are looked at, and what `b` hears of them."""

    calls: Table
    at_home: NatsNeighbours
    home: AsyncExitStack
    road: NatsBus
    other: NatsNeighbours
    signs: Signs

    async def leave(self) -> None:
        """`a` is away, and NATS knows it: a question under way would be lost otherwise, as with a replica that dies."""
        await self.home.aclose()
        await flushed(self.road.link.client)

    async def heard(self, call_id: str, question: bytes, *, replica: str = "a", tenant: str = "acme"):
        return await self.other.answer(replica, tenant, call_id, question)


@pytest.fixture
async def street(open_bus: OpenBus, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Street]:
    monkeypatch.setattr(neighbours, "_PATIENCE_S", 60.0)  # both stand still if the machine does
    calls, signs = Table(), Signs()
    async with (
        AsyncExitStack() as home,
        NatsNeighbours(await open_bus("provider_gateway"), "b", CallTable(), signs.is_gone) as other,
    ):
        road = await open_bus("provider_gateway")
        at_home = NatsNeighbours(road, "a", calls, signs.is_gone)
        yield Street(calls, await home.enter_async_context(at_home), home, road, other, signs)
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


async def test_embeddings_are_told_as_what_they_are(street: Street):
    request = embed()
    answer = Embeddings(
        vectors=("AACAPw==",), dimensions=1, usage=Usage(), provider="p", model="m", deployment="p/m", latency_s=0
    )

    async def work() -> Embeddings:
        return answer

    await street.calls.once(("acme", request.call_id), fingerprint(request), work)
    assert await street.heard(request.call_id, fingerprint(request)) == answer


@pytest.mark.parametrize("size", [PIECE, 2 * PIECE, 5_000_000])
async def test_a_large_answer_is_told_in_pieces_since_it_would_be_paid_for_again(street: Street, size: int):
    request = embed()
    more = {"dimensions": 1, "usage": Usage(), "provider": "p", "model": "m", "deployment": "p/m", "latency_s": 0}
    around = len(Embeddings(vectors=("",), **more).encode())
    answer = Embeddings(vectors=("A" * (size - around),), **more)

    async def work() -> Embeddings:
        return answer

    await street.calls.once(("acme", request.call_id), fingerprint(request), work)
    assert len(answer.encode()) == size
    assert await street.heard(request.call_id, fingerprint(request)) == answer


async def saying(text: str) -> Completion:
    said = await gateway(SandboxProvider()).completions.complete(ask(), CONTEXT)
    return said.model_copy(update={"message": ChatMessage.assistant(text)})


async def hold(street: Street, request: Complete, answer: Completion) -> None:
    async def work() -> Completion:
        street.calls.hold(("acme", request.call_id), answer)
        raise Unavailable("a guard is away")

    with pytest.raises(Unavailable):
        await street.calls.once(("acme", request.call_id), fingerprint(request), work)


async def test_what_is_held_is_told_as_such(street: Street):
    request, answer = ask(), await saying("x" * 2 * PIECE)
    await hold(street, request, answer)
    assert await street.heard(request.call_id, fingerprint(request)) == Held(answer)


async def test_what_is_let_out_while_it_is_told_is_told_from_its_beginning(street: Street):
    request, let_out = ask(), await saying("y" * 3 * PIECE)
    await hold(street, request, await saying("x" * 2 * PIECE))

    async def work() -> Completion:
        return let_out

    released: list[asyncio.Future[Answer]] = []

    def release() -> None:
        again = street.calls.once(("acme", request.call_id), fingerprint(request), work)
        released.append(asyncio.ensure_future(again))

    street.calls.then.append(release)
    assert await street.heard(request.call_id, fingerprint(request)) == let_out
    assert await released[0] == let_out


@pytest.mark.parametrize(
    "order", ["$JS.API.STREAM.DELETE.COMMANDS", subjects.cmd("globex", "orchestrator", "start_run")]
)
async def test_no_word_is_an_order(street: Street, nats_client, order: str, caplog):
    """Tenants see the names of replicas: one would have an order given, even an empty one, as if it were its inbox."""
    heard: list[bytes] = []

    async def hear(message) -> None:
        heard.append(message.data)

    await nats_client.subscribe(order, cb=hear)
    subject, question = subjects.rpc("acme", "provider_gateway_replica", "a"), b"call-1 00 0"
    await nats_client.publish(subject, question, reply=order)
    said = await nats_client.request(subject, question, timeout=30)
    await flushed(nats_client)
    assert (said.data, heard) == (b"unknown", [])
    assert f"no answer may go to '{order}'" in caplog.text


async def test_nobody_tells_of_calls_of_others_or_of_none(street: Street):
    request = ask()
    answer = await gateway(SandboxProvider()).completions.complete(request, CONTEXT)

    async def work() -> Completion:
        return answer

    await street.calls.once(("acme", request.call_id), fingerprint(request), work)
    assert await street.heard(request.call_id, fingerprint(request), tenant="other") is None
    assert await street.heard("no-such-call", fingerprint(request)) is None
    assert await street.heard(request.call_id, fingerprint(request), replica="gone") is None
    assert street.signs.asked == ["gone"], "whoever answers is there"


async def test_a_replica_that_finds_its_way_back_to_nats_keeps_its_call(street: Street):
    request = ask()
    answer = await gateway(SandboxProvider()).completions.complete(request, CONTEXT)

    async def work() -> Completion:
        return answer

    await street.calls.once(("acme", request.call_id), fingerprint(request), work)
    await street.leave()
    away = asyncio.create_task(street.heard(request.call_id, fingerprint(request)))
    await eventually(lambda: len(street.signs.asked) >= 2)
    assert not away.done()
    await street.home.enter_async_context(street.at_home)
    assert await away == answer


async def test_a_replica_that_neither_answers_nor_lives_is_gone(street: Street):
    await street.leave()
    away = asyncio.create_task(street.heard("call-1", fingerprint(ask())))
    await eventually(lambda: street.signs.asked)
    street.signs.alive.clear()
    assert await away is None
