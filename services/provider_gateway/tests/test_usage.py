"""What the ledger says to those who ask what model calls used."""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from accounts_samples import PostgresBank, order, settled

from paracle_chassis.postgres import Database
from paracle_chassis.settings import ServiceSettings
from paracle_chassis.testing.infra import migrated
from paracle_domain.envelope import Context
from paracle_domain.errors import InvalidInput
from paracle_domain.ids import id_from_key
from paracle_domain.inference.ledger import (
    ListAttempts,
    Outcome,
    QueryUsage,
    Spend,
    UsageBy,
    UsageFilter,
    UsageRecord,
    UsageTable,
)
from paracle_domain.inference.usage import Usage
from paracle_provider_gateway.adapters.replicas import PostgresReplica
from paracle_provider_gateway.adapters.usage import PostgresUsage
from paracle_provider_gateway.ledger import Ending, Settlement
from paracle_provider_gateway.usage import UsageDesk

pytestmark = pytest.mark.connected

ACME = Context("acme")
RUN, OTHER = id_from_key("run", "a"), id_from_key("run", "b")
TASK, CHILD = id_from_key("task", "a"), id_from_key("task", "b")


@pytest.fixture
async def bank(postgres_dsn: str) -> AsyncIterator[PostgresBank]:
    await migrated(postgres_dsn, "paracle_provider_gateway")
    async with Database(ServiceSettings(postgres_dsn=postgres_dsn), "paracle_provider_gateway") as found:
        bank = PostgresBank(found.pool)
        async with PostgresReplica(found.pool, bank.queries, "a"):
            yield bank


@pytest.fixture
def desk(bank: PostgresBank) -> UsageDesk:
    return UsageDesk(PostgresUsage(bank.pool, bank.queries))


def labels(
    project: str | None = None,
    user: str | None = "ann",
    agent: str | None = "helper",
    run: str | None = RUN,
    task: str | None = TASK,
    parent: str | None = None,
) -> tuple[str | None, ...]:
    return (project, user, agent, run, task, parent, "s")


async def made(bank: PostgresBank, *ends: tuple[Ending, str | None, int], **more: Any) -> None:
    """Attempts that are opened and settled."""
    orders = [order(**more) for _ in ends]
    ledger = bank.ledger("a")
    await ledger.open(orders)
    await ledger.settle([settled(one, *end) for one, end in zip(orders, ends, strict=True)])


def rows(table: UsageTable) -> list[tuple[dict[str, str], int, str]]:
    return [
        ({kind.value: name for kind, name in row.by.items()}, row.spend.attempts, str(row.spend.cost_usd))
        for row in table.rows
    ]


OK = Ending.COMPLETED


async def test_usage_is_added_up_by_what_is_asked_for(bank: PostgresBank, desk: UsageDesk):
    await made(bank, (OK, "0.10", 10), (OK, "0.20", 20), labels=labels("atlas"))
    await made(bank, (OK, "1", 100), (Ending.FAILED, "0", 0), labels=labels(None, "bob"), provider="groq")
    by = (UsageBy.PROJECT, UsageBy.USER)
    table = await desk.query_usage(QueryUsage(by=by), ACME)
    assert rows(table) == [({"user": "bob"}, 2, "1"), ({"project": "atlas", "user": "ann"}, 2, "0.3")]
    total = table.total
    assert (total.attempts, total.failed, total.input_tokens, total.cost_usd) == (4, 1, 130, Decimal("1.3"))
    assert (total.latency_s, total.first_token_s, total.unpriced, table.more) == (1.5, None, 0, False)
    short = await desk.query_usage(QueryUsage(by=by, limit=1), ACME)
    assert (len(short.rows), short.more, short.total) == (1, True, total)
    assert await desk.query_usage(QueryUsage(), ACME) == UsageTable(rows=(), total=total)
    assert (await desk.query_usage(QueryUsage(by=by), Context("evil"))) == UsageTable(rows=(), total=Spend())


async def test_every_kind_has_its_names(bank: PostgresBank, desk: UsageDesk):
    await made(bank, (OK, "0.10", 10), labels=labels("atlas", parent=CHILD))
    [row] = (await desk.query_usage(QueryUsage(by=tuple(UsageBy)), ACME)).rows
    now = datetime.now(UTC)
    day, hour = row.by.pop(UsageBy.DAY), row.by.pop(UsageBy.HOUR)
    assert now - timedelta(days=2) < datetime.fromisoformat(day).replace(tzinfo=UTC) <= now
    assert hour.startswith(day)
    assert hour.endswith(":00Z")
    assert {kind.value: name for kind, name in row.by.items()} == {
        "model": "big-1",
        "provider": "openai",
        "deployment": "openai/big-1",
        "agent": "helper",
        "user": "ann",
        "project": "atlas",
        "run": RUN,
        "task": TASK,
        "parent_task": CHILD,
        "outcome": "completed",
    }


async def test_an_unknown_price_is_counted_as_such(bank: PostgresBank, desk: UsageDesk):
    await made(bank, (OK, None, 10), (OK, "0.5", 1), (Ending.FAILED, None, 0), usd=None)
    total = (await desk.query_usage(QueryUsage(), ACME)).total
    assert (total.cost_usd, total.unpriced, total.attempts) == (Decimal("0.5"), 1, 3)


@pytest.mark.parametrize("ending", [Ending.FAILED, Ending.CANCELLED])
async def test_what_may_have_been_used_is_not_shown_as_nothing(bank: PostgresBank, desk: UsageDesk, ending: Ending):
    [cut_off] = orders = [order(usd="0.25")]
    await bank.ledger("a").open(orders)
    lost = Settlement(cut_off, ending, None, None, Usage(cost_usd=None), Decimal("0.25"), cut_off.tokens, 1.5, 0.5)
    await bank.ledger("a").settle([lost])
    total = (await desk.query_usage(QueryUsage(), ACME)).total
    assert (total.cost_usd, total.unpriced, total.attempts) == (Decimal(0), 1, 1)


async def test_what_is_in_the_air_is_shown_with_what_it_may_use(bank: PostgresBank, desk: UsageDesk):
    await bank.ledger("a").open([order(usd="0.25", labels=labels("atlas"))])
    table = await desk.query_usage(QueryUsage(by=(UsageBy.OUTCOME,)), ACME)
    assert rows(table) == [({"outcome": "open"}, 1, "0")]
    assert (table.total.open, table.total.reserved_usd, table.total.unpriced) == (1, Decimal("0.25"), 0)
    [record] = (await desk.list_attempts(ListAttempts(), ACME)).records
    assert (record.outcome, record.reserved_usd, record.cost_usd, record.project) == (
        Outcome.OPEN,
        Decimal("0.25"),
        None,
        "atlas",
    )
    assert (await desk.query_usage(QueryUsage(outcome=Outcome.COMPLETED), ACME)).total == Spend()


FILTERS: list[tuple[dict[str, Any], int]] = [
    ({}, 4),
    ({"project": "atlas"}, 2),
    ({"user": "bob"}, 1),
    ({"agent": "helper", "run_id": RUN}, 2),
    ({"task_id": CHILD}, 1),
    ({"provider": "groq"}, 1),
    ({"model": "big-1"}, 4),
    ({"model": "small"}, 0),
    ({"outcome": "failed"}, 1),
    ({"since": datetime(2100, 1, 1, tzinfo=UTC)}, 0),
    ({"until": datetime(2100, 1, 1, tzinfo=UTC)}, 4),
    ({"project": "'; drop table attempts; --"}, 0),
]


@pytest.mark.parametrize(("asked", "number"), FILTERS)
async def test_all_that_is_given_has_to_hold(bank: PostgresBank, desk: UsageDesk, asked: dict[str, Any], number: int):
    await made(bank, (OK, "1", 1), (Ending.FAILED, "0", 0), labels=labels("atlas"))
    await made(bank, (OK, "1", 1), labels=labels(None, "bob", run=OTHER, task=CHILD))
    await made(bank, (OK, "1", 1), labels=labels(None, run=OTHER), provider="groq")
    wanted = UsageFilter.model_validate(asked).model_dump()
    table = await desk.query_usage(QueryUsage.model_validate(wanted), ACME)
    page = await desk.list_attempts(ListAttempts.model_validate(wanted), ACME)
    assert (table.total.attempts, len(page.records)) == (number, number)


async def test_pages_of_attempts_show_each_once_newest_first(bank: PostgresBank, desk: UsageDesk):
    await made(bank, *[(OK, "0.1", 1)] * 7)
    await bank.ledger("a").open([order() for _ in range(2)])
    seen: list[UsageRecord] = []
    cursor = None
    while True:
        page = await desk.list_attempts(ListAttempts(limit=2, cursor=cursor), ACME)
        seen += page.records
        cursor = page.next_cursor
        if cursor is None:
            break
    assert len({one.call_id for one in seen}) == len(seen) == 9
    assert [one.at for one in seen] == sorted((one.at for one in seen), reverse=True)
    assert seen[-1].latency_s == 1.5
    beyond = [f"2026-11-26T12:00:00+00:00 {place}".encode() for place in (f"c {2**63}", "c -1", "c\0 1")]
    for wrong in ("x", "eA==", "MQ==", *(base64.urlsafe_b64encode(place).decode() for place in beyond)):
        with pytest.raises(InvalidInput, match="is no cursor"):
            await desk.list_attempts(ListAttempts(cursor=wrong), ACME)


async def test_the_newest_time_comes_first_and_sums_match_a_count_by_hand(bank: PostgresBank, desk: UsageDesk):
    for place in range(12):
        await made(bank, (OK, f"0.{place:02}", place), labels=labels(f"p{place % 3}", f"u{place % 2}"))
        await bank.pool.execute("update attempts set ended_at = ended_at - interval '1 day'")
    by = (UsageBy.PROJECT, UsageBy.DAY, UsageBy.USER)
    table = await desk.query_usage(QueryUsage(by=by), ACME)
    days = [row.by[UsageBy.DAY] for row in table.rows]
    assert days == sorted(days, reverse=True)
    assert len(days) == 12
    spent: dict[str, Decimal] = defaultdict(Decimal)
    for row in table.rows:
        spent[row.by[UsageBy.PROJECT]] += row.spend.cost_usd
    assert spent == {"p0": Decimal("0.18"), "p1": Decimal("0.22"), "p2": Decimal("0.26")}
    assert sum(spent.values()) == table.total.cost_usd
