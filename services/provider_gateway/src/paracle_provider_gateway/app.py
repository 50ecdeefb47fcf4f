"""Composition root of the provider gateway."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import asyncpg
from pydantic import SecretStr

from paracle_chassis.app import Service
from paracle_chassis.background import Background
from paracle_chassis.garbage import give_back
from paracle_chassis.health import Check
from paracle_chassis.nats_bus import NatsBus
from paracle_chassis.postgres import Database, Queries
from paracle_domain.ids import new_id
from paracle_domain.inference.caching import cleared_subject
from paracle_domain.provider.presets import PRESETS, X_API_KEY
from paracle_domain.registry import changed_subject
from paracle_provider_gateway.adapters.answers import PostgresAnswers
from paracle_provider_gateway.adapters.archive import PostgresArchive
from paracle_provider_gateway.adapters.audit import AGAIN_EVERY_S, BusAudit
from paracle_provider_gateway.adapters.budgets import OUTBOX_EVERY_S, BudgetOutbox, PostgresBudgets
from paracle_provider_gateway.adapters.builtin import BuiltinProvider, wordllama_folder
from paracle_provider_gateway.adapters.config import (
    ANTHROPIC_URL,
    OPENAI_EMBEDDING,
    OPENAI_URL,
    KeyHeader,
    KeySupplier,
    ProviderConfig,
    fixed,
    no_key,
)
from paracle_provider_gateway.adapters.create import create_provider
from paracle_provider_gateway.adapters.guards import NatsAsker
from paracle_provider_gateway.adapters.ledger import PostgresLedger
from paracle_provider_gateway.adapters.loads import PostgresLoads
from paracle_provider_gateway.adapters.neighbours import NatsNeighbours
from paracle_provider_gateway.adapters.news import TenantNews
from paracle_provider_gateway.adapters.outlet import BusOutlet
from paracle_provider_gateway.adapters.registry import BusRegistry
from paracle_provider_gateway.adapters.replicas import PostgresReplica
from paracle_provider_gateway.adapters.runs import BusRuns
from paracle_provider_gateway.adapters.sandbox import NAME as SANDBOX
from paracle_provider_gateway.adapters.sandbox import SandboxProvider
from paracle_provider_gateway.adapters.setups import PostgresSetups
from paracle_provider_gateway.adapters.usage import PostgresUsage
from paracle_provider_gateway.adapters.workshop import SWEEP_EVERY_S, Workshop
from paracle_provider_gateway.admission import Admission
from paracle_provider_gateway.answer_shelf import AnswerShelf
from paracle_provider_gateway.answers import AnswerMemory, AnswerStore
from paracle_provider_gateway.attempts import Attempts
from paracle_provider_gateway.bookkeeping import Bookkeeper
from paracle_provider_gateway.breaker import BreakerRules
from paracle_provider_gateway.budgets import BudgetDesk
from paracle_provider_gateway.cache_desk import CacheDesk
from paracle_provider_gateway.caching import Caching
from paracle_provider_gateway.calls import CallTable
from paracle_provider_gateway.catalog import EnvironmentCatalog, TenantCatalog
from paracle_provider_gateway.choice import Choice
from paracle_provider_gateway.deployments import DeploymentDesk
from paracle_provider_gateway.following import CHECK_EVERY_S, Following
from paracle_provider_gateway.guards.moderators import ModelModerator
from paracle_provider_gateway.guards.rails import Rails
from paracle_provider_gateway.guards.workbench import Guards
from paracle_provider_gateway.handlers import routes
from paracle_provider_gateway.health import Health
from paracle_provider_gateway.hosts import HostRules
from paracle_provider_gateway.keys import KeyFile, KeyRing
from paracle_provider_gateway.outflow import Outflow
from paracle_provider_gateway.persistence import Persistence
from paracle_provider_gateway.plans import Timeouts
from paracle_provider_gateway.ports import Prices, Provider, Setups
from paracle_provider_gateway.pricing import ListPrices
from paracle_provider_gateway.retention import EVERY_S as RETENTION_EVERY_S
from paracle_provider_gateway.retention import Keep, Retention
from paracle_provider_gateway.retries import RetryPolicy
from paracle_provider_gateway.service import Completions
from paracle_provider_gateway.settings import GatewaySettings
from paracle_provider_gateway.telemetry import Telemetry
from paracle_provider_gateway.tidying import EVERY_S as TIDY_EVERY_S
from paracle_provider_gateway.tidying import Tidying
from paracle_provider_gateway.upkeep import SEEN_EVERY_S, Upkeep
from paracle_provider_gateway.usage import UsageDesk

COMPATIBLE: Final = "openai-compatible"
_TALKATIVE: Final = ("openai", "anthropic", "httpx2", "httpcore2")


def create_app(settings: GatewaySettings) -> Service:
    """The service over NATS and PostgreSQL, with the providers that `settings` set up."""
    _hush()
    bus = NatsBus("provider_gateway", settings)
    database = Database(settings, "paracle_provider_gateway")
    queries = Queries.load("paracle_provider_gateway")
    telemetry, prices = Telemetry(), create_prices(settings)
    health = Health(_breaker_rules(settings), telemetry.health)
    books = create_books(settings, bus, database.pool, queries, prices)
    models = create_models(settings, bus, prices, health, PostgresSetups(database.pool, queries))
    calls = CallTable(keep_s=settings.answers_kept_s, limit=settings.answers_kept)
    neighbours = NatsNeighbours(bus, books.replica, calls, books.bookkeeper.is_gone)
    outlet = BusOutlet(bus)
    attempts = Attempts(
        admission=Admission(settings.model_concurrency), health=health, accounts=books.bookkeeper, outlet=outlet
    )
    shelf = create_shelf(settings, bus, PostgresAnswers(database.pool, queries, time.monotonic), telemetry)
    persistence = Persistence(Choice(health.latencies, prices), attempts, telemetry, outlet)
    audit = BusAudit(bus)
    auditing = Background("guard audit", audit.round, every_s=AGAIN_EVERY_S)
    bus.link.on_reconnect(audit.doubt)
    guards = Guards(NatsAsker(bus.link), ModelModerator(models.catalog, persistence, books.bookkeeper), outlet)
    completions = Completions(
        catalog=models.catalog,
        persistence=persistence,
        accounts=books.bookkeeper,
        cache=Caching(shelf, books.bookkeeper, outlet, telemetry),
        neighbours=neighbours,
        rails=Rails(guards, audit, outlet, telemetry),
        prices=prices,
        calls=calls,
        telemetry=telemetry,
    )
    tidying = Background("tidying", Tidying(calls, books.settled, give_back).round, every_s=TIDY_EVERY_S)
    deployments = DeploymentDesk(models.catalog, PostgresLoads(database.pool, queries), health, books.replica)
    return Service(
        "provider_gateway",
        settings,
        bus=bus,
        routes=routes(completions, deployments, books.budgets, books.usage, CacheDesk(shelf, bus)),
        resources=[
            database,
            *books.resources,
            shelf,
            TenantNews(bus.link, cleared_subject, shelf.forget),
            neighbours,
            *models.resources,
            auditing,
            tidying,
            _closing(calls),
        ],
        checks={"postgres": database.check, "guard audit": auditing.check, **books.checks, **models.checks},
    )


def create_shelf(settings: GatewaySettings, bus: NatsBus, store: AnswerStore, telemetry: Telemetry) -> AnswerShelf:
    """The cache of answers, whose memory is doubted after NATS was away: it may not have heard of what was dropped."""
    memory = AnswerMemory(round(settings.cache_memory_mb * 1_000_000))
    largest = settings.cache_answer_kb * 1_000
    shelf = AnswerShelf(store, memory, largest=largest, clock=time.monotonic, missed=telemetry.cache_away)
    bus.link.on_reconnect(shelf.doubt)
    return shelf


@dataclass(frozen=True, slots=True)
class Books:
    """Budgets and the usage ledger as `replica` keeps them, and what looks after them."""

    replica: str
    bookkeeper: Bookkeeper
    settled: Outflow
    budgets: BudgetDesk
    usage: UsageDesk
    resources: Sequence[AbstractAsyncContextManager[Any]]
    checks: Mapping[str, Check]


def create_books(
    settings: GatewaySettings, bus: NatsBus, pool: asyncpg.Pool[Any], queries: Queries, prices: Prices
) -> Books:
    """Those in PostgreSQL; what happens to budgets is told after NATS was away, too."""
    replica = PostgresReplica(pool, queries, new_id("rep"))
    ledger = PostgresLedger(pool, queries, replica.id)
    outflow = Outflow(ledger, time.monotonic)
    bookkeeper = Bookkeeper(ledger, prices, outflow)
    upkeep = Background("upkeep", Upkeep(replica, ledger, bookkeeper).round, every_s=SEEN_EVERY_S)
    outbox = BudgetOutbox(pool, queries, bus)
    telling = Background("outbox", outbox.drain, every_s=OUTBOX_EVERY_S)
    bus.link.on_reconnect(outbox.doubt)
    bus.link.on_reconnect(telling.wake)
    keep = Keep(
        attempts_s=settings.usage_keep_s, counts_s=settings.budget_counts_keep_s, answers=settings.cache_answers
    )
    retention = Retention(PostgresArchive(pool, queries), BusRuns(bus), keep)
    dropping = Background("retention", retention.round, every_s=RETENTION_EVERY_S)
    return Books(
        replica.id,
        bookkeeper,
        outflow,
        BudgetDesk(PostgresBudgets(pool, queries), telling.wake),
        UsageDesk(PostgresUsage(pool, queries)),
        resources=[replica, upkeep, outflow, telling, dropping],
        checks={"upkeep": upkeep.check, "outbox": telling.check},
    )


@dataclass(frozen=True, slots=True)
class Models:
    """What names of models stand for: the operator's deployments and those of tenants, and what keeps up with them."""

    catalog: TenantCatalog
    resources: Sequence[AbstractAsyncContextManager[Any]]
    checks: Mapping[str, Check]


def create_models(settings: GatewaySettings, bus: NatsBus, prices: Prices, health: Health, kept: Setups) -> Models:
    """Those of the environment and of the registry, which is asked again after NATS was away."""
    providers = create_providers(settings)
    operator = create_catalog(settings, providers, prices, health)
    workshop = create_workshop(settings, operator, health)
    following = Following(BusRegistry(bus), workshop.build, workshop.forget, kept)
    bus.link.on_reconnect(following.doubt)
    checking = Background("providers", following.round, every_s=CHECK_EVERY_S)
    sweeping = Background("workshop", workshop.round, every_s=SWEEP_EVERY_S)
    news = TenantNews(bus.link, changed_subject, following.hear)
    return Models(
        TenantCatalog(operator, following, prices, health),
        resources=[_closing(workshop, *providers), news, checking, sweeping],
        checks={"providers": checking.check},
    )


def create_providers(settings: GatewaySettings) -> list[Provider]:
    """The providers that are set up, in the order in which `default` prefers them; the sandbox is always there.

    So is the built-in model for embeddings, if the gateway was installed with it.
    """
    found = [create_provider(config) for config in configured(settings)]
    builtin = [BuiltinProvider(folder)] if (folder := wordllama_folder()) is not None else []
    return [*found, SandboxProvider(), *builtin]


def configured(settings: GatewaySettings) -> Iterator[ProviderConfig]:
    """What the environment says about providers."""
    if settings.compatible_base_url is not None:
        yield ProviderConfig(
            COMPATIBLE,
            "openai-chat",
            settings.compatible_base_url,
            key=_key(settings.compatible_api_key, settings.compatible_api_key_file, "PARACLE_OPENAI_API_KEY") or no_key,
            key_source="PARACLE_OPENAI_API_KEY",
            model=settings.compatible_model,
            model_source="PARACLE_OPENAI_MODEL",
        )
    openai = _key(settings.openai_api_key, settings.openai_api_key_file, "OPENAI_API_KEY")
    if openai is not None:
        yield ProviderConfig(
            "openai",
            "openai-responses" if settings.openai_api == "responses" else "openai-chat",
            settings.official_openai_base_url or OPENAI_URL,
            key=openai,
            key_source="OPENAI_API_KEY",
            model=settings.openai_default_model,
            embedding_model=OPENAI_EMBEDDING,
            quirks=PRESETS["openai"].quirks,
        )
    anthropic = _key(settings.anthropic_api_key, settings.anthropic_api_key_file, "ANTHROPIC_API_KEY")
    if anthropic is not None:
        yield ProviderConfig(
            "anthropic",
            "anthropic",
            settings.anthropic_base_url or ANTHROPIC_URL,
            key=anthropic,
            key_source="ANTHROPIC_API_KEY",
            key_header=KeyHeader(X_API_KEY, ""),
            model=settings.anthropic_default_model,
            max_output_tokens=settings.anthropic_max_output_tokens,
        )


def _key(key: SecretStr | None, file: Path | None, name: str) -> KeySupplier | None:
    """The key that the environment sets up: as it is, or in a file; `None` if in neither way."""
    if key is not None:
        return fixed(key)
    return None if file is None else KeyFile(file, name)


def create_prices(settings: GatewaySettings) -> ListPrices:
    """List prices; those of a server that could be anybody's go by its URL."""
    urls = {COMPATIBLE: settings.compatible_base_url} if settings.compatible_base_url else {}
    return ListPrices(SANDBOX, urls)


def create_workshop(settings: GatewaySettings, operator: EnvironmentCatalog, health: Health) -> Workshop:
    """What makes the providers that tenants set up, within what the operator allows."""
    return Workshop(
        operator.deployment,
        KeyRing(folder=settings.provider_keys_dir),
        HostRules(settings.provider_hosts, settings.provider_key_hosts),
        health.retire,
        retry=_retry(settings),
        timeouts=_timeouts(settings),
    )


def create_catalog(
    settings: GatewaySettings, providers: Sequence[Provider], prices: Prices, health: Health
) -> EnvironmentCatalog:
    """What names stand for with these providers."""
    return EnvironmentCatalog(
        providers,
        prices,
        health,
        settings.default_model,
        settings.default_embedding_model,
        retry=_retry(settings),
        timeouts=_timeouts(settings),
    )


def _retry(settings: GatewaySettings) -> RetryPolicy:
    return RetryPolicy(attempts=settings.model_attempts)


def _breaker_rules(settings: GatewaySettings) -> BreakerRules:
    return BreakerRules(
        failures=settings.breaker_failures,
        window_s=settings.breaker_window_s,
        cooldown_s=settings.breaker_cooldown_s,
        longest_s=max(settings.breaker_cooldown_s, BreakerRules().longest_s),
    )


def _timeouts(settings: GatewaySettings) -> Timeouts:
    return Timeouts(first_token_s=settings.first_token_timeout_s, between_tokens_s=settings.between_tokens_timeout_s)


class _Closable(Protocol):
    async def close(self) -> None: ...


@asynccontextmanager
async def _closing(*parts: _Closable) -> AsyncIterator[None]:
    yield
    for part in parts:
        await part.close()


def _hush() -> None:
    """Keep the SDKs from logging what they send: at DEBUG they show prompts and headers."""
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
