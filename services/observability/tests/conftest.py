"""An audit log in memory and one in PostgreSQL."""

from collections.abc import AsyncIterator

import pytest
from observability_samples import NOW, ScriptedHistories

from paracle_chassis.postgres import Database, Queries
from paracle_chassis.settings import ServiceSettings
from paracle_chassis.testing.infra import migrated
from paracle_observability.adapters.memory import MemoryEventLog
from paracle_observability.adapters.postgres import PostgresEventLog
from paracle_observability.ports import EventLog
from paracle_observability.rollcall import RollCall
from paracle_observability.service import Observability


@pytest.fixture
def truth() -> ScriptedHistories:
    return ScriptedHistories()


@pytest.fixture
async def database(postgres_dsn: str) -> AsyncIterator[Database]:
    await migrated(postgres_dsn, "paracle_observability")
    settings = ServiceSettings(postgres_dsn=postgres_dsn)
    async with Database(settings, "paracle_observability") as found:
        yield found


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.connected)])
def log(request: pytest.FixtureRequest) -> EventLog:
    if request.param == "memory":
        return MemoryEventLog()
    database = request.getfixturevalue("database")
    return PostgresEventLog(database.pool, Queries.load("paracle_observability"))


@pytest.fixture
def observability(log: EventLog, truth: ScriptedHistories) -> Observability:
    tasks = ScriptedHistories()
    tasks.histories, tasks.asked = truth.histories, truth.asked
    owners = {"run": truth, "task": tasks}
    return Observability(log, owners, RollCall(log, owners, lambda: NOW))
