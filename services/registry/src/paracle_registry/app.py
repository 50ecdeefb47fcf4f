"""Composition root of the registry."""

from __future__ import annotations

from paracle_chassis.app import Service
from paracle_chassis.background import Background
from paracle_chassis.nats_bus import NatsBus
from paracle_chassis.postgres import Database, Queries
from paracle_registry.adapters.bus import BusAnnouncer, BusTeller
from paracle_registry.adapters.postgres import PostgresSpecStore
from paracle_registry.handlers import routes
from paracle_registry.outbox import Outbox
from paracle_registry.service import RegistryService
from paracle_registry.settings import Settings


def create_app(settings: Settings) -> Service:
    """The service over NATS and PostgreSQL."""
    bus = NatsBus("registry", settings)
    database = Database(settings, "paracle_registry")
    store = PostgresSpecStore(database.pool, Queries.load("paracle_registry"))
    outbox = Outbox(store, BusAnnouncer(bus))
    telling = Background("outbox", outbox.drain, every_s=settings.outbox_interval_s)

    def tell_again() -> None:
        outbox.doubt()
        telling.wake()

    bus.link.on_reconnect(tell_again)
    registry = RegistryService(store, telling.wake, tell=BusTeller(bus).tell)
    return Service(
        "registry",
        settings,
        bus=bus,
        routes=routes(registry),
        resources=[database, telling],
        checks={"postgres": database.check, "outbox": telling.check},
    )
