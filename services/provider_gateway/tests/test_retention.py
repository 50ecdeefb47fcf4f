"""What of the ledger is kept, and for how long."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from accounts_samples import PostgresBank, budget, count_of, order, settled

from paracle_chassis.postgres import Database
from paracle_chassis.settings import ServiceSettings
from paracle_chassis.testing.infra import migrated
from paracle_provider_gateway.adapters.archive import PostgresArchive
from paracle_provider_gateway.retention import BATCH, Retention

pytestmark = pytest.mark.connected


@pytest.fixture
async def bank(postgres_dsn: str) -> AsyncIterator[PostgresBank]:
    await migrated(postgres_dsn, "paracle_provider_gateway")
    async with Database(ServiceSettings(postgres_dsn=postgres_dsn), "paracle_provider_gateway") as found:
        yield PostgresBank(found.pool)


async def ended(bank: PostgresBank, number: int) -> None:
    orders = [order() for _ in range(number)]
    await bank.ledger("a").open(orders)
    await bank.ledger("a").settle([settled(one) for one in orders])


async def test_attempts_are_kept_as_long_as_it_is_said(bank: PostgresBank):
    archive = PostgresArchive(bank.pool, bank.queries)
    await ended(bank, BATCH + 5)
    await bank.pool.execute("update attempts set ended_at = ended_at - interval '1 hour'")
    await ended(bank, 3)
    assert await Retention(archive, None).round() is None
    assert len(await bank.endings()) == BATCH + 8
    short = Retention(archive, 60)
    assert await short.round() is not None, "there is more, and it is not waited for"
    assert len(await bank.endings()) == 8
    assert await short.round() is None
    assert len(await bank.endings()) == 3


async def test_counts_of_windows_that_are_over_go_and_others_stay(bank: PostgresBank):
    one = budget()
    counts = [count_of(one, period=period) for period in ("total", "2020-01-31", "2020-01", "9999-12-31", "9999-12")]
    await bank.ledger("a").open([order(*counts)])
    (in_air,) = await bank.pool.fetch("select * from open_attempts")
    archive = PostgresArchive(bank.pool, bank.queries)
    await archive.drop_counters()
    assert in_air
    assert await bank.pool.fetchval("select count(*) from counters") == 5, "what is reserved is not forgotten"
    await bank.pool.execute("update counters set reserved_tokens = 0")
    await archive.drop_counters()
    left = {row["period"] for row in await bank.pool.fetch("select period from counters")}
    assert left == {"total", "9999-12-31", "9999-12"}
