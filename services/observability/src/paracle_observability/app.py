"""Composition root of observability."""

from __future__ import annotations

from functools import partial

from paracle_chassis.app import Service
from paracle_chassis.background import Background
from paracle_chassis.nats_bus import NatsBus
from paracle_chassis.postgres import Database, Queries
from paracle_observability.adapters.owners import OrchestratorRuns, RuntimeTasks
from paracle_observability.adapters.postgres import PostgresEventLog
from paracle_observability.handlers import routes
from paracle_observability.service import Observability
from paracle_observability.settings import Settings


def create_app(settings: Settings) -> Service:
    """The service over NATS and PostgreSQL."""
    bus = NatsBus("observability", settings)
    database = Database(settings, "paracle_observability")
    events = PostgresEventLog(database.pool, Queries.load("paracle_observability"))
    observability = Observability(events, {"run": OrchestratorRuns(bus), "task": RuntimeTasks(bus)})
    sweeps = Background(
        "sweeps", partial(observability.sweep, settings.sweep_quiet_s), every_s=settings.sweep_interval_s
    )
    return Service(
        "observability",
        settings,
        bus=bus,
        routes=routes(observability, batch=settings.store_batch, linger_s=settings.store_linger_s),
        resources=[database, sweeps],
        checks={"postgres": database.check, "sweeps": sweeps.check},
    )
