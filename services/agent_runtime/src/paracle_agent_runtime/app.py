"""Composition root of the agent runtime."""

from __future__ import annotations

import logging
import os
import traceback
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

import asyncpg

from paracle_agent_runtime.adapters.effects import PostgresEffects
from paracle_agent_runtime.adapters.outlet import BusOutlet
from paracle_agent_runtime.adapters.pools import NatsTaskQueue, PostgresPoolBook
from paracle_agent_runtime.adapters.postgres import TASK_TABLES, PostgresAttempts, PostgresLeases, PostgresTaskShelf
from paracle_agent_runtime.adapters.rpc import RpcBudgets, RpcModels, RpcPeople, RpcPlans, RpcRuns, RpcStarts, RpcUsage
from paracle_agent_runtime.adapters.sessions import PostgresSessionBook, PostgresSessionShelf
from paracle_agent_runtime.adapters.workers import NatsWorkers
from paracle_agent_runtime.decisions import Decisions
from paracle_agent_runtime.effects import EffectDesk, Ledger
from paracle_agent_runtime.handlers import routes
from paracle_agent_runtime.histories import Histories
from paracle_agent_runtime.journal import Journal
from paracle_agent_runtime.memory import require_measurable
from paracle_agent_runtime.outbox import Outbox
from paracle_agent_runtime.plans import PlanCache
from paracle_agent_runtime.pool_desk import PoolDesk
from paracle_agent_runtime.pools import Pools
from paracle_agent_runtime.ports import PoolBook
from paracle_agent_runtime.purging import Purging
from paracle_agent_runtime.schemas import Schemas
from paracle_agent_runtime.service import Runtime
from paracle_agent_runtime.session_desk import SessionDesk
from paracle_agent_runtime.sessions import Sessions
from paracle_agent_runtime.settings import Settings
from paracle_agent_runtime.tools.http import HttpTools
from paracle_agent_runtime.tools.mcp.backend import McpTools
from paracle_agent_runtime.tools.permissions import redact
from paracle_agent_runtime.tools.sandbox.bubblewrap import Bubblewrap
from paracle_agent_runtime.tools.sandbox.commands import Commands
from paracle_agent_runtime.tools.toolbox import Toolbox
from paracle_agent_runtime.tools.workers import WorkerTools
from paracle_agent_runtime.wanted import Wanted
from paracle_agent_runtime.workshop import Workshop
from paracle_chassis.app import Service
from paracle_chassis.event_store import EventStore, PostgresEventStore
from paracle_chassis.nats_bus import NatsBus
from paracle_chassis.postgres import Database, Queries
from paracle_domain.ids import new_id

_log = logging.getLogger(__name__)


def create_app(settings: Settings, *, bus: NatsBus | None = None, database: Database | None = None) -> Service:
    """The service over NATS and PostgreSQL; tests give a bus and a database that fail as they say."""
    if settings.memory_ceiling_mb is not None:
        require_measurable()
    bus = bus or NatsBus("agent_runtime", settings)
    database = database or Database(settings, "paracle_agent_runtime")
    http = HttpTools(body_limit=settings.http_tool_body_limit)
    store = PostgresEventStore(database.pool, TASK_TABLES)
    queries = Queries.load("paracle_agent_runtime")
    mcp = McpTools(settings.mcp_servers, os.environ)
    pools = Pools(settings.pool_sizes, ceiling_mb=settings.memory_ceiling_mb)
    book = PostgresPoolBook(database.pool, queries, settings.worker_lease_s)
    runtime = create_runtime(settings, bus, database.pool, store, http, mcp, pools, book)
    desk = EffectDesk(PostgresEffects(database.pool, queries), bus, utc_now)
    return Service(
        "agent_runtime",
        settings,
        bus=bus,
        routes=routes(
            runtime,
            pools,
            Histories(store),
            Purging(PostgresTaskShelf(database.pool, queries)),
            desk,
            PoolDesk(book, NatsTaskQueue(bus.link), bus, utc_now, settings.tenant),
            SessionDesk(PostgresSessionShelf(database.pool, queries)),
        ),
        resources=[database, aclosing(http), aclosing(mcp), runtime],
        checks={"postgres": database.check},
        facts=pools.facts,
    )


def create_runtime(
    settings: Settings,
    bus: NatsBus,
    pool: asyncpg.Pool[Any],
    store: EventStore,
    http: HttpTools,
    mcp: McpTools,
    pools: Pools,
    book: PoolBook,
) -> Runtime:
    """The use cases on these connections."""
    schemas = Schemas()
    commands = Commands(
        Bubblewrap(settings.bubblewrap),
        unsandboxed=settings.unsandboxed_execution,
        concurrency=settings.sandbox_concurrency,
        most_memory_mb=settings.sandbox_memory_mb,
    )
    toolbox = Toolbox(
        schemas=schemas,
        http=http,
        mcp=mcp,
        workers=WorkerTools(NatsWorkers(bus.link), utc_now),
        commands=commands,
        usage=RpcUsage(bus),
        files_root=settings.files_root,
        environment=os.environ,
        log_bug=log_bug,
    )
    queries = Queries.load("paracle_agent_runtime")
    journal = Journal(store)
    outbox = Outbox(bus)
    shop = Workshop(
        journal=journal,
        ledger=Ledger(PostgresEffects(pool, queries), PostgresAttempts(pool, queries), journal),
        outbox=outbox,
        outlet=BusOutlet(bus),
        sessions=Sessions(PostgresSessionBook(pool, queries), RpcStarts(bus), outbox),
        wanted=Wanted(RpcRuns(bus)),
        models=RpcModels(bus),
        decisions=Decisions(RpcPeople(bus), RpcBudgets(bus), utc_now),
        toolbox=toolbox,
        schemas=schemas,
        clock=utc_now,
        leases=PostgresLeases(pool, queries, new_id("wrk"), settings.worker_lease_s),
    )
    return Runtime(
        shop,
        PlanCache(RpcPlans(bus)),
        pools,
        book.drains,
        beat_s=settings.worker_beat_s,
        drain_s=settings.drain_timeout_s,
    )


def utc_now() -> datetime:
    """The clock of a real service."""
    return datetime.now(UTC)


def log_bug(tool: str, error: Exception) -> None:
    """Log what no tool should raise. Its trace may quote what a tool was sent, but no secret."""
    trace = "".join(traceback.format_exception(error))
    _log.error("tool %s broke: %s", tool, redact(trace, os.environ))
