"""Use cases: what is kept, what is answered, what is found missing and mended."""

import logging
from datetime import UTC, datetime, timedelta

import pytest
from observability_samples import (
    AT,
    NOW,
    OTHER_RUN,
    RUN,
    TASK,
    Event,
    ScriptedHistories,
    record,
    replied,
    tool_returned,
)

from paracle_domain.audit import GetAudit, GetUsage
from paracle_domain.envelope import Context
from paracle_domain.errors import Unavailable
from paracle_domain.histories import Begun
from paracle_domain.machine import EventRecord
from paracle_observability.ports import EventLog, Gaps
from paracle_observability.projections import messages
from paracle_observability.rollcall import SETTLED, RollCall
from paracle_observability.service import SUSPECTS, Observability

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
    observability: Observability, log: EventLog, truth: ScriptedHistories, lost: set[int]
):
    await observability.store([Event(event) for event in HISTORY if event.seq not in lost])
    truth.histories[RUN] = HISTORY
    await observability.sweep(0)
    assert await stored(log) == list(range(1, 10))
    truth.asked.clear()
    await observability.sweep(0)
    assert truth.asked == []  # it is complete, so nobody is asked again


@pytest.mark.parametrize("lost", [{0}, {1, 2}, {3}, {0, 1, 2, 3}])
async def test_lost_messages_of_several_events_are_fetched_as_they_were(
    observability: Observability, log: EventLog, truth: ScriptedHistories, lost: set[int]
):
    sizes = (2, 1, 3, 3)
    causes = [f"msg_{number}" for number, size in enumerate(sizes) for _ in range(size)]
    history = [event.model_copy(update={"cause": cause}) for event, cause in zip(HISTORY, causes, strict=True)]
    sent = [Event(EventRecord.together(together)) for together in messages(history)]
    await observability.store([event for number, event in enumerate(sent) if number not in lost])
    await observability.store([Event(record(1, "run.started", id=OTHER_RUN, run=OTHER_RUN))])
    truth.histories |= {RUN: history, OTHER_RUN: []}
    await observability.sweep(0)
    if len(lost) < len(sent):
        assert await stored(log) == list(range(1, 10))
    await observability.store(sent)  # late, but as they were
    assert await stored(log) == list(range(1, 10))


async def test_a_decision_that_is_fetched_still_says_who_made_it(
    observability: Observability, log: EventLog, truth: ScriptedHistories
):
    decided = record(2, "approval.decided", principal="bob", decision="approve", reason="fine")
    history = [record(1, "run.started", principal="ann"), decided, record(3, "run.completed")]
    await observability.store([Event(history[0], principal="ann"), Event(history[2], principal="bob")])
    truth.histories[RUN] = history
    await observability.sweep(0)
    found = await log.of_run("default", RUN, 0, 10)
    assert {one.event.type: one.principal for one in found}["approval.decided"] == "bob"


async def test_a_run_of_which_no_event_ever_came_is_fetched(
    observability: Observability, log: EventLog, truth: ScriptedHistories
):
    truth.births = [Begun(tenant="default", id=RUN, at=AT), Begun(tenant="default", id=OTHER_RUN, at=AT)]
    truth.histories[RUN] = HISTORY
    await observability.store(
        [Event(record(1, "run.started", id=OTHER_RUN)), Event(record(2, "run.completed", id=OTHER_RUN))]
    )
    assert await observability.sweep(0) == 0  # it looks again as soon as what may be on its way has come
    assert await stored(log) == list(range(1, 10))
    assert {name for name, _ in truth.asked} == {RUN}
    truth.asked.clear()
    assert await observability.sweep(0) is None
    assert truth.asked == []


async def test_an_event_that_is_only_late_is_not_fetched(
    observability: Observability, log: EventLog, truth: ScriptedHistories
):
    truth.births = [Begun(tenant="default", id=RUN, at=AT)]
    assert await observability.sweep(600) == 600
    await observability.store([Event(event) for event in HISTORY])
    await observability.sweep(0)
    assert truth.asked == []
    assert await stored(log) == list(range(1, 10))


async def test_all_that_began_is_asked_for_page_by_page_and_once(
    observability: Observability, log: EventLog, truth: ScriptedHistories, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("paracle_observability.rollcall.PAGE", 2)
    runs = [f"run_01JDZ7T6C4W2V9M3N5K8Q0XHR{number}" for number in range(5)]
    truth.births = [Begun(tenant="default", id=name, at=AT) for name in runs]
    truth.away = Unavailable("the orchestrator is away")
    await observability.sweep(0)
    assert truth.asked == []
    truth.away = None
    truth.histories |= {name: [record(1, "run.started", id=name), record(2, "run.failed", id=name)] for name in runs}
    await observability.sweep(0)
    assert sorted(truth.asked) == [(name, 0) for name in runs]
    assert await log.asked_until("run") == NOW - SETTLED
    truth.births = []
    await observability.sweep(0)
    assert await log.asked_until("run") == NOW - SETTLED


async def test_a_clock_that_was_ahead_leaves_nothing_out(log: EventLog, truth: ScriptedHistories):
    clock = [NOW + timedelta(hours=1)]
    rolls = RollCall(log, {"run": truth}, lambda: clock[0])
    assert await rolls.round(0) == 0
    clock[0] = NOW
    truth.births = [Begun(tenant="default", id=RUN, at=NOW - timedelta(seconds=5))]
    assert await rolls.round(0) == 1
    assert await rolls.round(0) == 0


async def test_a_whole_run_is_left_alone(observability: Observability, truth: ScriptedHistories):
    await observability.store([Event(event) for event in HISTORY])
    await observability.sweep(0)
    assert truth.asked == []


async def test_a_fetched_event_that_arrives_later_changes_nothing(
    observability: Observability, log: EventLog, truth: ScriptedHistories
):
    await observability.store([Event(HISTORY[0])])
    truth.histories[RUN] = HISTORY
    await observability.sweep(0)
    await observability.store([Event(event) for event in HISTORY])
    assert await stored(log) == list(range(1, 10))


async def test_an_orchestrator_that_is_away_is_asked_again(
    observability: Observability, log: EventLog, truth: ScriptedHistories
):
    await observability.store([Event(event) for event in HISTORY[:3]])
    truth.histories[RUN] = Unavailable("away")
    await observability.sweep(0)
    assert await stored(log) == [1, 2, 3]
    truth.histories[RUN] = HISTORY
    await observability.sweep(0)
    assert await stored(log) == list(range(1, 10))


async def test_what_its_owner_does_not_know_is_lost_and_not_asked_for_again(
    observability: Observability, log: EventLog, truth: ScriptedHistories, caplog
):
    await observability.store([Event(record(1)), Event(record(3)), Event(record(1, id=OTHER_RUN, run=OTHER_RUN))])
    truth.histories[OTHER_RUN] = [record(1, id=OTHER_RUN)]
    for _ in range(3):
        await observability.sweep(0)
    assert caplog.text.count("what is missing of a history is lost") == 1
    assert truth.asked.count((RUN, 1)) == 1
    assert await log.gaps() == Gaps(missing=0, histories=0, lost=1)
    assert (await observability.get_audit(GetAudit(run_id=RUN), CALL)).incomplete
    assert not (await observability.get_audit(GetAudit(run_id=OTHER_RUN), CALL)).incomplete


async def test_something_lost_of_which_something_comes_after_all_is_looked_into_again(
    observability: Observability, log: EventLog, truth: ScriptedHistories
):
    await observability.store([Event(HISTORY[0])])
    await observability.sweep(0)
    assert (await log.gaps()).lost == 1
    truth.histories[RUN] = HISTORY
    await observability.store([Event(HISTORY[3])])
    await observability.sweep(0)
    assert await stored(log) == list(range(1, 10))
    assert not (await observability.get_audit(GetAudit(run_id=RUN), CALL)).incomplete


async def test_a_history_of_which_nothing_came_and_that_its_owner_forgot_is_none(
    observability: Observability, log: EventLog, truth: ScriptedHistories
):
    await log.expect("run", [Begun(tenant="default", id=RUN, at=datetime.now(UTC))], 0)
    for _ in range(2):
        await observability.sweep(0)
    assert (truth.asked, await log.gaps()) == ([(RUN, 0)], Gaps(missing=0, histories=0, lost=0))


@pytest.mark.parametrize("lost", [{1}, {4}, {2, 3}, {2, 3, 4}])
async def test_lost_events_of_a_task_are_fetched_and_what_they_used_is_counted(
    observability: Observability, log: EventLog, truth: ScriptedHistories, lost: set[int]
):
    task = [record(1, "task.accepted", entity="task", id=TASK), replied(2), tool_returned(3)]
    task.append(record(4, "task.completed", entity="task", id=TASK))
    await observability.store([Event(event) for event in task if event.seq not in lost])
    truth.histories[TASK] = task
    await observability.sweep(0)
    assert sorted(item.event.seq for item in await log.of_entity("default", "task", TASK, 0, 10)) == [1, 2, 3, 4]
    total = (await observability.get_usage(GetUsage(run_id=RUN), CALL)).total
    assert (total.model_calls, total.tool_calls) == (1, 1)
    truth.asked.clear()
    await observability.sweep(0)
    assert truth.asked == []


async def test_a_gap_that_nobody_can_fill_is_lost(
    observability: Observability, log: EventLog, truth: ScriptedHistories, caplog
):
    revised = [record(seq, "agent.revised", entity="agent", id="triager", run=None) for seq in (1, 3)]
    await observability.store([Event(event) for event in revised])
    for _ in range(2):
        await observability.sweep(0)
    assert caplog.text.count("what is missing of a history is lost") == 1
    assert await log.gaps() == Gaps(missing=0, histories=0, lost=1)
    assert truth.asked == []
    asked = GetAudit(entity="agent", id="triager")
    assert (await observability.get_audit(asked, CALL)).incomplete


async def test_all_suspects_are_looked_into_however_many(
    observability: Observability, log: EventLog, truth: ScriptedHistories
):
    """Runs that wait for long are suspects too; they must not keep the sweeper from one that misses something."""
    names = [f"{RUN[:-3]}{number:03}" for number in range(SUSPECTS + 20)]
    await observability.store([Event(record(1, "run.started", id=name, run=name)) for name in names])
    for name in names:
        truth.histories[name] = [record(1, "run.started", id=name), record(2, "run.completed", id=name)]
    await observability.sweep(0)
    assert {name for name, _ in truth.asked} == set(names)
