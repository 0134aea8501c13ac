"""Times of business dates: past midnight, through the nights in which clocks change, and against brute force."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from futago.jobs import cron
from futago.jobs.missed import between, due
from futago.jobs.schedule_definitions import CalendarObject, Schedule
from futago.jobs.timetable import Planned, Timetable, instant

TOKYO, BERLIN, NEW_YORK = ZoneInfo("Asia/Tokyo"), ZoneInfo("Europe/Berlin"), ZoneInfo("America/New_York")
LORD_HOWE = ZoneInfo("Australia/Lord_Howe")  # changes by half an hour
BANK = CalendarObject(
    name="bank", country="JP", weekdays=["mon", "tue", "wed", "thu", "fri"], closed=["12-31", "01-02", "01-03"]
)


def table(**words: Any) -> Timetable:
    schedule = Schedule(name="s", job_net="n", **words)
    return schedule.timetable({"bank": BANK.calendar()})


def first(words: dict[str, Any], *, since: str, count: int) -> list[tuple[str, str]]:
    """Local times (of Tokyo, unless said) and business dates."""
    zone = ZoneInfo(words.setdefault("timezone", "Asia/Tokyo"))
    found = itertools.islice(table(**words).after(datetime.fromisoformat(since).replace(tzinfo=zone)), count)
    return [(f"{p.at_utc.astimezone(zone):%Y-%m-%d %H:%M}", str(p.business_date)) for p in found]


def test_times_beyond_midnight_belong_to_the_business_date_before() -> None:
    words = {"days": ["last business"], "calendar": "bank", "at": ["22:00", "25:30"]}
    assert first(words, since="2026-10-30T23:00", count=3) == [
        ("2026-10-31 01:30", "2026-10-30"),
        ("2026-11-30 22:00", "2026-11-30"),
        ("2026-12-01 01:30", "2026-11-30"),
    ]


def test_business_date_that_changes_at_a_set_hour_takes_the_small_hours_with_it() -> None:
    words = {"days": ["fri"], "at": ["01:30", "05:00", "23:00"], "day_begins": "05:00"}
    assert first(words, since="2026-11-20T00:00", count=3) == [
        ("2026-11-20 05:00", "2026-11-20"),
        ("2026-11-20 23:00", "2026-11-20"),
        ("2026-11-21 01:30", "2026-11-20"),
    ]


def test_salary_day_on_a_holiday_is_paid_before_it() -> None:
    words = {"days": ["25th day"], "calendar": "bank", "if_closed": "before", "at": "09:00"}
    assert [day for _, day in first(words, since="2026-03-26T00:00", count=4)] == [
        "2026-04-24",  # the 25th is a Saturday
        "2026-05-25",
        "2026-06-25",
        "2026-07-24",
    ]


def test_closed_days_are_skipped_when_a_calendar_is_named_and_nothing_else_is_said() -> None:
    assert [d for _, d in first({"calendar": "bank", "at": "12:00"}, since="2026-05-01T13:00", count=2)] == [
        "2026-05-07",
        "2026-05-08",
    ]
    assert [d for _, d in first({"calendar": "bank", "cron": "0 12 * * *"}, since="2026-05-01T13:00", count=1)] == [
        "2026-05-07"
    ]


def test_every_runs_between_its_two_times_also_over_midnight() -> None:
    words = {"days": "mon", "every": "90m", "between": {"from": "22:00", "to": "26:00"}}
    assert first(words, since="2026-11-16T00:00", count=4) == [
        ("2026-11-16 22:00", "2026-11-16"),
        ("2026-11-16 23:30", "2026-11-16"),
        ("2026-11-17 01:00", "2026-11-16"),
        ("2026-11-23 22:00", "2026-11-23"),
    ]


def test_every_follows_the_real_time_through_the_night_of_the_change() -> None:
    at = [p.at_utc for p in between(table(every="1h", timezone="Europe/Berlin"), _utc(2026, 10, 24, 22, 0), _utc(2026, 10, 25, 23, 0))]  # fmt: skip
    assert at[:4] == [_utc(2026, 10, 24, 23 + 0), _utc(2026, 10, 25, 0), _utc(2026, 10, 25, 1), _utc(2026, 10, 25, 2)]
    assert len(at) == len(set(at)) == 25


def test_time_that_is_jumped_over_is_the_instant_of_the_jump_and_one_shown_twice_is_the_first() -> None:
    assert instant(date(2026, 3, 29), timedelta(hours=2, minutes=30), BERLIN) == _utc(2026, 3, 29, 1)
    assert instant(date(2026, 10, 25), timedelta(hours=2, minutes=30), BERLIN) == _utc(2026, 10, 25, 0, 30)
    assert instant(date(2026, 3, 8), timedelta(hours=2, minutes=15), NEW_YORK) == _utc(2026, 3, 8, 7)
    assert instant(date(2026, 10, 4), timedelta(hours=2, minutes=10), LORD_HOWE) == _utc(2026, 10, 3, 15, 30)


def test_day_that_never_comes_ends_the_timetable_instead_of_searching_for_ever() -> None:
    never = table(days=["30th day"], months=[2], at="01:00")
    assert list(never.after(_utc(2026, 1, 1))) == []
    closed = CalendarObject(name="bank", weekdays=["mon"])
    schedule = Schedule(name="s", job_net="n", cron="0 0 * * 2", calendar="bank")
    assert list(schedule.timetable({"bank": closed.calendar()}).after(_utc(2026, 1, 1))) == []


def test_closed_days_are_left_out_whole_however_often_the_expression_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every five minutes of days that are never open: nine years of instants would block whoever walks them."""
    weekend = CalendarObject(name="bank", weekdays=["sat", "sun"])
    schedule = Schedule(name="s", job_net="n", cron="*/5 * * * 1-5", calendar="bank")
    walked = itertools.count()
    whole = cron.instants_after

    def counted(expression: str, zone: ZoneInfo, since: datetime) -> Iterator[datetime]:
        for at in whole(expression, zone, since):
            next(walked)
            yield at

    monkeypatch.setattr(cron, "instants_after", counted)
    assert list(schedule.timetable({"bank": weekend.calendar()}).after(_utc(2026, 1, 1))) == []
    daily = Schedule(name="s", job_net="n", cron="*/5 * * * *", calendar="bank").timetable({"bank": weekend.calendar()})
    first = next(daily.after(_utc(2026, 11, 16)))
    assert first == Planned(_utc(2026, 11, 21), date(2026, 11, 21))
    assert next(walked) < 3_000  # one for each closed day of nine years, not each of 680,000 instants


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ({}, "write one of"),
        ({"cron": "0 1 * * *", "at": "01:00"}, "not cron and at"),
        ({"cron": "0 1 * * *", "days": "mon"}, "chooses days and times itself"),
        ({"cron": "0 1 * * *", "calendar": "bank", "if_closed": "after"}, "to move days"),
        ({"at": "48:00"}, "beyond 24:00"),
        ({"at": "1:00"}, "is not a time"),
        ({"at": 1530}, "in quotes"),
        ({"at": "01:00", "between": {"from": "01:00", "to": "02:00"}}, "belongs to `every`"),
        ({"every": "5m", "between": {"from": "03:00", "to": "02:00"}}, "ends before it begins"),
        ({"every": "1ms"}, "shorter"),
        ({"at": "01:00", "if_closed": "skip"}, "needs a `calendar`"),
        ({"at": "01:00", "timezone": "Tokyo"}, "not a time zone"),
        ({"at": "01:00", "day_begins": "24:00"}, "below 24:00"),
    ],
)
def test_schedules_that_say_nothing_clear_are_refused_with_a_sentence(words: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        Schedule(name="s", job_net="n", **words)


def test_schedule_written_and_read_back_is_the_same_schedule() -> None:
    schedule = Schedule(name="s", job_net="n", every="5m", between={"from": "01:00", "to": "25:00"}, days=["last fri"])
    assert Schedule.model_validate(schedule.model_dump(mode="json")) == schedule


# --- brute force ------------------------------------------------------------------------------------------------------


def _utc(year: int, month: int, day: int, hour: int = 0, minute: int = 0) -> datetime:
    return datetime(year, month, day, hour, minute, tzinfo=UTC)


CHANGES = [(date(2026, m, d) - date(2020, 1, 4)).days for m, d in ((3, 8), (3, 29), (4, 5), (10, 4), (10, 25), (11, 1))]
times = st.builds(lambda h, m: f"{h:02}:{m:02}", st.integers(0, 47), st.sampled_from([0, 15, 30, 59]))


@settings(max_examples=60, deadline=None)
@given(
    at=st.lists(times, min_size=1, max_size=4),
    days=st.lists(st.sampled_from(["day", "mon", "2nd sun", "last day", "last sun"]), min_size=1, max_size=2),
    day_begins=st.sampled_from(["00:00", "05:00"]),
    zone=st.sampled_from([TOKYO, BERLIN, NEW_YORK, LORD_HOWE]),
    start=st.one_of(st.integers(0, 3600), st.sampled_from(CHANGES)),
)
def test_instants_are_those_of_asking_every_date_of_ten_years(
    at: list[str], days: list[str], day_begins: str, zone: ZoneInfo, start: int
) -> None:
    """The reference knows no zone arithmetic of ours: it walks the real minutes and reads the wall clock."""
    made = table(at=at, days=days, day_begins=day_begins, timezone=str(zone))
    since = _utc(2020, 1, 1) + timedelta(days=start)
    until = since + timedelta(days=6)
    got = between(made, since, until)
    assert list(got) == sorted(set(got), key=lambda p: p.at_utc) and len({p.at_utc for p in got}) == len(got)
    shown = _first_shown(since - timedelta(days=3), until + timedelta(days=1), zone)
    expected = set()
    for n in range(-4, 8):
        day = (since + timedelta(days=n)).date()
        if not _named(day, days):
            continue
        for text in at:
            hours, minutes = int(text[:2]), int(text[3:])
            hours += 24 if (hours, minutes) < (int(day_begins[:2]), 0) else 0
            wall = datetime.combine(day, time()) + timedelta(hours=hours, minutes=minutes)
            found = shown.get(wall) or _next_shown(wall, shown)
            if found is not None and since < found <= until:
                expected.add(found)
    assert {p.at_utc for p in got} == expected


def _first_shown(since: datetime, until: datetime, zone: ZoneInfo) -> dict[datetime, datetime]:
    shown: dict[datetime, datetime] = {}
    step = since
    while step < until:
        shown.setdefault(step.astimezone(zone).replace(tzinfo=None), step)
        step += timedelta(minutes=1)
    return shown


def _next_shown(wall: datetime, shown: dict[datetime, datetime]) -> datetime | None:
    for n in range(1, 121):
        if found := shown.get(wall + timedelta(minutes=n)):
            return found
    return None


def _named(day: date, terms: list[str]) -> bool:
    last = (day + timedelta(days=1)).month != day.month
    sunday = day.weekday() == 6
    return any(
        (
            "day" in terms,
            "mon" in terms and day.weekday() == 0,
            "2nd sun" in terms and sunday and 8 <= day.day <= 14,
            "last day" in terms and last,
            "last sun" in terms and sunday and (day + timedelta(days=7)).month != day.month,
        )
    )


@settings(max_examples=50, deadline=None)
@given(steps=st.lists(st.integers(1, 3 * 86400), min_size=1, max_size=12), zone=st.sampled_from([TOKYO, BERLIN]))
def test_looking_at_any_moments_fires_what_the_list_of_future_runs_had_said(steps: list[int], zone: ZoneInfo) -> None:
    made = table(days=["day"], at=["02:30", "25:30"], timezone=str(zone))
    start = now = _utc(2026, 10, 20)
    fired: list[Planned] = []
    for step in steps:
        now += timedelta(seconds=min(step, 3600))  # within the time that is caught up
        found = due(made, since=fired[-1].at_utc if fired else start, now=now)
        fired += found.instants
    assert tuple(fired) == between(made, start, now)
