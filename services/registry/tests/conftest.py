"""A store in memory and one in PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime

import pytest
from registry_memory import MemorySpecStore

from paracle_chassis.postgres import Database, Queries
from paracle_chassis.settings import ServiceSettings
from paracle_chassis.testing.infra import migrated
from paracle_registry.adapters.postgres import PostgresSpecStore
from paracle_registry.ports import Revision, SpecStore
from paracle_registry.service import RegistryService

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class Announcements:
    """An announcer that remembers, and can be made to fail."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, Revision]] = []
        self.failing_with: list[Exception] = []

    async def announce(self, revisions: Sequence[tuple[str, Revision]]) -> None:
        if self.failing_with:
            raise self.failing_with.pop()
        self.heard += revisions


@pytest.fixture
async def database(postgres_dsn: str) -> AsyncIterator[Database]:
    await migrated(postgres_dsn, "paracle_registry")
    async with Database(ServiceSettings(postgres_dsn=postgres_dsn), "paracle_registry") as found:
        yield found


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.connected)])
def store(request: pytest.FixtureRequest) -> SpecStore:
    if request.param == "memory":
        return MemorySpecStore()
    return PostgresSpecStore(request.getfixturevalue("database").pool, Queries.load("paracle_registry"))


@pytest.fixture
def announcer() -> Announcements:
    return Announcements()


@pytest.fixture
def registry() -> RegistryService:
    return RegistryService(MemorySpecStore(), lambda: None, lambda: NOW)
