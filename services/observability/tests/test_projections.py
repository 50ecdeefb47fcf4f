"""What is read of events: bytes in, rows out."""

from contextlib import suppress
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from observability_samples import RUN, TASK, Event, record, replied, tool_returned

from paracle_domain import subjects
from paracle_domain.errors import MalformedMessage
from paracle_domain.inference.usage import NOTHING, Usage
from paracle_domain.machine import EventRecord
from paracle_domain.task.events import CompactionFailed, ModelReplied, TaskCompacted
from paracle_observability.projections import EventRow, UsageRow, _Reply, messages, spending, usage_report


def read(event: Event) -> EventRow:
    return EventRow.read(event.subject, "alice", event.body)


def test_an_event_is_kept_as_it_was_published():
    event = Event(record(3, output={"text": "grüße \u0000"}), tenant="acme")
    row = read(event)
    assert row.key == ("acme", "run", RUN, 3)
    assert row.body.encode() == event.body
    assert (row.run_id, row.principal) == (RUN, "alice")


def test_a_fetched_event_gets_the_row_that_a_received_one_has():
    told = [record(3), record(4), record(5, "run.completed")]
    assert EventRow.of("default", told[:1], "alice") == read(Event(told[0]))
    row = EventRow.of("default", told, "alice")
    assert row == read(Event(EventRecord.together(told)))
    assert (row.first_seq, row.seq, row.events, row.type) == (3, 5, 3, "run.completed")


def test_an_event_as_its_stream_keeps_it_gets_the_same_row():
    event = Event(record(3), tenant="acme")
    assert read(Event(record(3), subject=subjects.kept_as(event.subject))) == read(event)


def test_events_are_together_again_as_they_were_decided():
    causes = ["start", "start", "result", None, None, "result"]
    told = [record(seq).model_copy(update={"cause": cause}) for seq, cause in enumerate(causes, 1)]
    assert [[one.seq for one in found] for found in messages(told)] == [[1, 2], [3], [4], [5], [6]]
    assert messages([]) == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        b'{"entity":"run"}',
        record(0).encode(),
        record(2**63).encode(),
        EventRecord.together([record(1), record(3)]).encode(),
        EventRecord.together([record(0), record(1)]).encode(),
        record(1, "a\x00b").encode(),
    ],
)
def test_what_is_no_event_is_refused(body: bytes):
    with pytest.raises(MalformedMessage):
        read(Event(record(1), body=body))


def test_an_event_on_the_subject_of_another_entity_is_refused():
    with pytest.raises(MalformedMessage, match="was published on"):
        read(Event(record(1), subject=f"paracle.v1.default.evt.run.{TASK}.step_completed"))


def test_a_run_id_is_that_of_the_run_or_of_what_it_caused():
    assert read(Event(record(1, run=None))).run_id == RUN
    assert read(Event(tool_returned(1))).run_id == RUN
    assert read(Event(record(1, entity="agent", id="triage", run=None))).run_id is None


def test_only_model_and_tool_calls_of_tasks_are_spending():
    together = EventRecord.together([replied(3, model="big"), tool_returned(4), record(5, entity="task", id=TASK)])
    other = record(2, "task.model_replied")
    rows = [read(Event(told)) for told in (record(1), replied(1), tool_returned(2), together, other)]
    spent, unread = spending(rows)
    assert [(item.row, item.seq, item.model, item.usage.tool_calls) for item in spent] == [
        (1, 1, "small", 0),
        (2, 2, "", 1),
        (5, 3, "big", 0),
        (5, 4, "", 1),
    ]
    assert unread == []


def test_summaries_are_spending_too_and_so_are_those_that_came_to_nothing():
    usage = {"input_tokens": 7, "model_calls": 1}
    call = {"usage": usage, "provider": "openai", "model": "small", "agent": "a", "step": "s"}
    told = [
        record(1, "task.compacted", entity="task", id=TASK, **call),
        record(2, "task.compaction_failed", entity="task", id=TASK, **call),
        record(3, "task.compaction_failed", entity="task", id=TASK, error={"code": "x", "message": "y"}),
    ]
    spent, unread = spending([read(Event(one)) for one in told])
    assert [(item.seq, item.model, item.usage.input_tokens, item.agent) for item in spent] == [
        (1, "small", 7, "a"),
        (2, "small", 7, "a"),
    ]
    assert unread == []


def test_a_reply_from_the_cache_is_no_call():
    call = {"provider": "openai", "model": "small", "agent": "a", "step": "s"}
    used = Usage(input_tokens=7, model_calls=1)
    told = [
        record(1, "task.model_replied", entity="task", id=TASK, usage=used.model_dump(mode="json"), **call),
        record(2, "task.model_replied", entity="task", id=TASK, usage=NOTHING.model_dump(mode="json"), **call),
    ]
    spent, _ = spending([read(Event(one)) for one in told])
    assert [item.usage.model_calls for item in spent] == [1, 0]


def test_an_unreadable_model_reply_is_pointed_out():
    broken = record(1, "task.model_replied", entity="task", id=TASK, provider="openai")
    spent, unread = spending([read(Event(broken))])
    assert spent == []
    assert [row.seq for row, _ in unread] == [1]


def test_the_contract_has_what_is_counted():
    for kind in (ModelReplied, TaskCompacted, CompactionFailed):
        assert set(_Reply.model_fields) <= set(kind.model_fields)


def row(task: str, model: str, cost: str, unpriced: int = 0) -> UsageRow:
    usage = Usage(input_tokens=10, model_calls=1 + unpriced, cost_usd=Decimal(cost))
    return UsageRow(task, "openai", model, f"agent-{task}", f"step-{task}", usage, unpriced)


def test_a_report_sums_by_model_agent_and_step():
    tools = UsageRow("a", "", "", None, None, Usage(tool_calls=3), 0)
    report = usage_report(RUN, [row("a", "big", "1"), row("a", "small", "0.1"), row("b", "small", "0.2"), tools])
    assert report.total == Usage(input_tokens=30, model_calls=3, tool_calls=3, cost_usd=Decimal("1.3"))
    assert [(item.model, item.usage.cost_usd) for item in report.by_model] == [
        ("big", Decimal(1)),
        ("small", Decimal("0.3")),
    ]
    assert [(item.name, item.usage.cost_usd, item.usage.tool_calls) for item in report.by_agent] == [
        ("agent-a", Decimal("1.1"), 3),
        ("agent-b", Decimal("0.2"), 0),
    ]
    assert [item.name for item in report.by_step] == ["step-a", "step-b"]


def test_an_unknown_price_makes_unknown_exactly_the_sums_that_it_is_part_of():
    report = usage_report(RUN, [row("a", "private", "0.5", unpriced=2), row("b", "small", "0.2")])
    assert report.total.cost_usd is None
    assert (report.known_cost_usd, report.unpriced_calls) == (Decimal("0.7"), 2)
    assert [item.usage.cost_usd for item in report.by_model] == [None, Decimal("0.2")]
    assert [item.usage.cost_usd for item in report.by_agent] == [None, Decimal("0.2")]


@given(st.binary(max_size=300))
def test_whatever_bytes_come_they_are_an_event_or_refused(body: bytes):
    with suppress(MalformedMessage):
        assert read(Event(record(1), body=body)).body.encode() == body
