"""Composition root of observability."""

from __future__ import annotations

from paracle_chassis.app import Service
from paracle_chassis.nats_bus import NatsBus
from paracle_chassis.postgres import Database, Queries
from paracle_observability.adapters.orchestrator import OrchestratorRuns
from paracle_observability.adapters.postgres import PostgresEventLog
from paracle_observability.handlers import routes
from paracle_observability.service import Observability
from paracle_observability.settings import Settings
from paracle_observability.sweeper import sweeping


def create_app(settings: Settings) -> Service:
    """The service over NATS and PostgreSQL."""
    bus = NatsBus("observability", settings)
    database = Database(settings, "paracle_observability")
    events = PostgresEventLog(database.pool, Queries.load("paracle_observability"))
    observability = Observability(events, OrchestratorRuns(bus))
    return Service(
        "observability",
        settings,
        bus=bus,
        routes=routes(observability, batch=settings.store_batch, linger_s=settings.store_linger_s),
        resources=[database, sweeping(observability, settings.sweep_interval_s, settings.sweep_quiet_s)],
        checks={"postgres": database.check},
    )
