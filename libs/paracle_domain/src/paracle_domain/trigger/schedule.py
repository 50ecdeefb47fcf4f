"""The times of a schedule, and what a look at the clock makes of them. Pure: the time is an argument.

Cron expressions are read by cronsim, which follows Debian's cron, also where clocks change: what is due at a fixed time
runs once in a night with an hour twice, and right after the gap in a night with an hour missing; what is due every
hour or oftener goes by the time that passes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import islice
from typing import Final, Self
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from paracle_domain.envelope import rfc3339
from paracle_domain.errors import InvalidInput, quote
from paracle_domain.trigger.spec import Overlap, ScheduleSpec

MACROS: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
PUNCTUAL: Final = timedelta(seconds=10)
"""What starts within this is not late, whatever `catch_up_s` says: services look at the clock, and restart."""
QUEUED_LOOK: Final = timedelta(seconds=1)
MAX_STEPS: Final = 500
_FINEST: Final = timedelta(microseconds=1)
_MINUTE: Final = timedelta(minutes=1)
_LAST: Final = datetime.max.replace(tzinfo=UTC)
EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)


def read_zone(name: str) -> tzinfo:
    """The time zone called `name`.

    Raises
    ------
    InvalidInput
        If there is none.
    """
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError):  # not there, no name at all, or a folder of the database
        raise InvalidInput(f"{quote(name)} is no time zone of the IANA database, such as Europe/Berlin") from None


def read_cron(text: str) -> str:
    """The cron expression that `text` stands for.

    Raises
    ------
    InvalidInput
        If it is none, or names no time that will ever come.
    """
    expression = MACROS.get(text.strip().lower(), text)
    try:
        next(CronSim(expression, EPOCH))
    except CronSimError as error:
        reason = str(error)
        raise InvalidInput(
            f"{quote(text)} is no cron expression: {reason[:1].lower()}{reason[1:]}"
            " (minute, hour, day of month, month, day of week, as in `0 2 * * 1-5`)"
        ) from None
    except StopIteration:
        raise InvalidInput(f"{quote(text)} names no time that will ever come") from None
    return expression


@dataclass(frozen=True, slots=True)
class Calendar:
    """The times of a schedule: all of UTC, none twice."""

    cron: str
    zone: tzinfo
    start_at: datetime | None = None
    end_at: datetime | None = None

    @classmethod
    def of(cls, spec: ScheduleSpec) -> Self:
        """The calendar of `spec`.

        Raises
        ------
        InvalidInput
            If its cron expression or its time zone is none.
        """
        return cls(read_cron(spec.cron), read_zone(spec.timezone), spec.start_at, spec.end_at)

    def after(self, moment: datetime) -> Iterator[datetime]:
        """Times later than `moment`, in order."""
        if self.start_at is not None and self.start_at > moment:
            moment = self.start_at - _FINEST
        try:
            last = moment.astimezone(UTC)
        except OverflowError:
            return  # it starts after the end of all calendars
        for time in self._times(last):
            if self.end_at is not None and time > self.end_at:
                return
            if time > last:  # by the wall clock an hour that comes twice is ambiguous: no time is given again
                last = time
                yield time

    def upcoming(self, moment: datetime, count: int) -> tuple[datetime, ...]:
        """The next `count` times."""
        return tuple(islice(self.after(moment), count))

    def _times(self, moment: datetime) -> Iterator[datetime]:
        try:
            for time in self._local_times(moment):
                yield time.astimezone(UTC)
        except (OverflowError, ValueError):
            return  # the end of all calendars

    def _local_times(self, moment: datetime) -> Iterator[datetime]:
        """By the wall clock. cronsim minds changed clocks in minutes alone, so seconds are put into those."""
        fields = self.cron.split()
        if len(fields) == 5 or fields[1].startswith("*") or fields[2].startswith("*"):
            yield from CronSim(self.cron, moment.astimezone(self.zone))
            return
        seconds = sorted(CronSim(self.cron, EPOCH).seconds)
        for minute in CronSim(" ".join(fields[1:]), (moment - _MINUTE).astimezone(self.zone)):
            for second in seconds:
                yield minute.replace(second=second)


@dataclass(frozen=True, slots=True)
class Fire:
    """A time at which a run is to start. `cancels`: what is under way is to be cancelled first."""

    at: datetime
    cancels: bool = False


@dataclass(frozen=True, slots=True)
class Look:
    """What a look at the clock came to.

    `cursor` is the last time that was dealt with, one way or another; `due_at` is when to look again (null: never).
    """

    cursor: datetime
    due_at: datetime | None
    fires: tuple[Fire, ...] = ()
    skipped: int = 0
    dropped: int = 0


def jittered(time: datetime, jitter_s: float, key: str) -> datetime:
    """When a run of `time` starts: the same for the same `key` and time, wherever it is computed."""
    if not jitter_s:
        return time
    digest = hashlib.blake2b(f"{key}\x1f{rfc3339(time)}".encode(), digest_size=8).digest()
    return time + min(timedelta(seconds=jitter_s * int.from_bytes(digest) / 2**64), _LAST - time)


def look(spec: ScheduleSpec, calendar: Calendar, key: str, cursor: datetime, now: datetime, *, busy: bool) -> Look:
    """What is to be done at `now` about the times after `cursor`; `busy`: a run of the trigger is under way.

    Times are dealt with in order, each once: what comes back has a later cursor. At most `MAX_STEPS` at a time; then
    the next look is at once.
    """
    bound = max(timedelta(seconds=spec.catch_up_s), PUNCTUAL)
    fires: list[Fire] = []
    skipped = dropped = 0
    due_at: datetime | None = None
    for step, time in enumerate(calendar.after(cursor)):
        start = jittered(time, spec.jitter_s, key)
        if start > now or step == MAX_STEPS:
            due_at = max(start, now)
            break
        if now - start > bound:
            dropped += 1
        elif busy and spec.overlap is Overlap.SKIP:
            skipped += 1
        elif busy and spec.overlap is Overlap.QUEUE:
            due_at = now + QUEUED_LOOK
            break
        else:
            fires.append(Fire(time, cancels=spec.overlap is Overlap.CANCEL_PREVIOUS))
            busy = True
        cursor = time
    return Look(cursor, due_at, tuple(fires), skipped, dropped)


def first_look(spec: ScheduleSpec, calendar: Calendar, key: str, cursor: datetime) -> datetime | None:
    """When the first time after `cursor` is due."""
    first = next(calendar.after(cursor), None)
    return None if first is None else jittered(first, spec.jitter_s, key)
