"""Composition root of observability."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import Final

from paracle_chassis.app import Service
from paracle_chassis.background import Background
from paracle_chassis.nats_bus import NatsBus
from paracle_chassis.postgres import Database, Queries
from paracle_observability.adapters.nats import NatsStreamCopies
from paracle_observability.adapters.owners import OrchestratorEmits, OrchestratorRuns, RuntimeTasks
from paracle_observability.adapters.postgres import PostgresEventLog
from paracle_observability.adapters.retention import PostgresAuditRetention
from paracle_observability.adapters.shelf import PostgresShelf
from paracle_observability.dead_letters import DeadLetters
from paracle_observability.handlers import routes
from paracle_observability.ports import History
from paracle_observability.retention import AuditPurger, Keeping
from paracle_observability.rollcall import RollCall
from paracle_observability.service import Observability
from paracle_observability.settings import Settings

_EXPIRY_EVERY_S: Final = 3600.0


def create_app(settings: Settings) -> Service:
    """The service over NATS and PostgreSQL."""
    bus = NatsBus("observability", settings)
    database = Database(settings, "paracle_observability")
    queries = Queries.load("paracle_observability")
    events = PostgresEventLog(database.pool, queries)
    dead_letters = DeadLetters(PostgresShelf(database.pool, queries), events, NatsStreamCopies(bus.link), bus)
    runs, tasks = OrchestratorRuns(bus), RuntimeTasks(bus)
    owners: dict[str, History] = {"run": runs, "emit": OrchestratorEmits(bus), "task": tasks}
    observability = Observability(events, owners, RollCall(events, {"run": runs, "task": tasks}, _now))
    sweeps = Background(
        "sweeps", partial(observability.sweep, settings.sweep_quiet_s), every_s=settings.sweep_interval_s
    )
    bus.link.on_reconnect(sweeps.wake)  # nats-server may have lost what it had not written
    expiry = Background("expiry", partial(dead_letters.expire, settings.dead_letters_keep_s), every_s=_EXPIRY_EVERY_S)
    keeping = Keeping(settings.audit_keep_s, settings.audit_keep_s_of)
    purger = AuditPurger(
        PostgresAuditRetention(database.pool, queries), keeping, _now, every_s=settings.audit_purge_every_s
    )
    purges = Background("purges", purger.round, every_s=settings.audit_purge_every_s)
    return Service(
        "observability",
        settings,
        bus=bus,
        routes=routes(observability, dead_letters, batch=settings.store_batch, linger_s=settings.store_linger_s),
        resources=[database, sweeps, expiry, purges],
        checks={"postgres": database.check, "sweeps": sweeps.check, "expiry": expiry.check},
    )


def _now() -> datetime:
    return datetime.now(UTC)
