"""When a run does what it does again, or at last: retries, repeated tasks and orders to stop, wake-ups. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Final, assert_never

from paracle_domain.errors import ErrorInfo
from paracle_domain.run.commands import StepStatus
from paracle_domain.run.events import (
    ApprovalAsked,
    RunAdmitted,
    RunCancelling,
    RunEvent,
    RunFailing,
    RunStarted,
    StepCompleted,
    StepFailing,
    StepOpened,
    StepRetrying,
    StepStarted,
    StepWaiting,
)
from paracle_domain.run.state import Asked, Ending, Parts, RunState, StepState, Waiting
from paracle_domain.workflow.spec import Backoff, RetrySpec

REDISPATCH: Final = timedelta(seconds=15)
LONGEST_SILENCE: Final = timedelta(minutes=10)
TOGETHER: Final = timedelta(seconds=10)
"""Least time between two looks for what is silent: each says all of that again, which may be thousands of items."""
STOP_AGAIN: Final = timedelta(seconds=2)
STOP_GRACE: Final = timedelta(seconds=10)


def retryable(retry: RetrySpec, error: ErrorInfo, attempt: int) -> bool:
    """Whether `retry` allows another attempt after number `attempt` failed with `error`."""
    if attempt >= retry.max_attempts or error.code in retry.never_on:
        return False
    return error.code in retry.on if retry.on else error.retryable


def retry_delay(retry: RetrySpec, attempt: int, key: str, error: ErrorInfo) -> timedelta:
    """How long to wait after failed attempt number `attempt`.

    The jitter is drawn from a hash of `key` and `attempt`, not from a generator, so that a replay waits as long. What
    the failed side asked for (`retry_after_s`) is the least.
    """
    match retry.backoff:
        case Backoff.CONSTANT:
            wait = retry.initial_s
        case Backoff.LINEAR:
            wait = retry.initial_s * attempt
        case Backoff.EXPONENTIAL:
            wait = retry.initial_s * 2.0 ** min(attempt - 1, 62)
        case _ as unreachable:
            assert_never(unreachable)
    drawn = int.from_bytes(hashlib.blake2b(f"{key}.{attempt}".encode(), digest_size=4).digest(), "big") / 0xFFFFFFFF
    wait = min(wait, retry.max_s) * (1 + retry.jitter * (2 * drawn - 1))
    return timedelta(seconds=max(wait, error.retry_after_s or 0))


def next_wake(state: RunState, now: datetime) -> datetime | None:
    """When a run that has not ended wants its next `Tick`: a full look at everything that is open."""
    if state.ending is not None:
        return _next_press(state.ending, now) if state.table.open else _undo_wake(state, now)
    held = state.aside.paused
    wakes = [state.deadline_at]
    for _, step in state.table.open_entries():
        wakes.extend(_wakes(step, now, held=held))
    return soonest(wakes)


def _wakes(step: StepState, now: datetime, *, held: bool) -> Iterator[datetime | None]:
    """When an open step wants to be looked at; `held`: next attempts wait until the run is resumed."""
    match step.detail:
        case Parts(ending=None) as parts:
            yield step.deadline_at
            for _, part in parts.items.open_entries():
                yield from _wakes_of_work(part, now, held=held)
        case Parts(ending=ending):
            assert ending is not None
            yield _next_press(ending, now)
        case Waiting(until=until):
            yield until
            yield step.deadline_at
        case Asked() as approval:
            yield approval.expires_at
            yield step.deadline_at
            yield _next_repeat(step, now)
        case None:
            yield from _wakes_of_work(step, now, held=held)
        case _ as unreachable:
            assert_never(unreachable)


def _wakes_of_work(step: StepState, now: datetime, *, held: bool) -> Iterator[datetime | None]:
    if step.status is StepStatus.RUNNING:
        yield step.due_at
        yield _next_repeat(step, now)
    elif not held:
        yield step.due_at


def _next_repeat(step: StepState, now: datetime) -> datetime:
    assert step.attempt_at is not None  # it is open, so it has begun
    return max(step.attempt_at + repeats(now - step.attempt_at)[1], now + TOGETHER)


def _undo_wake(state: RunState, now: datetime) -> datetime | None:
    """When what is being undone wants to be looked at."""
    undo = state.aside.undo
    name = undo.current if undo is not None else None
    if name is None:
        return None
    step = state.steps[name].compensation
    assert step is not None
    return soonest(_wakes_of_work(step, now, held=False))


def repeats(silence: timedelta) -> tuple[int, timedelta]:
    """How often a task that has been silent for so long is to have been handed out again, and at what age it is next.

    The wait doubles up to `LONGEST_SILENCE`: a long task, or a pool that is away, must not fill the queue with copies.
    """
    times, age, wait = 0, REDISPATCH, REDISPATCH
    while age <= silence:
        times += 1
        wait = min(wait * 2, LONGEST_SILENCE)
        age += wait
    return times, age


def presses(ending: Ending, now: datetime) -> int:
    """How often those that do not stop are to have been told again."""
    return int((now - ending.since) / STOP_AGAIN)


def _next_press(ending: Ending, now: datetime) -> datetime:
    """Soon within the grace; after it there are only child runs left to wait for, and those end by themselves."""
    silence = now - ending.since
    if silence < STOP_GRACE:
        return ending.since + min((presses(ending, now) + 1) * STOP_AGAIN, STOP_GRACE)
    return ending.since + repeats(silence)[1]


def wake_of(event: RunEvent, now: datetime) -> datetime | None:
    """The wake-up that a new event asks for. What only ticks do is not here: after one, all is looked at."""
    match event:
        case StepStarted():
            again = now + REDISPATCH
            return again if event.deadline_at is None else min(event.deadline_at, again)
        case StepCompleted():
            return None
        case RunStarted() | RunAdmitted() | StepOpened():
            return event.deadline_at
        case StepRetrying():
            return event.due_at
        case StepWaiting():
            return soonest((event.until, event.deadline_at))
        case ApprovalAsked():
            return soonest((event.expires_at, event.deadline_at, now + REDISPATCH))
        case RunCancelling() | RunFailing() | StepFailing():
            return now + STOP_AGAIN
        case _:
            return None


def due(at: datetime | None, now: datetime) -> bool:
    """Whether the time `at`, if there is one, has come."""
    return at is not None and at <= now


def soonest(times: Iterable[datetime | None]) -> datetime | None:
    """The first of `times`; `None` stands for never."""
    first = None
    for time in times:
        if time is not None and (first is None or time < first):
            first = time
    return first
