"""When cron expressions are due: against brute force, over the hours that come twice or never, and after gaps."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from futago.jobs.cron import check, instants_after
from futago.jobs.missed import CATCH_UP, due
from futago.jobs.timetable import CronTable

TOKYO, BERLIN, UTC_ZONE = ZoneInfo("Asia/Tokyo"), ZoneInfo("Europe/Berlin"), ZoneInfo("UTC")


def utc(year: int, month: int, day: int, hour: int = 0, minute: int = 0) -> datetime:
    return datetime(year, month, day, hour, minute, tzinfo=UTC)


def next_after(cron: str, zone: ZoneInfo, since: datetime) -> datetime | None:
    return next(instants_after(cron, zone, since), None)


def due_of(cron: str, zone: ZoneInfo, *, since: datetime, now: datetime) -> tuple[list[datetime], bool]:
    found = due(CronTable(cron, zone), since=since, now=now)
    return [planned.at_utc for planned in found.instants], found.has_skipped


def test_time_of_day_is_that_of_the_zone() -> None:
    assert next_after("0 1 * * *", TOKYO, utc(2026, 3, 1)) == utc(2026, 3, 1, 16)
    assert next_after("0 1 * * *", TOKYO, utc(2026, 3, 1, 16)) == utc(2026, 3, 2, 16)


def test_hour_that_does_not_exist_runs_right_after_the_jump() -> None:
    assert list(zip(range(2), instants_after("30 2 * * *", BERLIN, utc(2026, 3, 28, 12)), strict=False)) == [
        (0, utc(2026, 3, 29, 1)),
        (1, utc(2026, 3, 30, 0, 30)),
    ]


def test_hour_that_comes_twice_runs_once() -> None:
    got = [i for _, i in zip(range(2), instants_after("30 2 * * *", BERLIN, utc(2026, 10, 24, 12)), strict=False)]
    assert got == [utc(2026, 10, 25, 0, 30), utc(2026, 10, 26, 1, 30)]
    for minutes in range(0, 180, 7):  # wherever the walk begins in that night
        since = utc(2026, 10, 25, 0, 31) + timedelta(minutes=minutes)
        assert next_after("30 2 * * *", BERLIN, since) == utc(2026, 10, 26, 1, 30)


def test_interval_follows_the_real_time_through_the_night_of_the_change() -> None:
    since = utc(2026, 10, 24, 23, 55)
    got = [i for _, i in zip(range(12), instants_after("*/30 * * * *", BERLIN, since), strict=False)]
    assert got == [utc(2026, 10, 25) + timedelta(minutes=30 * n) for n in range(12)]


def test_nothing_is_due_before_its_time_and_each_instant_once() -> None:
    assert due_of("0 * * * *", UTC_ZONE, since=utc(2026, 1, 1, 0), now=utc(2026, 1, 1, 0, 59)) == ([], False)
    assert due_of("0 * * * *", UTC_ZONE, since=utc(2026, 1, 1, 0), now=utc(2026, 1, 1, 1))[0] == [utc(2026, 1, 1, 1)]
    assert due_of("0 * * * *", UTC_ZONE, since=utc(2026, 1, 1, 1), now=utc(2026, 1, 1, 1)) == ([], False)


def test_clock_that_went_back_fires_nothing_again() -> None:
    assert due_of("* * * * *", UTC_ZONE, since=utc(2026, 1, 1, 12), now=utc(2026, 1, 1, 3)) == ([], False)


def test_instants_missed_in_a_short_gap_all_run() -> None:
    found, _ = due_of("*/10 * * * *", UTC_ZONE, since=utc(2026, 1, 1, 12), now=utc(2026, 1, 1, 12, 35))
    assert found == [utc(2026, 1, 1, 12, 10), utc(2026, 1, 1, 12, 20), utc(2026, 1, 1, 12, 30)]


def test_after_a_long_gap_the_last_hour_runs_and_the_rest_is_left_out() -> None:
    instants, has_skipped = due_of("*/10 * * * *", UTC_ZONE, since=utc(2026, 1, 1), now=utc(2026, 1, 3, 12, 5))
    assert len(instants) == 6
    assert instants[-1] == utc(2026, 1, 3, 12)
    assert has_skipped


@pytest.mark.parametrize("days", [1, 20, 300])
def test_nightly_batch_missed_long_ago_runs_once(days: int) -> None:
    now = utc(2026, 12, 3, 6)
    found = due_of("0 1 * * *", UTC_ZONE, since=now - timedelta(days=days), now=now)
    assert found == ([utc(2026, 12, 3, 1)], days > 1)


def test_yearly_instant_missed_long_ago_is_found() -> None:
    found = due_of("0 1 1 1 *", UTC_ZONE, since=utc(2025, 12, 31), now=utc(2026, 11, 1))
    assert found == ([utc(2026, 1, 1, 1)], False)


@pytest.mark.parametrize("bad", ["", "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "x * * * *", "*/0 * * * *", "0 0 30 2 *"])  # fmt: skip
def test_bad_expression_is_refused_with_a_sentence(bad: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        check(bad)


field = st.sampled_from(["*", "*/7", "3", "10-20", "5,25,45"])
hours = st.sampled_from(["*", "*/6", "2", "1-3", "0,12,23"])
days = st.sampled_from(["*", "1", "15,31"])
weekdays = st.sampled_from(["*", "1-5", "0"])


def values(text: str, low: int, high: int) -> set[int]:
    found: set[int] = set()
    for part in text.split(","):
        span, _, step = part.partition("/")
        first, _, last = span.partition("-")
        numbers = range(low, high + 1) if span == "*" else range(int(first), int(last or first) + 1)
        found |= set(numbers[:: int(step or 1)])
    return found


@settings(max_examples=60, deadline=None)
@given(
    minute=field,
    hour=hours,
    day=days,
    weekday=weekdays,
    start=st.integers(0, 3650),
    zone=st.sampled_from([TOKYO, UTC_ZONE]),
)
def test_instants_are_those_of_brute_force(
    minute: str, hour: str, day: str, weekday: str, start: int, zone: ZoneInfo
) -> None:
    """Every minute of three days is looked at; in zones without daylight saving there is nothing to interpret."""
    since = utc(2020, 1, 1) + timedelta(days=start)
    minutes, hours_, dom, dow = values(minute, 0, 59), values(hour, 0, 23), values(day, 1, 31), values(weekday, 0, 6)
    either = day != "*" and weekday != "*"
    expected = []
    for n in range(1, 3 * 1440 + 1):
        at = (since + timedelta(minutes=n)).astimezone(zone)
        matches = [at.day in dom, at.isoweekday() % 7 in dow]
        if at.minute in minutes and at.hour in hours_ and (any(matches) if either else all(matches)):
            expected.append(at.astimezone(UTC))
    found = []
    for instant in instants_after(f"{minute} {hour} {day} * {weekday}", zone, since):
        if instant > since + timedelta(days=3):
            break
        found.append(instant)
    assert found == expected


@settings(max_examples=100, deadline=None)
@given(
    cron=st.sampled_from(["* * * * *", "*/15 * * * *", "30 2 * * *", "0 1 * * 1", "59 23 31 12 *"]),
    zone=st.sampled_from([TOKYO, BERLIN]),
    steps=st.lists(st.integers(1, 3 * 86400), min_size=1, max_size=12),
)
def test_looking_at_any_moments_fires_no_instant_twice_and_none_early(
    cron: str, zone: ZoneInfo, steps: list[int]
) -> None:
    now = counted = utc(2026, 10, 20)
    fired: list[datetime] = []
    for step in steps:
        now += timedelta(seconds=step)
        found, has_skipped = due_of(cron, zone, since=counted, now=now)
        assert all(counted < i <= now for i in found)
        if not has_skipped:
            missed = [i for i in _until(cron, zone, counted, now) if i not in found]
            assert missed == []
        else:
            assert all(i in found for i in _until(cron, zone, now - CATCH_UP, now))
        fired += found
        counted = found[-1] if found else counted
    assert fired == sorted(set(fired))


def _until(cron: str, zone: ZoneInfo, since: datetime, now: datetime) -> list[datetime]:
    found: list[datetime] = []
    for instant in instants_after(cron, zone, since):
        if instant > now:
            return found
        found.append(instant)
    return found
