"""What a trigger becomes when its manifest, its pause or the clock changes. Pure."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from typing import Final

from paracle_domain.errors import InvalidInput
from paracle_domain.registry import TriggerChange
from paracle_domain.trigger.schedule import Calendar, first_look
from paracle_domain.trigger.spec import ScheduleSpec, TriggerSpec
from paracle_orchestrator.triggers.ports import Trigger

_TIMES: Final = ("cron", "timezone", "start_at", "end_at")


def learn(known: Trigger | None, change: TriggerChange, tenant: str) -> Trigger | None:
    """The trigger after `change`; none if there is nothing to learn.

    A schedule counts from when its manifest was applied; one that changed is not made up for by its old times.
    """
    if known is not None and known.revision >= change.revision:
        return None
    if change.spec is None:
        return None if known is None else replace(known, revision=change.revision, deleted=True, due_at=None)
    spec = TriggerSpec.model_validate_json(json.dumps(change.spec), strict=True)
    if known is None or known.deleted:
        obeyed = () if known is None else known.commands  # its events are numbered on
        fresh = Trigger(tenant, change.name, change.revision, spec, cursor=change.at, commands=obeyed)
        return aimed(_paused_by_manifest(fresh, change, paused=spec.paused))
    changed = replace(known, revision=change.revision, spec=spec)
    if _times(known.spec.schedule) != _times(spec.schedule):
        changed = replace(changed, cursor=max(known.cursor, change.at))
    if known.spec.paused != spec.paused or "paused" in spec.model_fields_set:
        changed = _paused_by_manifest(changed, change, paused=spec.paused)
    return aimed(changed)


def _times(schedule: ScheduleSpec | None) -> tuple[object, ...]:
    return () if schedule is None else tuple(getattr(schedule, name) for name in _TIMES)


def _paused_by_manifest(trigger: Trigger, change: TriggerChange, *, paused: bool) -> Trigger:
    if paused == trigger.paused:
        return trigger
    if not paused:
        return resumed(trigger, change.at)
    return paused_by(trigger, change.author, change.at, "its manifest says so")


def paused_by(trigger: Trigger, who: str, at: datetime, reason: str | None) -> Trigger:
    """It starts nothing from now on."""
    return aimed(replace(trigger, paused=True, paused_by=who, paused_at=at, paused_reason=reason))


def resumed(trigger: Trigger, at: datetime) -> Trigger:
    """It goes on; what it missed while it was paused stays missed."""
    on = replace(trigger, paused=False, paused_by=None, paused_at=None, paused_reason=None)
    return aimed(replace(on, cursor=max(trigger.cursor, at)))


def aimed(trigger: Trigger) -> Trigger:
    """It, with the time at which the clock is to be looked at."""
    calendar, problem = calendar_of(trigger)
    schedule = trigger.spec.schedule
    due_at = None
    if calendar is not None and schedule is not None and not trigger.paused and not trigger.deleted:
        due_at = first_look(schedule, calendar, jitter_key(trigger), trigger.cursor)
    return replace(trigger, due_at=due_at, problem=problem)


def calendar_of(trigger: Trigger) -> tuple[Calendar | None, str | None]:
    """The times of its schedule; or why they cannot be told here, where a time zone may be missing."""
    if trigger.spec.schedule is None:
        return None, None
    try:
        return Calendar.of(trigger.spec.schedule), None
    except InvalidInput as error:
        return None, error.message


def jitter_key(trigger: Trigger) -> str:
    """What tells its jitter from that of others."""
    return f"{trigger.tenant}/{trigger.name}"
