"""The times of schedules, and what a look at the clock makes of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paracle_domain.errors import InvalidInput
from paracle_domain.trigger.schedule import (
    MAX_STEPS,
    PUNCTUAL,
    QUEUED_LOOK,
    Calendar,
    Fire,
    first_look,
    jittered,
    look,
    read_cron,
    read_zone,
)
from paracle_domain.trigger.spec import Overlap, ScheduleSpec

START = datetime(2026, 1, 1, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")

ZONES = st.sampled_from(
    ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "Pacific/Apia"]
)
CRONS = st.sampled_from(
    [
        "* * * * *", "*/7 * * * *", "0 * * * *", "30 2 * * *", "15,45 1-3 * * *", "59 1 * * *", "30 0 * * 0",
        "0 2 * * 1-5", "0 0 29 2 *", "0 12 L * *", "20 30 2 * * *", "0,59 0 0,2 * * *", "@hourly", "@daily",
        "*/30 */2 * * *",
    ]
)  # fmt: skip
MOMENTS = st.datetimes(datetime(2005, 1, 1), datetime(2060, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


def calendar(cron: str, zone: str = "UTC", **more: object) -> Calendar:
    return Calendar.of(ScheduleSpec.model_validate({"cron": cron, "timezone": zone, **more}))


@given(CRONS, ZONES, MOMENTS)
def test_times_come_in_order_each_once_after_the_moment(cron: str, zone: str, moment: datetime) -> None:
    times = calendar(cron, zone).upcoming(moment, 6)
    assert len(times) == 6
    assert all(earlier < later for earlier, later in pairwise((moment, *times)))
    assert {time.tzinfo for time in times} == {UTC}


@given(CRONS, ZONES, MOMENTS)
def test_times_do_not_depend_on_where_one_begins_to_look(cron: str, zone: str, moment: datetime) -> None:
    found = calendar(cron, zone)
    first, second, third = found.upcoming(moment, 3)
    assert found.upcoming(first, 2) == (second, third)


def local(cron: str, day: datetime, count: int) -> list[str]:
    return [f"{time.astimezone(BERLIN):%d %H:%M %Z}" for time in calendar(cron, "Europe/Berlin").upcoming(day, count)]


def test_a_time_in_the_missing_hour_comes_right_after_it() -> None:
    assert local("30 2 * * *", datetime(2026, 3, 28, 12, tzinfo=UTC), 2) == ["29 03:00 CEST", "30 02:30 CEST"]


def test_a_time_in_the_hour_that_comes_twice_comes_once() -> None:
    assert local("30 2 * * *", datetime(2026, 10, 24, 12, tzinfo=UTC), 2) == ["25 02:30 CEST", "26 02:30 CET"]
    within = datetime(2026, 10, 25, 1, 10, tzinfo=UTC)  # 02:10, for the second time
    assert local("30 2 * * *", within, 1) == ["26 02:30 CET"]


def test_a_time_with_seconds_comes_once_and_right_after_a_gap_as_others_do() -> None:
    assert local("0,20 30 2 * * *", datetime(2026, 3, 28, 12, tzinfo=UTC), 3) == [
        "29 03:00 CEST", "29 03:00 CEST", "30 02:30 CEST",
    ]  # fmt: skip
    assert local("20 30 2 * * *", datetime(2026, 10, 24, 12, tzinfo=UTC), 2) == ["25 02:30 CEST", "26 02:30 CET"]
    within = datetime(2026, 3, 29, 1, 0, 10, tzinfo=UTC)  # between the two
    assert calendar("0,20 30 2 * * *", "Europe/Berlin").upcoming(within, 1) == (within + timedelta(seconds=10),)
    assert local("0 */30 2 * * *", datetime(2026, 10, 24, 12, tzinfo=UTC), 4) == [
        "25 02:00 CEST", "25 02:30 CEST", "25 02:00 CET", "25 02:30 CET",
    ]  # fmt: skip


def test_what_comes_every_hour_goes_by_the_time_that_passes() -> None:
    assert local("0 * * * *", datetime(2026, 10, 24, 23, 30, tzinfo=UTC), 3) == [
        "25 02:00 CEST", "25 02:00 CET", "25 03:00 CET",
    ]  # fmt: skip


def test_a_schedule_has_a_beginning_and_an_end() -> None:
    found = calendar("0 0 * * *", start_at="2026-01-05T00:00:00Z", end_at="2026-01-07T00:00:00Z")
    assert [time.day for time in found.after(START)] == [5, 6, 7]
    assert [time.day for time in found.after(datetime(2026, 1, 6, tzinfo=UTC))] == [7]


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "Pacific/Niue"])
@pytest.mark.parametrize("cron", ["59 23 31 12 *", "59 59 23 31 12 *", "* * * * *"])
@pytest.mark.parametrize("at", ["0001-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00"])
def test_a_schedule_may_begin_whenever_a_time_can_be(zone: str, cron: str, at: str) -> None:
    found = calendar(cron, zone, start_at=at).upcoming(START, 1)
    assert found == (calendar(cron, zone).upcoming(START, 1) if at.startswith("0001") else ())
    assert calendar(cron, zone, end_at="0001-01-01T00:00:00+14:00").upcoming(START, 1) == ()


def test_a_schedule_ends_with_the_calendar() -> None:
    assert calendar("0 0 * * *").upcoming(datetime(9999, 12, 30, 12, tzinfo=UTC), 9) == (
        datetime(9999, 12, 31, tzinfo=UTC),
    )
    for never in ("* * */20 * 1L", "5 0 0 */20 * 1L"):
        assert Calendar(never, UTC).upcoming(START, 1) == ()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "wrong number of fields"),
        ("0 2 * *", "wrong number of fields"),
        ("61 * * * *", "bad minute"),
        ("0 2 * * MO", "bad day-of-week"),
        ("0 0 30 2 *", "bad day-of-month"),
        ("* * */20 * 1L", "names no time that will ever come"),
        ("@often", "wrong number of fields"),
    ],
)
def test_what_is_no_cron_expression_is_refused(text: str, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        read_cron(text)


@pytest.mark.parametrize("name", ["Europe/Berln", "", "../etc/passwd", "Europe", "CEST!", "a" * 300])
def test_what_is_no_time_zone_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="is no time zone"):
        read_zone(name)


@given(MOMENTS, st.floats(0, 86_400), st.text(max_size=20))
def test_jitter_is_bounded_and_always_the_same(moment: datetime, jitter_s: float, key: str) -> None:
    start = jittered(moment, jitter_s, key)
    assert jittered(datetime.max.replace(tzinfo=UTC), jitter_s, key).year == 9999
    assert moment <= start <= moment + timedelta(seconds=jitter_s)
    assert start == jittered(moment, jitter_s, key)


def spec(cron: str = "* * * * *", **more: object) -> ScheduleSpec:
    return ScheduleSpec.model_validate({"cron": cron, **more})


SPECS = st.builds(
    lambda cron, zone, overlap, catch_up, jitter: ScheduleSpec(
        cron=cron, timezone=zone, overlap=overlap, catch_up_s=catch_up, jitter_s=jitter
    ),
    CRONS,
    ZONES,
    st.sampled_from(Overlap),
    st.sampled_from([0, 60, 3600, 86_400]),
    st.sampled_from([0, 30, 4000]),
)


@given(SPECS, MOMENTS, st.timedeltas(timedelta(hours=-3), timedelta(days=3)), st.booleans())
def test_a_look_deals_with_each_time_once_and_within_the_bounds(
    given_spec: ScheduleSpec, cursor: datetime, late: timedelta, busy: bool
) -> None:
    now = cursor + late
    times = Calendar.of(given_spec)
    found = look(given_spec, times, "k", cursor, now, busy=busy)
    dealt_with = len(found.fires) + found.skipped + found.dropped
    passed = list(islice(times.after(cursor), dealt_with))
    assert found.cursor == (passed[-1] if passed else cursor)
    assert [fire.at for fire in found.fires] == sorted({fire.at for fire in found.fires})
    assert {fire.at for fire in found.fires} <= set(passed)
    bound = max(timedelta(seconds=given_spec.catch_up_s), PUNCTUAL)
    for fire in found.fires:
        start = jittered(fire.at, given_spec.jitter_s, "k")
        assert timedelta(0) <= now - start <= bound
    if given_spec.overlap is Overlap.ALLOW:
        assert found.skipped == 0
    assert found.due_at is not None
    assert found.due_at >= now
    following = next(times.after(found.cursor))
    assert jittered(following, given_spec.jitter_s, "k") > now or found.due_at <= now + QUEUED_LOOK


@given(SPECS, MOMENTS, st.lists(st.timedeltas(timedelta(hours=-2), timedelta(hours=5)), max_size=5))
def test_whatever_the_clock_does_nothing_fires_twice(
    given_spec: ScheduleSpec, cursor: datetime, jumps: list[timedelta]
) -> None:
    times, now, fired = Calendar.of(given_spec), cursor, []
    for jump in jumps:
        now += jump
        found = look(given_spec, times, "k", cursor, now, busy=False)
        fired += [fire.at for fire in found.fires]
        cursor = found.cursor
    assert fired == sorted(set(fired))


def minutes(found: tuple[Fire, ...]) -> list[int]:
    return [fire.at.minute for fire in found]


def test_what_was_missed_is_made_up_for_in_order_and_what_is_too_old_is_dropped() -> None:
    found = look(
        given := spec(catch_up_s=180, overlap="allow"),
        Calendar.of(given),
        "k",
        START,
        START + timedelta(minutes=10),
        busy=False,
    )
    assert (minutes(found.fires), found.dropped, found.cursor.minute) == ([7, 8, 9, 10], 6, 10)
    assert found.due_at == START + timedelta(minutes=11)


@pytest.mark.parametrize(
    ("overlap", "busy", "fired", "skipped"),
    [
        ("skip", False, [1], 2),
        ("skip", True, [], 3),
        ("queue", False, [1], 0),
        ("queue", True, [], 0),
        ("cancel_previous", True, [1, 2, 3], 0),
        ("allow", True, [1, 2, 3], 0),
    ],
)
def test_a_run_under_way_is_treated_as_the_schedule_says(
    overlap: str, busy: bool, fired: list[int], skipped: int
) -> None:
    now = START + timedelta(minutes=3)
    found = look(given := spec(overlap=overlap), Calendar.of(given), "k", START, now, busy=busy)
    assert (minutes(found.fires), found.skipped) == (fired, skipped)
    assert {fire.cancels for fire in found.fires} <= {overlap == "cancel_previous"}
    if overlap == "queue":
        assert found.due_at == now + QUEUED_LOOK


def test_what_waits_in_the_queue_for_too_long_is_dropped() -> None:
    now = START + timedelta(minutes=10)
    found = look(given := spec(overlap="queue", catch_up_s=60), Calendar.of(given), "k", START, now, busy=True)
    assert (found.dropped, found.cursor.minute) == (8, 8)


def test_a_long_absence_is_gone_through_in_portions() -> None:
    now = START + timedelta(days=1)
    found = look(given := spec(catch_up_s=0), Calendar.of(given), "k", START, now, busy=False)
    assert (found.dropped, found.due_at) == (MAX_STEPS, now)


def test_a_schedule_that_is_over_is_never_looked_at_again() -> None:
    given = spec("0 0 * * *", end_at="2026-01-02T00:00:00Z")
    over = look(given, Calendar.of(given), "k", START, START + timedelta(days=1), busy=False)
    assert ([fire.at.day for fire in over.fires], over.due_at) == ([2], None)
    assert first_look(given, Calendar.of(given), "k", over.cursor) is None


def test_the_first_look_is_at_the_first_start() -> None:
    given = spec(jitter_s=30)
    first = START + timedelta(minutes=1)
    assert first_look(given, Calendar.of(given), "k", START) == jittered(first, 30, "k") > first
