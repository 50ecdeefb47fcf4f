"""Use cases: what is kept, what is answered, what is found missing and mended."""

import logging

import pytest
from observability_samples import OTHER_RUN, RUN, TASK, Event, ScriptedRuns, record, replied

from paracle_domain.audit import GetAudit, GetUsage
from paracle_domain.envelope import Context
from paracle_domain.errors import Unavailable
from paracle_observability.ports import EventLog
from paracle_observability.service import Observability

CALL = Context(tenant="default")
HISTORY = [record(1, "run.started"), *(record(seq) for seq in range(2, 9)), record(9, "run.completed")]


async def stored(log: EventLog) -> list[int]:
    return sorted(item.event.seq for item in await log.of_entity("default", "run", RUN, 0, 100))


async def test_a_batch_with_doubles_and_nonsense_keeps_what_is_good(observability: Observability, log: EventLog):
    nonsense = Event(record(1), body=b"{nonsense")
    batch = [Event(record(1)), nonsense, Event(record(1)), Event(record(2))]
    await observability.store(batch)
    assert await stored(log) == [1, 2]
    assert nonsense.refused is not None
    assert [event.refused for event in batch if event is not nonsense] == [None] * 3


async def test_events_of_unknown_types_are_kept(observability: Observability, log: EventLog):
    await observability.store([Event(record(1, "run.abducted_by_aliens"))])
    assert await stored(log) == [1]


async def test_an_unreadable_model_reply_is_kept_and_told(observability: Observability, log: EventLog, caplog):
    broken = record(1, "task.model_replied", entity="task", id=TASK, provider="openai")
    with caplog.at_level(logging.ERROR):
        await observability.store([Event(broken)])
    assert len(await log.of_run("default", RUN, 0, 10)) == 1
    assert "usage cannot be read" in caplog.text


async def test_the_audit_is_paged(observability: Observability):
    await observability.store([Event(event) for event in HISTORY])
    first = await observability.get_audit(GetAudit(run_id=RUN, limit=4), CALL)
    assert first.next_cursor == first.events[-1].position
    rest = await observability.get_audit(GetAudit(run_id=RUN, after=first.next_cursor, limit=5), CALL)
    assert rest.next_cursor is None
    assert [item.event for item in [*first.events, *rest.events]] == HISTORY


async def test_the_audit_of_one_entity(observability: Observability):
    await observability.store([Event(record(1)), Event(replied(1))])
    page = await observability.get_audit(GetAudit(entity="task", id=TASK), CALL)
    assert [item.event.id for item in page.events] == [TASK]


async def test_a_run_that_used_nothing(observability: Observability):
    report = await observability.get_usage(GetUsage(run_id=OTHER_RUN), CALL)
    assert report.total.total_tokens == 0
    assert report.by_model == ()


@pytest.mark.parametrize("lost", [{1}, {9}, {3, 4}, {2, 5, 8, 9}, {2, 3, 4, 5, 6, 7, 8, 9}])
async def test_lost_events_of_a_run_are_fetched(
    observability: Observability, log: EventLog, runs: ScriptedRuns, lost: set[int]
):
    await observability.store([Event(event) for event in HISTORY if event.seq not in lost])
    runs.histories[RUN] = HISTORY
    assert await observability.sweep(0) == len(lost)
    assert await stored(log) == list(range(1, 10))
    runs.asked.clear()
    assert await observability.sweep(0) == 0
    assert runs.asked == []  # it is complete, so nobody is asked again


async def test_a_whole_run_is_left_alone(observability: Observability, runs: ScriptedRuns):
    await observability.store([Event(event) for event in HISTORY])
    assert await observability.sweep(0) == 0
    assert runs.asked == []


async def test_a_fetched_event_that_arrives_later_changes_nothing(
    observability: Observability, log: EventLog, runs: ScriptedRuns
):
    await observability.store([Event(HISTORY[0])])
    runs.histories[RUN] = HISTORY
    await observability.sweep(0)
    await observability.store([Event(event) for event in HISTORY])
    assert await stored(log) == list(range(1, 10))


async def test_an_orchestrator_that_is_away_is_asked_again(
    observability: Observability, log: EventLog, runs: ScriptedRuns
):
    await observability.store([Event(event) for event in HISTORY[:3]])
    runs.histories[RUN] = Unavailable("away")
    assert await observability.sweep(0) == 0
    runs.histories[RUN] = HISTORY
    assert await observability.sweep(0) == 6


async def test_a_gap_whose_owner_does_not_know_it_is_shown(observability: Observability, log: EventLog, caplog):
    await observability.store([Event(record(1)), Event(record(3))])
    assert await observability.sweep(0) == 0
    assert "its owner does not know" in caplog.text
    assert (await log.gaps()).missing == 1


async def test_a_gap_of_a_task_is_shown(observability: Observability, log: EventLog, runs: ScriptedRuns, caplog):
    await observability.store([Event(replied(1)), Event(replied(3))])
    await observability.sweep(0)
    assert "event history has a gap" in caplog.text
    assert (await log.gaps()).histories == 1
    assert runs.asked == []
