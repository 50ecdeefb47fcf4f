"""A gateway over any providers, with what goes in and comes out of it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from answers_memory import MemoryAnswers
from guard_samples import MemoryAsker, MemoryAudit
from pydantic import SecretStr

from paracle_chassis.testing.fake_anthropic import FakeAnthropic
from paracle_chassis.testing.fake_openai import FakeOpenAI
from paracle_chassis.testing.wire import WireServer
from paracle_domain.envelope import Context
from paracle_domain.inference.chat import ChatMessage, ToolDefinition
from paracle_domain.inference.deltas import Delta
from paracle_domain.inference.embedding import Embed
from paracle_domain.inference.request import Complete
from paracle_domain.inference.response import Completion
from paracle_domain.inference.retrying import Retrying
from paracle_domain.provider.presets import Quirks
from paracle_provider_gateway.accounts import GRANTED, Accounts, Attempt, Opening, Outcome
from paracle_provider_gateway.adapters.config import ProviderConfig, TransportName, fixed
from paracle_provider_gateway.adapters.create import create_provider
from paracle_provider_gateway.adapters.sandbox import SandboxProvider
from paracle_provider_gateway.admission import Admission
from paracle_provider_gateway.answer_shelf import AnswerShelf
from paracle_provider_gateway.answers import AnswerMemory
from paracle_provider_gateway.attempts import Attempts
from paracle_provider_gateway.breaker import BreakerRules
from paracle_provider_gateway.caching import Caching
from paracle_provider_gateway.calls import CallTable
from paracle_provider_gateway.catalog import EnvironmentCatalog
from paracle_provider_gateway.choice import Choice
from paracle_provider_gateway.guards.moderators import ModelModerator
from paracle_provider_gateway.guards.rails import Rails
from paracle_provider_gateway.guards.workbench import Guards
from paracle_provider_gateway.health import Health
from paracle_provider_gateway.persistence import Persistence
from paracle_provider_gateway.plans import Catalog, Deployment, Timeouts
from paracle_provider_gateway.ports import Answer, Held, Provider, Speaker
from paracle_provider_gateway.pricing import ListPrices
from paracle_provider_gateway.retries import RetryPolicy
from paracle_provider_gateway.service import Completions
from paracle_provider_gateway.telemetry import Telemetry

CANARY = "sk-canary-do-not-show-1234567890"
TASK, ROOT = "task_01JD0000000000000000000000", "task_01JD0000000000000000000001"
CONTEXT = Context("acme", correlation_id="run_1")
SEARCH = ToolDefinition(
    name="search",
    description="Look things up",
    input_schema={"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]},
)


@dataclass
class Outbox:
    """Keeps the deltas that went out, and what watchers were told of calls that were tried again."""

    deltas: list[Delta] = field(default_factory=list)
    retries: list[Retrying] = field(default_factory=list)
    tenants: set[str] = field(default_factory=set)

    async def publish(self, task_id: str, news: Delta | Retrying, context: Context) -> None:
        assert task_id in {TASK, ROOT}
        self.tenants.add(context.tenant)
        if isinstance(news, Delta):
            assert task_id == TASK
            self.deltas.append(news)
        else:
            assert (news.agent is None) == (task_id == TASK)
            self.retries.append(news)


@dataclass
class MemoryAccounts:
    """Keeps what was opened and how it ended; `answers` are given instead of grants, in turn."""

    answers: list[Opening | Exception] = field(default_factory=list)
    opened: list[Attempt] = field(default_factory=list)
    settled: list[tuple[Attempt, Outcome]] = field(default_factory=list)
    spared: list[Completion] = field(default_factory=list)
    taken_over: list[tuple[str, str, str]] = field(default_factory=list)
    ended: list[tuple[str, str]] = field(default_factory=list)

    async def open(self, attempt: Attempt) -> Opening:
        self.opened.append(attempt)
        answer = self.answers.pop(0) if self.answers else GRANTED
        if isinstance(answer, Exception):
            raise answer
        return answer

    def settle(self, attempt: Attempt, outcome: Outcome) -> None:
        self.settled.append((attempt, outcome))

    def cached(self, _request: Complete, _context: Context, answer: Completion) -> None:
        self.spared.append(answer)

    async def take_over(self, tenant: str, call_id: str, replica: str) -> None:
        self.taken_over.append((tenant, call_id, replica))

    def done(self, tenant: str, call_id: str) -> None:
        self.ended.append((tenant, call_id))


@dataclass
class Neighbourhood:
    """Neighbours that say what they are told to, or nothing."""

    answers: list[Answer | Held] = field(default_factory=list)

    async def answer(self, _replica: str, _tenant: str, _call_id: str, _fingerprint: bytes) -> Answer | Held | None:
        return self.answers.pop() if self.answers else None


@dataclass
class Gateway:
    """The use cases with some providers; waits of retries are kept instead of waited for."""

    completions: Completions
    attempts: Attempts
    calls: CallTable
    outbox: Outbox
    accounts: MemoryAccounts
    health: Health
    waits: list[float]
    neighbours: Neighbourhood
    answers: MemoryAnswers
    shelf: AnswerShelf
    audit: MemoryAudit
    asker: MemoryAsker


def gateway(
    *providers: Provider,
    default: str | None = None,
    default_embedding: str | None = None,
    catalog: Catalog | None = None,
    slots: int = 512,
    accounts: Accounts | None = None,
    rules: BreakerRules | None = None,
    retry: RetryPolicy | None = None,
    timeouts: Timeouts | None = None,
    answers: MemoryAnswers | None = None,
    asker: MemoryAsker | None = None,
) -> Gateway:
    outbox, kept, calls, neighbours = Outbox(), MemoryAccounts(), CallTable(), Neighbourhood()
    waits: list[float] = []
    began = time.monotonic()
    telemetry, prices = Telemetry(), ListPrices("sandbox")

    async def wait(seconds: float) -> None:
        waits.append(seconds)

    def clock() -> float:
        """No time passes but what is waited, however long the machine takes."""
        return began + sum(waits)

    health = Health(rules or BreakerRules(), telemetry.health, clock)
    attempts = Attempts(admission=Admission(slots), health=health, accounts=accounts or kept, outlet=outbox)
    known = catalog or EnvironmentCatalog(
        providers,
        prices,
        health,
        default,
        default_embedding,
        retry=retry or RetryPolicy(),
        timeouts=timeouts or Timeouts(),
    )
    answers = answers or MemoryAnswers()
    memory = AnswerMemory(1_000_000)
    shelf = AnswerShelf(answers, memory, largest=10_000, clock=clock, missed=telemetry.cache_away)
    persistence = Persistence(
        Choice(health.latencies, prices), attempts, telemetry, outbox, sleep=wait, draw=lambda: 0.5
    )
    audit, asker = MemoryAudit(), asker or MemoryAsker()
    guards = Guards(asker, ModelModerator(known, persistence, accounts or kept), outbox)
    completions = Completions(
        catalog=known,
        persistence=persistence,
        accounts=accounts or kept,
        cache=Caching(shelf, kept, outbox, telemetry),
        neighbours=neighbours,
        rails=Rails(guards, audit, outbox, telemetry),
        prices=prices,
        calls=calls,
        telemetry=telemetry,
    )
    return Gateway(completions, attempts, calls, outbox, kept, health, waits, neighbours, answers, shelf, audit, asker)


def deployment(model: str, **more: Any) -> Deployment:
    """Some deployment."""
    return Deployment(SandboxProvider(), model, **more)


_numbers = itertools.count(1)


def ask(text: str = "Hello?", **more: Any) -> Complete:
    more = {"call_id": f"call-{next(_numbers)}", "messages": (ChatMessage.user(text),), "timeout_s": 20} | more
    return Complete(**more)


def embed(*texts: str, **more: Any) -> Embed:
    return Embed(**({"call_id": f"call-{next(_numbers)}", "texts": texts or ("A text.",), "timeout_s": 20} | more))


@dataclass
class Peer:
    """A provider with the fake that it talks to, and a gateway over it."""

    name: str
    server: WireServer
    provider: Speaker
    gateway: Gateway

    async def complete(self, request: Complete):
        return await self.gateway.completions.complete(request, CONTEXT)

    def ask(self, text: str = "Hello?", *, stream: bool = False, **more: Any) -> Complete:
        return ask(text, model=f"{self.name}/fake-model", stream_to=TASK if stream else None, **more)


def openai_like(url: str, *, name: str = "openai", key: str | None = None, **more: Any) -> Speaker:
    """A provider of Chat Completions at `url`."""
    supply = fixed(SecretStr(key) if key else None)
    return create_provider(ProviderConfig(name, "openai-chat", url, key=supply, **more))


def _openai(server: WireServer, transport: TransportName) -> Speaker:
    assert isinstance(server, FakeOpenAI)
    quirks = Quirks(output_limit="max_completion_tokens")
    return openai_like(server.url, key=CANARY, key_source="OPENAI_API_KEY", quirks=quirks, transport=transport)


def _responses(server: WireServer, transport: TransportName) -> Speaker:
    assert isinstance(server, FakeOpenAI)
    key = fixed(SecretStr(CANARY))
    return create_provider(ProviderConfig("responses", "openai-responses", server.url, key=key, transport=transport))


def _anthropic(server: WireServer, transport: TransportName) -> Speaker:
    assert isinstance(server, FakeAnthropic)
    key = fixed(SecretStr(CANARY))
    config = ProviderConfig("anthropic", "anthropic", server.url, key=key, max_output_tokens=4096, transport=transport)
    return create_provider(config)


MAKERS: dict[str, tuple[type[WireServer], Callable[[WireServer, TransportName], Speaker]]] = {
    "openai": (FakeOpenAI, _openai),
    "responses": (FakeOpenAI, _responses),
    "anthropic": (FakeAnthropic, _anthropic),
}
TRANSPORTS: tuple[TransportName, ...] = ("aiohttp", "sdk")
