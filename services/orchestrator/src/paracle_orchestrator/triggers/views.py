"""Triggers as queries show them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from paracle_domain.trigger.commands import TriggerRun, TriggerSummary, TriggerView
from paracle_orchestrator.triggers.learning import calendar_of
from paracle_orchestrator.triggers.ports import Trigger

LAST_RUNS: Final = 10
_NEXT_FIRES: Final = 5


def summary_of(trigger: Trigger, now: datetime) -> TriggerSummary:
    """A trigger as lists show it."""
    upcoming = _upcoming(trigger, now, 1)
    return TriggerSummary(
        name=trigger.name,
        revision=trigger.revision,
        workflow=trigger.spec.workflow,
        on=_on(trigger),
        paused=trigger.paused,
        next_at=upcoming[0] if upcoming else None,
        last_at=trigger.last_at,
        counts=trigger.counts,
        problem=trigger.problem,
    )


def view_of(trigger: Trigger, last: Sequence[TriggerRun], now: datetime) -> TriggerView:
    """A trigger, whole."""
    return TriggerView(
        trigger=summary_of(trigger, now),
        spec=trigger.spec.model_dump(mode="json", exclude_unset=True),
        next_fires=_upcoming(trigger, now, _NEXT_FIRES),
        last_runs=tuple(last),
        paused_by=trigger.paused_by,
        paused_at=trigger.paused_at,
        paused_reason=trigger.paused_reason,
    )


def _on(trigger: Trigger) -> str:
    if trigger.spec.schedule is not None:
        return f"{trigger.spec.schedule.cron} ({trigger.spec.schedule.timezone})"
    assert trigger.spec.subject is not None
    return trigger.spec.subject.topic


def _upcoming(trigger: Trigger, now: datetime, count: int) -> tuple[datetime, ...]:
    """Its next times, jitter left aside; none while it is paused."""
    calendar, _ = calendar_of(trigger)
    return () if calendar is None or trigger.paused else calendar.upcoming(max(now, trigger.cursor), count)
