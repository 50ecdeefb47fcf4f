"""Composition root of the orchestrator."""

from __future__ import annotations

from paracle_chassis.app import Service
from paracle_chassis.background import Background
from paracle_chassis.event_store import PostgresEventStore
from paracle_chassis.nats_bus import NatsBus
from paracle_chassis.postgres import Database, Queries
from paracle_orchestrator.adapters.approvals import PostgresApprovals
from paracle_orchestrator.adapters.news import RegistryNews
from paracle_orchestrator.adapters.postgres import RUN_TABLES, PostgresPlanStore
from paracle_orchestrator.adapters.queue import PostgresRunQueue
from paracle_orchestrator.adapters.retention import PostgresRetention
from paracle_orchestrator.adapters.run_index import PostgresRunIndex
from paracle_orchestrator.adapters.stuck import PostgresStuckIndex
from paracle_orchestrator.adapters.trigger_store import PostgresTriggerStore
from paracle_orchestrator.admission import Limits
from paracle_orchestrator.admitting import LOOK_EVERY_S as ADMIT_EVERY_S
from paracle_orchestrator.admitting import Admitter
from paracle_orchestrator.bulk import BulkOrders
from paracle_orchestrator.call_approvals import CallApprovals
from paracle_orchestrator.handlers import routes
from paracle_orchestrator.host import RunHost
from paracle_orchestrator.left_open import LOOK_EVERY_S as LEFT_OPEN_EVERY_S
from paracle_orchestrator.left_open import LeftOpen
from paracle_orchestrator.plans import Plans
from paracle_orchestrator.ports import utc_now
from paracle_orchestrator.retention import Keeping, Purger
from paracle_orchestrator.service import Orchestrator
from paracle_orchestrator.settings import OrchestratorSettings
from paracle_orchestrator.stuck import StuckRuns
from paracle_orchestrator.ticks import LOOK_EVERY_S, RETRY, Ticker
from paracle_orchestrator.triggers import Watch


def create_app(
    settings: OrchestratorSettings, *, bus: NatsBus | None = None, database: Database | None = None
) -> Service:
    """The service over NATS and PostgreSQL; tests give a bus and a database that fail as they say."""
    bus = bus or NatsBus("orchestrator", settings)
    database = database or Database(settings, "paracle_orchestrator")
    queries = Queries.load("paracle_orchestrator")
    store = PostgresEventStore(database.pool, RUN_TABLES)
    news = RegistryNews(bus.link)
    plans = Plans(PostgresPlanStore(database.pool, queries), bus, news)
    index, approvals = PostgresRunIndex(database.pool, queries), PostgresApprovals(database.pool, queries)
    host = RunHost(store, plans, approvals, bus, utc_now, cached=settings.cached_runs)
    bulk = BulkOrders(index, host)
    stuck = StuckRuns(PostgresStuckIndex(database.pool, queries), bus, utc_now)
    limits = Limits(settings.tenant_max_runs, settings.tenant_max_runs_of)
    admitter = Admitter(PostgresRunQueue(database.pool, queries), limits, host)
    calls = CallApprovals(host, approvals, bus, utc_now)
    orchestrator = Orchestrator(host, plans, store, index, approvals, calls, bulk, stuck, admitter)
    admissions = Background("admissions", admitter.round, every_s=ADMIT_EVERY_S)
    host.queue_moved = admissions.wake
    ticks = Background(
        "ticks", Ticker(store, host, bus, utc_now).round, every_s=LOOK_EVERY_S, late_s=RETRY.total_seconds()
    )
    keeping = Keeping(settings.run_keep_s, settings.run_keep_s_of, settings.run_keep_least_s)
    purger = Purger(PostgresRetention(database.pool, queries), keeping, bus, utc_now, every_s=settings.purge_every_s)
    purges = Background("purges", purger.round, every_s=settings.purge_every_s)
    left_open = Background("approvals", LeftOpen(approvals, calls, host).round, every_s=LEFT_OPEN_EVERY_S)
    watch = Watch.over(PostgresTriggerStore(database.pool, queries), bus, utc_now)
    return Service(
        "orchestrator",
        settings,
        bus=bus,
        routes=routes(orchestrator, calls, watch, stuck, settings),
        resources=[
            database,
            news,
            ticks,
            admissions,
            bulk.beside,
            orchestrator.waiting,
            purges,
            left_open,
            watch.triggers.beside,
            *watch.rounds.values(),
        ],
        checks={
            "postgres": database.check,
            "ticks": ticks.check,
            "admissions": admissions.check,
            "schedules": watch.rounds["schedules"].check,
        },
    )
