"""Schedules: every replica looks at the clock, and what is due is decided by one of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, tzinfo
from typing import Final

from paracle_domain.envelope import rfc3339
from paracle_domain.errors import ParacleError
from paracle_domain.expressions import evaluate
from paracle_domain.ids import id_from_key
from paracle_domain.run.commands import StartRun
from paracle_domain.run.nodes import fitting
from paracle_domain.trigger.commands import Cause, FireStatus
from paracle_domain.trigger.schedule import Fire, look
from paracle_domain.trigger.scope import Scope, schedule_scope
from paracle_domain.trigger.validation import LABEL
from paracle_orchestrator.ports import Clock
from paracle_orchestrator.triggers.learning import calendar_of, jitter_key
from paracle_orchestrator.triggers.ports import Decided, Start, Trigger, TriggerStore
from paracle_orchestrator.triggers.starter import moment_ms

LOOK_EVERY_S: Final = 1.0
LIMIT: Final = 20
_FINEST_S: Final = 0.02


class Schedules:
    """Decides what is due. `round` is for a `Background`.

    What was decided is started beside, at `decided`: a start may wait for long, and others' times must not be missed
    for it.
    """

    def __init__(self, store: TriggerStore, clock: Clock, decided: Callable[[], None]) -> None:
        self._store = store
        self._clock = clock
        self._decided = decided

    async def round(self) -> float:
        """Decide what is due now; the seconds until the next look."""
        now = self._clock()

        def decide_now(trigger: Trigger, under_way: Sequence[str]) -> Decided:
            return decide(trigger, under_way, now)

        while number := await self._store.decide_due(now, LIMIT, decide_now):
            self._decided()
            if number < LIMIT:
                break
        return self._pause(await self._store.soonest())

    def _pause(self, soonest: datetime | None) -> float:
        if soonest is None:
            return LOOK_EVERY_S
        return min(LOOK_EVERY_S, max(_FINEST_S, (soonest - self._clock()).total_seconds()))


def decide(trigger: Trigger, under_way: Sequence[str], now: datetime) -> Decided:
    """What is to be done about a trigger that is due. Pure; `under_way` are runs of it that have not ended."""
    calendar, problem = calendar_of(trigger)
    schedule = trigger.spec.schedule
    if calendar is None or schedule is None:
        return Decided(replace(trigger, due_at=None, problem=problem))
    found = look(schedule, calendar, jitter_key(trigger), trigger.cursor, now, busy=bool(under_way))
    starts: list[Start] = []
    running = list(under_way)
    for fire in found.fires:
        start = _start(trigger, fire, calendar.zone, now)
        if start.status is FireStatus.PENDING:
            starts.append(replace(start, cancels=tuple(running) if fire.cancels else ()))
            running = [start.run_id] if fire.cancels else [*running, start.run_id]
        else:
            starts.append(start)
    counts = trigger.counts.model_copy(
        update={
            "skipped": trigger.counts.skipped + found.skipped,
            "dropped": trigger.counts.dropped + found.dropped,
            "failed": trigger.counts.failed + sum(start.status is FireStatus.FAILED for start in starts),
        }
    )
    return Decided(replace(trigger, cursor=found.cursor, due_at=found.due_at, counts=counts), tuple(starts))


def _start(trigger: Trigger, fire: Fire, zone: tzinfo, now: datetime) -> Start:
    run_id = id_from_key("run", f"{_origin(trigger)}\x1f{rfc3339(fire.at)}", moment_ms(fire.at))
    scope = schedule_scope(trigger.name, fire.at, zone)
    return start_of(trigger, run_id, scope, Cause.SCHEDULE, now, fire.at)


def _origin(trigger: Trigger) -> str:
    """What keeps ids of its runs from being those of others."""
    return f"{trigger.tenant}\x1ftrigger\x1f{trigger.name}"


def start_of(
    trigger: Trigger, run_id: str, scope: Scope, cause: Cause, now: datetime, scheduled_at: datetime | None = None
) -> Start:
    """A start with the input that `scope` gives; one that cannot be computed has failed already."""
    spec = trigger.spec
    try:
        command = StartRun(
            workflow=spec.workflow,
            revision=spec.revision,
            input=fitting(evaluate(spec.input, scope)),
            run_id=run_id,
            labels={**spec.labels, LABEL: trigger.name},
        )
    except ParacleError as error:
        error.path = f"spec.input.{error.path}" if error.path else "spec.input"
        return Start(
            run_id,
            trigger.tenant,
            trigger.name,
            cause,
            now,
            None,
            scheduled_at,
            status=FireStatus.FAILED,
            error=error.to_info(),
        )
    return Start(run_id, trigger.tenant, trigger.name, cause, now, command, scheduled_at)
