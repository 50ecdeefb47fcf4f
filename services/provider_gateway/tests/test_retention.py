"""What of the ledger is kept, and for how long."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from accounts_samples import KnownRuns, PostgresBank, budget, count_of, order, settled

from paracle_chassis.postgres import Database
from paracle_chassis.routes import Routes
from paracle_chassis.settings import ServiceSettings
from paracle_chassis.testing.infra import OpenBus, migrated
from paracle_domain.envelope import Context
from paracle_domain.errors import MalformedMessage, NotFound, Unavailable
from paracle_domain.run.commands import GetRun, RunStatus, RunSummary, RunView
from paracle_provider_gateway.adapters.archive import PostgresArchive
from paracle_provider_gateway.adapters.runs import BusRuns
from paracle_provider_gateway.ledger import Count
from paracle_provider_gateway.retention import BATCH, COUNTS, Keep, Retention

DAY_S = 86_400.0
RUN, OTHER_RUN = "run_01JTQ000000000000000000001", "run_01JTQ000000000000000000002"

pytestmark = pytest.mark.connected


@pytest.fixture
async def bank(postgres_dsn: str) -> AsyncIterator[PostgresBank]:
    await migrated(postgres_dsn, "paracle_provider_gateway")
    async with Database(ServiceSettings(postgres_dsn=postgres_dsn), "paracle_provider_gateway") as found:
        made = PostgresBank(found.pool)
        await made.join("a")
        yield made


async def ended(bank: PostgresBank, number: int) -> None:
    orders = [order() for _ in range(number)]
    await bank.ledger("a").open(orders)
    await bank.ledger("a").settle([settled(one) for one in orders])


async def test_attempts_are_kept_as_long_as_it_is_said(bank: PostgresBank):
    archive, runs = PostgresArchive(bank.pool, bank.queries), KnownRuns()
    await ended(bank, BATCH + 5)
    await bank.pool.execute("update attempts set ended_at = ended_at - interval '1 hour'")
    await ended(bank, 3)
    assert await Retention(archive, runs, Keep(None, DAY_S, answers=9)).round() is None
    assert len(await bank.endings()) == BATCH + 8
    short = Retention(archive, runs, Keep(60, DAY_S, answers=9))
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


EACH_RUN, EACH_TASK = budget("runs", scope="run"), budget("tasks", scope="task")
ONE_RUN, TENANT = budget("one", scope="run", of=RUN), budget("all")


async def used(bank: PostgresBank, run_id: str | None, task_id: str, *more: Count) -> None:
    """A call of a task goes on what is counted for it, and for its run."""
    counts = [count_of(EACH_TASK, task_id), *more]
    if run_id is not None:
        counts.append(count_of(EACH_RUN, run_id))
    one = order(*counts, labels=(None, "ann", "a", run_id, task_id, None, None), revision=1)
    assert list(await bank.ledger("a").open([one])) == [None]
    await bank.ledger("a").settle([settled(one)])


async def left(bank: PostgresBank) -> set[tuple[str, str]]:
    return {tuple(row) for row in await bank.pool.fetch("select budget, subject from counters")}


@pytest.fixture
async def long_unused(bank: PostgresBank) -> PostgresBank:
    """Counts of a run, and of tasks, of which a run is one and another is none's; each was used a month ago."""
    await bank.set_budgets("acme", EACH_RUN, EACH_TASK, ONE_RUN, TENANT)
    await used(bank, RUN, "task_a", count_of(ONE_RUN, RUN), count_of(TENANT))
    await used(bank, RUN, "task_b")
    await used(bank, None, "task_c")
    await bank.pool.execute("update counters set used_on = current_date - 31")
    return bank


async def test_counts_of_each_run_and_task_go_some_time_after_their_last_use(long_unused: PostgresBank):
    bank, runs = long_unused, KnownRuns()
    retention = Retention(PostgresArchive(bank.pool, bank.queries), runs, Keep(None, 30 * DAY_S, answers=9))
    await used(bank, OTHER_RUN, "task_a")
    assert await retention.round() is None
    assert await left(bank) == {("one", RUN), ("all", "acme"), ("runs", OTHER_RUN), ("tasks", "task_a")}
    assert runs.asked == [("acme", RUN)]


async def test_a_run_that_goes_on_keeps_its_counts_however_long_it_rests(long_unused: PostgresBank):
    bank, runs = long_unused, KnownRuns({RUN})
    retention = Retention(PostgresArchive(bank.pool, bank.queries), runs, Keep(None, 30 * DAY_S, answers=9))
    before = await left(bank)
    assert await retention.round() is None
    assert await left(bank) == before - {("tasks", "task_c")}
    assert await retention.round() is None
    assert len(runs.asked) == 1, "it is asked about again when as much time has passed again"
    assert (await bank.tally(count_of(EACH_RUN, RUN))).calls == 2


async def test_a_run_that_cannot_be_read_holds_up_none_of_the_others(long_unused: PostgresBank):
    class Spoilt(KnownRuns):
        async def has_ended(self, tenant: str, run_id: str) -> bool:
            if run_id == RUN:
                raise MalformedMessage("its history is of a later version")
            return await super().has_ended(tenant, run_id)

    bank = long_unused
    await used(bank, OTHER_RUN, "task_d")
    await bank.pool.execute(
        "update counters set used_on = current_date - 31 where subject in ('task_d', $1)", OTHER_RUN
    )
    retention = Retention(PostgresArchive(bank.pool, bank.queries), Spoilt(), Keep(None, 30 * DAY_S, answers=9))
    before = await left(bank)
    assert await retention.round() is None
    assert await left(bank) == before - {("tasks", "task_c"), ("tasks", "task_d"), ("runs", OTHER_RUN)}


async def test_while_nobody_can_say_which_runs_have_ended_nothing_is_dropped(long_unused: PostgresBank):
    class Away(KnownRuns):
        async def has_ended(self, tenant: str, run_id: str) -> bool:
            raise Unavailable("the orchestrator is away")

    bank = long_unused
    retention = Retention(PostgresArchive(bank.pool, bank.queries), Away(), Keep(None, 30 * DAY_S, answers=9))
    with pytest.raises(Unavailable):
        await retention.round()
    assert {("runs", RUN), ("tasks", "task_a"), ("tasks", "task_b")} <= await left(bank)


async def test_what_is_used_meanwhile_stays(long_unused: PostgresBank):
    bank = long_unused
    archive = PostgresArchive(bank.pool, bank.queries)
    idle = await archive.idle_counts(30 * DAY_S, 100)
    assert len(idle) == 4
    in_air = order(count_of(EACH_TASK, "task_a"), revision=1)
    await bank.ledger("a").open([in_air])
    await used(bank, RUN, "task_b")
    await archive.drop_counts([one.id for one in idle], 30 * DAY_S)
    assert {subject for name, subject in await left(bank) if name in {"runs", "tasks"}} == {RUN, "task_a", "task_b"}


async def test_they_go_a_batch_at_a_time(bank: PostgresBank):
    await bank.set_budgets("acme", EACH_TASK)
    for number in range(COUNTS + 1):
        await used(bank, None, f"task_{number}")
    await bank.pool.execute("update counters set used_on = current_date - 2")
    retention = Retention(PostgresArchive(bank.pool, bank.queries), KnownRuns(), Keep(None, DAY_S, answers=9))
    assert await retention.round() is not None
    assert len(await left(bank)) == 1
    assert await retention.round() is None
    assert await left(bank) == set()


async def test_the_orchestrator_says_which_runs_have_ended(open_bus: OpenBus):
    statuses = {RUN: RunStatus.RUNNING, OTHER_RUN: RunStatus.FAILED}

    async def get_run(request: GetRun, context: Context) -> RunView:
        if request.run_id not in statuses:
            raise NotFound("no such run")
        moment = datetime(2026, 11, 26, tzinfo=UTC)
        fields: dict[str, Any] = {"workflow": "w", "revision": 1, "plan": "p", "created_at": moment}
        summary = RunSummary(run_id=request.run_id, status=statuses[request.run_id], **fields)
        return RunView(run=summary, principal=context.principal, last_seq=1)

    table = Routes("orchestrator")
    table.rpc(GetRun, get_run)
    orchestrator = await open_bus("orchestrator")
    await orchestrator.serve(table)
    runs = BusRuns(await open_bus("provider_gateway"))
    ended = [await runs.has_ended("acme", run_id) for run_id in (RUN, OTHER_RUN, "run_01JTQ000000000000000000009")]
    assert ended == [False, True, True]
