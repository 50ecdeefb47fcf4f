"""The contract of audit logs, held by the one in memory and the one in PostgreSQL; what only the latter can show."""

import asyncio
import random
from dataclasses import replace
from decimal import Decimal

import pytest
from observability_samples import OTHER_RUN, OTHER_TASK, RUN, TASK, Event, record, replied, tool_returned

from paracle_chassis.postgres import Database, Queries
from paracle_domain.envelope import PRINCIPAL
from paracle_domain.machine import EventRecord
from paracle_observability.adapters.postgres import PostgresEventLog
from paracle_observability.ports import EventLog, Gaps
from paracle_observability.projections import EventRow, spending, usage_report


def rows(*records, tenant="default"):
    return [
        EventRow.read(e.subject, e.headers[PRINCIPAL], e.body) for e in (Event(told, tenant=tenant) for told in records)
    ]


async def store(log: EventLog, *records, tenant="default") -> int:
    found = rows(*records, tenant=tenant)
    return await log.store(found, spending(found)[0])


async def report(log: EventLog, run=RUN, tenant="default"):
    return usage_report(run, await log.usage(tenant, run))


async def test_an_event_is_stored_once(log: EventLog):
    assert await store(log, record(1), record(2)) == 2
    assert await store(log, record(2), record(3)) == 1
    assert [item.event.seq for item in await log.of_run("default", RUN, 0, 10)] == [1, 2, 3]


async def test_what_was_published_comes_back(log: EventLog):
    told = record(1, output={"text": "grüße \u0000 \U0001f600", "n": 1.5, "none": None})
    await store(log, told)
    [found] = await log.of_run("default", RUN, 0, 10)
    assert found.event == told
    assert found.subject == f"paracle.v1.default.evt.run.{RUN}.step_completed"
    assert (found.principal, found.time) == ("alice", told.at)


async def test_a_page_goes_on_where_the_last_one_ended(log: EventLog):
    await store(log, *(record(seq) for seq in range(1, 6)))
    first = await log.of_run("default", RUN, 0, 2)
    second = await log.of_run("default", RUN, first[-1].position, 10)
    assert [item.event.seq for item in [*first, *second]] == [1, 2, 3, 4, 5]


async def test_events_that_came_together_are_told_one_by_one(log: EventLog):
    told = [record(seq) for seq in range(1, 8)]
    for first, last in ((0, 3), (3, 4), (4, 7)):
        assert await store(log, EventRecord.together(told[first:last])) == last - first
        assert await store(log, EventRecord.together(told[first:last])) == 0
    found = await log.of_run("default", RUN, 0, 10)
    assert [item.event for item in found] == told
    assert [item.position for item in found] == sorted({item.position for item in found})
    for after in range(7):
        for limit in range(1, 8):
            page = await log.of_entity("default", "run", RUN, found[after].position, limit)
            assert page == found[after + 1 : after + 1 + limit]


async def test_a_run_has_its_own_events_and_those_of_its_tasks(log: EventLog):
    await store(
        log,
        record(1),
        replied(1),
        record(1, id=OTHER_RUN, run=OTHER_RUN),
        record(1, id="triage", entity="agent", run=None),
    )
    assert [item.event.id for item in await log.of_run("default", RUN, 0, 10)] == [RUN, TASK]
    assert [item.event.id for item in await log.of_entity("default", "task", TASK, 0, 10)] == [TASK]
    assert [item.event.id for item in await log.of_entity("default", "agent", "triage", 0, 10)] == ["triage"]


async def test_things_of_one_name_are_told_apart(log: EventLog):
    agent, tool = (record(1, id="search", entity=entity, run=None) for entity in ("agent", "tool"))
    assert await store(log, agent, tool) == 2


async def test_tenants_are_apart(log: EventLog):
    await store(log, replied(1), tenant="acme")
    assert await store(log, replied(1, cost="5"), tenant="other") == 1
    assert await log.of_run("default", RUN, 0, 10) == []
    assert (await report(log, tenant="acme")).total.cost_usd == Decimal("0.01")
    assert (await report(log)).total.model_calls == 0


async def test_a_model_call_is_counted_once_however_often_it_comes(log: EventLog):
    for _ in range(3):
        await store(log, replied(1), EventRecord.together([replied(2), tool_returned(3)]))
    total = (await report(log)).total
    assert (total.model_calls, total.tool_calls, total.input_tokens) == (2, 1, 200)
    assert total.cost_usd == Decimal("0.02")


async def test_any_order_gives_the_same_usage(log: EventLog):
    told = [replied(seq, model=("big", "small")[seq % 2], cost=f"0.{seq}") for seq in range(1, 8)]
    told += [replied(1, task=OTHER_TASK, agent="writer", step="write"), tool_returned(2, task=OTHER_TASK)]
    random.Random(7).shuffle(told)
    for told_one in told:
        await store(log, told_one)
    found = await report(log)
    assert found.total.cost_usd == Decimal("2.81")
    assert {item.name: item.usage.model_calls for item in found.by_agent} == {"triager": 7, "writer": 1}
    assert {item.name: item.usage.tool_calls for item in found.by_step} == {"triage": 0, "write": 1}


async def test_an_unknown_cost_stays_unknown(log: EventLog):
    await store(log, replied(1), replied(2, cost=None))
    found = await report(log)
    assert found.total.cost_usd is None
    assert (found.known_cost_usd, found.unpriced_calls) == (Decimal("0.01"), 1)


async def test_a_tiny_cost_is_exact(log: EventLog):
    await store(log, *(replied(seq, cost="0.000000000123456789") for seq in range(1, 4)))
    assert (await report(log)).total.cost_usd == Decimal("0.000000000370370367")


async def test_a_gap_is_suspected_and_closed_when_it_is_filled(log: EventLog):
    await store(log, record(1), record(4, "run.completed"))
    await log.suspects(0, 10)
    [suspect] = await log.suspects(0, 10) or await log.suspects(0, 10)
    assert (suspect.entity, suspect.id, suspect.first_missing, suspect.missing) == ("run", RUN, 2, 2)
    assert await log.gaps() == Gaps(missing=2, histories=1, lost=0)
    await store(log, record(2), record(3))
    assert await log.suspects(0, 10) == []
    assert await log.gaps() == Gaps(missing=0, histories=0, lost=0)


async def test_what_is_given_up_is_no_suspect_until_something_comes(log: EventLog):
    await store(log, record(1), record(4))
    await log.suspects(0, 10)
    [suspect] = await log.suspects(0, 10) or await log.suspects(0, 10)
    assert (await log.gaps()).missing == 2
    assert not await log.is_lost("default", "run", RUN)
    await log.give_up(replace(suspect, stored=1))  # something has come meanwhile
    assert not await log.is_lost("default", "run", RUN)
    await log.give_up(suspect)
    assert (await log.suspects(0, 10), await log.gaps()) == ([], Gaps(missing=0, histories=0, lost=1))
    assert await log.is_lost("default", "run", RUN)
    await store(log, record(3))
    await log.suspects(0, 10)
    [suspect] = await log.suspects(0, 10) or await log.suspects(0, 10)
    assert (suspect.first_missing, await log.is_lost("default", "run", RUN)) == (2, False)


async def test_a_run_that_has_not_ended_is_suspected_after_its_last_event(log: EventLog):
    await store(log, record(1), record(2), record(1, "task.completed", entity="task", id=TASK))
    found = await log.suspects(0, 10)
    assert [(suspect.id, suspect.first_missing) for suspect in found] == [(RUN, 3)]


async def test_a_gap_between_messages_of_several_events_is_seen(log: EventLog):
    await store(log, EventRecord.together([record(1), record(2)]))
    await store(log, EventRecord.together([record(5), record(6), record(7, "run.completed")]))
    [suspect] = await log.suspects(0, 10)
    assert (suspect.first_missing, suspect.missing, suspect.last_seq) == (3, 2, 7)
    await store(log, EventRecord.together([record(3), record(4)]))
    assert await log.suspects(0, 10) == []
    assert await log.gaps() == Gaps(missing=0, histories=0, lost=0)


async def test_what_is_not_quiet_yet_is_left_alone(log: EventLog):
    await store(log, record(1), record(3))
    assert await log.suspects(3600, 10) == []
    assert (await log.gaps()).missing == 1


async def test_a_missing_first_event_is_seen(log: EventLog):
    await store(log, record(2, "run.completed"))
    [suspect] = await log.suspects(0, 10)
    assert suspect.first_missing == 1


@pytest.mark.connected
async def test_replicas_that_get_the_same_events_at_once_count_them_once(database: Database):
    logs = [PostgresEventLog(database.pool, Queries.load("paracle_observability")) for _ in range(4)]
    told = [replied(seq, task=task) for seq in range(1, 51) for task in (TASK, OTHER_TASK)]

    async def deliver(log: PostgresEventLog, seed: int) -> int:
        mine = told.copy()
        random.Random(seed).shuffle(mine)
        return sum([await store(log, *mine[start : start + 17]) for start in range(0, len(mine), 17)])

    new = await asyncio.gather(*(deliver(log, seed) for seed, log in enumerate(logs)))
    assert sum(new) == len(told)
    found = await report(logs[0])
    assert (found.total.model_calls, found.total.cost_usd) == (100, Decimal("1.00"))


@pytest.mark.connected
async def test_a_reader_that_goes_on_from_its_last_position_misses_nothing_while_replicas_write(database: Database):
    logs = [PostgresEventLog(database.pool, Queries.load("paracle_observability")) for _ in range(4)]
    seen: list[int] = []

    async def write(log: PostgresEventLog, first: int) -> None:
        for seq in range(first, 201, 4):
            await store(log, record(seq))

    writing = asyncio.gather(*(write(log, number) for number, log in enumerate(logs, start=1)))
    position = 0
    while len(seen) < 200:
        page = await logs[0].of_run("default", RUN, position, 50)
        position = page[-1].position if page else position
        seen += [item.event.seq for item in page]
        if writing.done() and not page:
            break
    await writing
    assert sorted(seen) == list(range(1, 201))


@pytest.mark.connected
async def test_sweeping_replicas_count_each_event_once(database: Database):
    logs = [PostgresEventLog(database.pool, Queries.load("paracle_observability")) for _ in range(3)]

    async def write() -> None:
        for seq in range(1, 101):
            await store(logs[0], record(seq))

    await asyncio.gather(write(), *(log.suspects(0, 1) for log in logs for _ in range(10)))
    await logs[0].suspects(0, 1)
    stored = await database.pool.fetch("select stored, last_seq from history")
    assert [tuple(row) for row in stored] == [(100, 100)]


@pytest.mark.connected
async def test_the_audit_of_a_run_is_read_by_its_index(database: Database):
    log = PostgresEventLog(database.pool, Queries.load("paracle_observability"))
    await store(log, *(record(seq) for seq in range(1, 1001)))
    await database.pool.execute("analyze event")
    queries = Queries.load("paracle_observability")
    async with database.pool.acquire() as connection, connection.transaction():
        await connection.execute("set local enable_seqscan = off")
        plan = await connection.fetch("explain " + queries["audit_of_run"], "default", RUN, 900, 50)
    assert any("event_of_run" in line[0] for line in plan)
