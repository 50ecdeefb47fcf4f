"""The view of a run, without drawing."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paracle_client.live import StepLine, View, begin, fold, ordered
from paracle_domain.dead_letters import dead_letter_id
from paracle_domain.machine import EventRecord
from paracle_domain.machine import fold as fold_all
from paracle_domain.run.commands import RunStatus, StepStatus


def test_a_view_begins_with_the_steps_in_the_order_of_their_needs(make: Any) -> None:
    view = begin(make.view())
    assert [(step.id, step.depth) for step in view.steps.values()] == [("sort", 0), ("report", 1)]
    assert view.status is RunStatus.QUEUED


def test_a_whole_run(make: Any) -> None:
    view = fold_all(fold, begin(make.view()), make.whole_run())
    assert view.status is RunStatus.COMPLETED
    assert view.output == {"title": "All well", "count": 2}
    assert view.counts() == {StepStatus.COMPLETED: 2}
    assert (view.usage.total_tokens, view.usage.cost_usd) == (1_234, Decimal("0.0012"))
    assert view.duration_s(make.START) == 5
    assert view.steps["sort"].duration_s(make.START) == 1


def test_attempts_add_their_usage_and_the_clock_goes_on(make: Any) -> None:
    used = {"input_tokens": 10}
    error = {"code": "provider_unavailable", "message": "busy"}
    begun = {"step": "a", "target_kind": "agent", "target": "x", "task_id": "t"}
    view = fold_all(
        fold,
        View(make.RUN),
        [
            make.record(1, "step.started", attempt=1, **begun),
            make.record(
                2, "step.retrying", step="a", attempt=1, error=error, due_at=make.START.isoformat(), usage=used
            ),
        ],
    )
    assert (view.steps["a"].status, view.steps["a"].error) == (StepStatus.WAITING, view.steps["a"].error)
    assert view.steps["a"].error is not None
    view = fold(view, make.record(8, "step.started", attempt=2, **begun))
    assert (view.steps["a"].attempt, view.steps["a"].error) == (2, None)
    view = fold(view, make.record(9, "step.failed", step="a", attempt=2, error=error, usage=used))
    assert (view.steps["a"].status, view.steps["a"].usage.input_tokens) == (StepStatus.FAILED, 20)
    assert view.steps["a"].duration_s(make.START) == 8


@pytest.mark.parametrize(
    ("kind", "data", "status"),
    [
        ("run.cancelling", {"principal": "me", "reason": "stop"}, RunStatus.CANCELLING),
        ("run.cancelled", {"reason": "stop"}, RunStatus.CANCELLED),
        ("run.degraded", {"failed_steps": ["a"]}, RunStatus.DEGRADED),
        ("run.failed", {"error": {"code": "x", "message": "y"}}, RunStatus.FAILED),
        ("run.timed_out", {"error": {"code": "x", "message": "y"}}, RunStatus.TIMED_OUT),
    ],
)
def test_how_a_run_may_end(make: Any, kind: str, data: dict[str, Any], status: RunStatus) -> None:
    view = fold(View(make.RUN), make.record(1, kind, **data))
    assert view.status is status
    assert view.error is not None or view.note


@pytest.mark.parametrize(
    ("kind", "data", "status"),
    [
        ("step.skipped", {}, StepStatus.SKIPPED),
        ("step.cancelled", {"attempt": 1}, StepStatus.CANCELLED),
        ("step.timed_out", {"attempt": 1, "error": {"code": "x", "message": "y"}}, StepStatus.TIMED_OUT),
    ],
)
def test_how_a_step_may_end(make: Any, kind: str, data: dict[str, Any], status: StepStatus) -> None:
    assert fold(View(make.RUN), make.record(1, kind, step="a", **data)).steps["a"].status is status


@pytest.mark.parametrize(
    ("kind", "data", "status", "says"),
    [
        ("step.waiting", {"signal": "paid"}, StepStatus.WAITING, "for signal paid"),
        ("step.waiting", {"until": "2026-03-01T12:00:00Z"}, StepStatus.WAITING, "until "),
        ("step.waiting", {"until": "2031-03-15T12:00:00Z"}, StepStatus.WAITING, "until 2031-03-1"),
        (
            "approval.asked",
            {"approval_id": "apr_1", "ask": "Pay?", "digest": "d"},
            StepStatus.WAITING,
            "Pay? (paracle approvals show apr_1)",
        ),
        (
            "approval.decided",
            {"approval_id": "apr_1", "principal": "bob", "decision": "reject", "reason": "no"},
            StepStatus.PENDING,
            "reject by bob: no",
        ),
        ("approval.escalated", {"approval_id": "apr_1"}, StepStatus.PENDING, "others are asked (apr_1)"),
        ("step.kept", {"status": "completed"}, StepStatus.COMPLETED, "kept"),
        ("step.emitted", {"number": 1, "event": "told"}, StepStatus.PENDING, ""),
        (
            "step.failing",
            {"outcome": "failed", "error": {"code": "x", "message": "y"}},
            StepStatus.PENDING,
            "",
        ),
    ],
)
def test_what_a_step_waits_for(make: Any, kind: str, data: dict[str, Any], status: StepStatus, says: str) -> None:
    view = fold(View(make.RUN), make.record(1, kind, step="a", **data))
    assert view.steps["a"].status is status
    assert says in view.steps["a"].detail
    ended = fold(view, make.record(2, "step.completed", step="a", attempt=0))
    assert ended.steps["a"].detail == ""


def test_items_of_a_map_are_counted_on_its_line(make: Any) -> None:
    item = {"step": "each[0]", "target_kind": "tool", "target": "t", "task_id": "x", "attempt": 1}
    error = {"code": "x", "message": "y"}
    view = fold_all(
        fold,
        View(make.RUN),
        [
            make.record(1, "step.opened", step="each", kind="map", count=3),
            make.record(2, "step.started", **item),
            make.record(3, "step.retrying", step="each[0]", attempt=1, error=error, due_at=make.START.isoformat()),
            make.record(4, "step.completed", step="each[0]", attempt=2, usage={"input_tokens": 5}),
            make.record(5, "step.failed", step="each[1]", attempt=1, error=error, tolerated=True),
        ],
    )
    assert list(view.steps) == ["each"]
    each = view.steps["each"]
    assert (each.status, each.parts_ended, each.parts_total) == (StepStatus.RUNNING, 2, 3)
    assert each.usage.input_tokens == 5


def test_a_run_queues_is_paused_and_goes_on(make: Any) -> None:
    given = {"run_id": make.RUN, "tenant": "t", "principal": "me", "workflow": "w", "revision": 1, "plan": "p"}
    view = fold(View(make.RUN), make.record(1, "run.started", queued=True, **given))
    assert view.status is RunStatus.QUEUED
    view = fold(view, make.record(2, "run.admitted"))
    assert view.status is RunStatus.RUNNING
    view = fold(view, make.record(3, "run.paused", principal="me", reason="audit"))
    assert (view.status, view.note) == (RunStatus.PAUSED, "audit")
    view = fold(view, make.record(4, "run.resumed", principal="me"))
    assert (view.status, view.note) == (RunStatus.RUNNING, "")
    assert fold(view, make.record(5, "run.compensating", steps=["b", "a"])).note == "undoing b, a"


def test_a_run_that_is_paused_while_it_queues(make: Any) -> None:
    """Resumed, it queues as before; admitted meanwhile, it is paused still."""
    given = {"run_id": make.RUN, "tenant": "t", "principal": "me", "workflow": "w", "revision": 1, "plan": "p"}
    begun = make.record(1, "run.started", queued=True, **given)
    paused = fold_all(fold, View(make.RUN), [begun, make.record(2, "run.paused", principal="me", reason="audit")])
    assert fold(paused, make.record(3, "run.resumed", principal="me")).status is RunStatus.QUEUED
    admitted = fold(paused, make.record(3, "run.admitted"))
    assert (admitted.status, admitted.note) == (RunStatus.PAUSED, "audit")
    assert fold(admitted, make.record(4, "run.resumed", principal="me")).status is RunStatus.RUNNING


def test_an_event_of_a_newer_paracle_counts_as_seen_and_changes_nothing_else(make: Any) -> None:
    view = fold(View(make.RUN), make.record(1, "run.teleported", to="mars"))
    assert view == View(make.RUN, last_seq=1)


def test_a_repeated_event_changes_nothing(make: Any) -> None:
    view = View(make.RUN)
    for one in make.whole_run():
        view = fold(view, one)
        assert fold(view, one) == view


@given(st.lists(st.lists(st.integers(0, 11), max_size=4), min_size=1, max_size=12))
def test_every_step_comes_after_what_it_needs(needs: list[list[int]]) -> None:
    steps = [
        StepLine(f"s{at}", needs=tuple(f"s{need}" for need in some if need > at and need < len(needs)))
        for at, some in enumerate(needs)
    ]
    result = ordered(steps)
    place = {step.id: at for at, step in enumerate(result)}
    assert sorted(place) == sorted(step.id for step in steps)
    for step in result:
        assert all(place[need] < place[step.id] for need in step.needs)
        depths = [other.depth for other in result if other.id in step.needs]
        assert step.depth == (1 + max(depths) if depths else 0)


def test_a_cycle_is_shown_rather_than_looped_over() -> None:
    assert {step.id for step in ordered([StepLine("a", needs=("b",)), StepLine("b", needs=("a",))])} == {"a", "b"}


def test_a_running_step_grows_with_the_clock(make: Any) -> None:
    view = fold_all(fold, View(make.RUN), make.whole_run()[:2])
    assert view.steps["sort"].duration_s(make.START + timedelta(seconds=62)) == 60
    assert StepLine("x").duration_s(make.START) is None


def test_being_stuck_is_noted_and_forgotten(make: Any) -> None:
    letter = dead_letter_id("x")
    stuck, free = (
        EventRecord(entity="stuck", id=letter, seq=seq, type=kind, at=make.START)
        for seq, kind in ((1, "run.stuck"), (2, "run.unstuck"))
    )
    before = fold(View(make.RUN), make.run_started())
    noted = fold(before, stuck)
    assert noted.note == f"stuck: paracle dlq show {letter}"
    assert fold(noted, free) == before
