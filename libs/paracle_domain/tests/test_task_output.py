"""What a follower of a task is told: each piece once, and where something is missing."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from paracle_domain.errors import RateLimited
from paracle_domain.inference.deltas import Delta, TextDelta
from paracle_domain.inference.retrying import Retried, Retrying
from paracle_domain.task.output import BudgetProgress, Listening, SummaryProgress, TaskOutput, ToolProgress


def delta(number, attempt=1, call="call_a"):
    return Delta(call_id=call, attempt=attempt, seq=number, change=TextDelta(text=str(number)))


def told(listening, *said):
    return [one for seq, each in enumerate(said, start=listening.after + 1) for one in listening.take(seq, each)]


def test_each_piece_is_told_once():
    found = told(Listening(), delta(0), delta(1), delta(1), delta(0), delta(2))
    assert [(one.seq, one.delta.seq, one.gap) for one in found] == [(1, 0, False), (2, 1, False), (5, 2, False)]


def test_calls_and_attempts_are_counted_apart():
    found = told(Listening(), delta(0), delta(0, attempt=2), delta(0, call="call_b"), delta(1, attempt=2))
    assert [one.gap for one in found] == [False] * 4


def test_progress_of_tools_goes_through():
    progress = ToolProgress(call_id="call_a", tool="search", stage="ended", duration_s=1.5)
    listening = Listening()
    assert told(listening, progress) == [TaskOutput(seq=1, tool=progress)]
    assert (listening.after, progress.message_id) == (1, "call_a.ended")


def test_summaries_are_told_too():
    summary = SummaryProgress(call_id="call_a", stage="started")
    assert told(Listening(), summary) == [TaskOutput(seq=1, summary=summary)]
    assert summary.message_id == "call_a.started"


def test_budgets_that_wait_for_people_are_told_too():
    budget = BudgetProgress(approval_id="apr_1", budget="team", stage="held")
    assert told(Listening(), budget) == [TaskOutput(seq=1, budget=budget)]
    assert budget.message_id == "apr_1.held"


def test_that_a_model_call_is_tried_again_is_told_too():
    at = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
    retrying = Retrying(call_id="call_a", error=RateLimited("busy", retry_after_s=9).to_info(), tried=1, at=at)
    assert told(Listening(), retrying) == [TaskOutput(seq=1, retrying=retrying)]
    assert retrying.message_id == "call_a.retrying.2030-01-02T03:04:05+00:00"
    theirs = retrying.model_copy(update={"agent": "helper"})
    assert theirs.message_id == "call_a.retrying.2030-01-02T03:04:05+00:00.helper"
    ended = Retried(call_id="call_a", agent="helper")
    assert told(Listening(), theirs, ended) == [TaskOutput(seq=1, retrying=theirs), TaskOutput(seq=2, retried=ended)]
    assert ended.message_id == "call_a.retried"


def test_who_comes_back_hears_of_a_gap_only_where_there_is_one():
    listening = Listening()
    listening.recall(7, delta(3))
    assert [one.gap for one in told(listening, delta(4))] == [False]
    late = Listening()
    late.recall(7, ToolProgress(call_id="call_a", tool="search", stage="started"))
    assert [(one.seq, one.gap) for one in told(late, delta(4))] == [(8, True)]


@given(st.sets(st.integers(0, 30)))
def test_what_is_missing_is_marked_exactly_where_it_is_missing(kept):
    numbers = sorted(kept)
    found = told(Listening(), *map(delta, numbers))
    assert [one.delta.seq for one in found] == numbers
    missing = [number for number, before in zip(numbers, [-1, *numbers], strict=False) if number != before + 1]
    assert [one.delta.seq for one in found if one.gap] == missing
