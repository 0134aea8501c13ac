"""Business days and the words that choose days, against counting over ten years."""

from __future__ import annotations

import calendar as gregorian
from datetime import date, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from futago.jobs.calendar import (
    EVERY_DAY,
    WEEKDAYS,
    Calendar,
    Days,
    IfClosed,
    check_country,
    read_days,
    read_term,
)

MONDAY_TO_FRIDAY = frozenset(range(5))
BANK = Calendar(weekdays=MONDAY_TO_FRIDAY, country="JP", closed=read_days(["12-31", "01-02", "01-03"]))
TEN_YEARS = [date(2020, 1, 1) + timedelta(days=n) for n in range(3653)]


def chosen(*terms: str, kept: Calendar = EVERY_DAY, year: int = 2026, month: int | None = None) -> list[str]:
    days = Days(tuple(read_term(t) for t in terms))
    return [str(d) for d in TEN_YEARS if d.year == year and month in (None, d.month) and days.has(d, kept)]


def test_japanese_bank_is_closed_on_public_holidays_their_substitutes_and_around_new_year() -> None:
    closed = ["2026-01-01", "2026-01-02", "2026-05-03", "2026-05-06", "2026-09-22", "2026-12-31", "2026-11-21"]
    assert [d for d in closed if BANK.is_open(date.fromisoformat(d))] == []
    assert BANK.is_open(date(2026, 5, 7)) and BANK.is_open(date(2026, 12, 30))


def test_day_that_is_named_open_is_open_whatever_it_is() -> None:
    kept = Calendar(weekdays=MONDAY_TO_FRIDAY, country="JP", opened=read_days(["2026-01-01", "02-28"]))
    assert kept.is_open(date(2026, 1, 1)) and kept.is_open(date(2026, 2, 28)) and not kept.is_open(date(2026, 3, 1))


def test_words_choose_the_days_that_they_say() -> None:
    assert chosen("2nd tue", month=11) == ["2026-11-10"]
    assert chosen("last fri", month=11) == ["2026-11-27"]
    assert chosen("last day", month=2) == ["2026-02-28"]
    assert chosen("25th day", "2nd last day", month=2) == ["2026-02-25", "2026-02-27"]
    assert chosen("31st day") == [f"2026-{m:02}-31" for m in (1, 3, 5, 7, 8, 10, 12)]
    assert chosen("1st business", kept=BANK, month=1) == ["2026-01-05"]
    assert chosen("last business", kept=BANK, month=12) == ["2026-12-30"]
    assert chosen("2nd last business", kept=BANK, month=5) == ["2026-05-28"]
    assert chosen("2026-12-24") == ["2026-12-24"]
    assert chosen("5th mon", month=2) == []


@pytest.mark.parametrize("bad", ["", "monday", "0th day", "32nd day", "first mon", "2026-02-30", "2 mon", "last"])
def test_words_that_choose_nothing_are_refused_with_a_sentence(bad: str) -> None:
    with pytest.raises(ValueError, match=r"write such as|a month has no"):
        read_term(bad)


def test_countries_and_regions_that_nobody_keeps_are_refused() -> None:
    check_country("DE", "BY")
    with pytest.raises(ValueError, match="no public holidays"):
        check_country("XX", "")
    with pytest.raises(ValueError, match="not a region of JP"):
        check_country("JP", "13")


kept_calendars = st.sampled_from(
    [
        BANK,
        Calendar(weekdays=MONDAY_TO_FRIDAY, country="DE", region="BY"),
        Calendar(weekdays=frozenset({0, 2}), opened=read_days(["12-24"])),
        EVERY_DAY,
    ]
)


@settings(max_examples=60, deadline=None)
@given(
    kept=kept_calendars,
    nth=st.integers(1, 7),
    is_last=st.booleans(),
    unit=st.sampled_from(["day", "business", *WEEKDAYS]),
)
def test_ordinals_are_those_of_counting_each_month_of_ten_years(
    kept: Calendar, nth: int, is_last: bool, unit: str
) -> None:
    ending = {1: "st", 2: "nd", 3: "rd"}.get(nth, "th")
    days = Days((read_term(f"{nth}{ending} {'last ' if is_last else ''}{unit}"),))
    expected = []
    for year in range(2020, 2030):
        for month in range(1, 13):
            month_days = [date(year, month, n + 1) for n in range(gregorian.monthrange(year, month)[1])]
            those = [
                d
                for d in month_days
                if unit == "day" or (kept.is_open(d) if unit == "business" else WEEKDAYS[d.weekday()] == unit)
            ]
            if len(those) >= nth:
                expected.append(those[-nth if is_last else nth - 1])
    assert [d for d in TEN_YEARS if d.year < 2030 and days.has(d, kept)] == expected


@settings(max_examples=25, deadline=None)
@given(
    kept=kept_calendars,
    terms=st.lists(st.sampled_from(["25th day", "last day", "sat", "2nd sun", "2026-05-04", "day"]), min_size=1),
    but=st.lists(st.sampled_from(["1st sat", "last day", "2026-05-04"]), max_size=2),
    months=st.frozensets(st.integers(1, 12), max_size=3),
    if_closed=st.sampled_from(IfClosed),
)
def test_closed_days_move_or_fall_away_as_when_each_day_is_moved_by_hand(
    kept: Calendar, terms: list[str], but: list[str], months: frozenset[int], if_closed: IfClosed
) -> None:
    meant, not_meant = [read_term(t) for t in terms], [read_term(t) for t in but]
    days = Days(tuple(meant), tuple(not_meant), months, if_closed)
    expected = set()
    for day in TEN_YEARS:
        named = any(t(day, kept) for t in meant) and not any(t(day, kept) for t in not_meant)
        if not named or (months and day.month not in months):
            continue
        if if_closed is IfClosed.RUN:
            expected.add(day)
        elif if_closed is IfClosed.SKIP:
            expected |= {day} if kept.is_open(day) else set()
        else:
            step = timedelta(days=-1 if if_closed is IfClosed.BEFORE else 1)
            moved = day
            while not kept.is_open(moved):
                moved += step
            expected.add(moved)
    middle = [d for d in TEN_YEARS if 2021 <= d.year <= 2028]  # a move over the ends is not seen from inside
    assert [d for d in middle if days.has(d, kept)] == sorted(d for d in expected if 2021 <= d.year <= 2028)
