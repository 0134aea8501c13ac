"""Business days: which days a calendar counts as open, and the words with which people choose days. Pure.

A day is open if the calendar names it as open; else closed if it names it as closed, if it is not one of its weekdays,
or if it is a public holiday of its country. Public holidays are those of the `holidays` library, which keeps the laws
of each country, substitute days included.

The words: an optional ordinal, an optional ``last``, and a unit:

    mon                 every Monday                    business            every open day
    2nd tue             the month's second Tuesday      3rd business        the month's third open day
    last fri            its last Friday                 last business       its last open day
    25th day, last day  days of the month               2nd last business   the one before its last open day
    day                 every day                       2026-12-24          that day
"""

from __future__ import annotations

import calendar as gregorian
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum
from functools import lru_cache

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
CLOSED_RUN_MAX = 60  # days: a calendar that is closed for longer has no next open day
_TERM = re.compile(
    r"(?:(?P<nth>\d{1,2})(?:st|nd|rd|th) )?(?P<last>last )?(?P<unit>day|business|mon|tue|wed|thu|fri|sat|sun)\Z"
)
_YEARLY = re.compile(r"\d\d-\d\d\Z")


class IfClosed(StrEnum):
    """What becomes of a chosen day on which the calendar is closed."""

    RUN = "run"
    SKIP = "skip"
    BEFORE = "before"  # on the last open day before it
    AFTER = "after"  # on the first open day after it


@dataclass(frozen=True, slots=True)
class DaySet:
    """Single days: dates, and days of every year as (month, day)."""

    dates: frozenset[date] = frozenset()
    yearly: frozenset[tuple[int, int]] = frozenset()

    def __contains__(self, day: date) -> bool:
        return day in self.dates or (day.month, day.day) in self.yearly


@dataclass(frozen=True, slots=True)
class Calendar:
    """See the module. `weekdays`: 0 is Monday. `country`: ISO 3166, empty: no public holidays; `region`: such as BY."""

    weekdays: frozenset[int] = frozenset(range(7))
    country: str = ""
    region: str = ""
    opened: DaySet = DaySet()
    closed: DaySet = DaySet()

    def is_open(self, day: date) -> bool:
        """Return whether the day is a business day."""
        if day in self.opened:
            return True
        if day in self.closed or day.weekday() not in self.weekdays:
            return False
        return not (self.country and day in _public(self.country, self.region, day.year))


EVERY_DAY = Calendar()


@lru_cache(maxsize=400)
def _public(country: str, region: str, year: int) -> frozenset[date]:
    import holidays  # here: few calendars have public holidays, and the manager is to start quickly

    return frozenset(holidays.country_holidays(country, subdiv=region or None, years=year))


def check_country(country: str, region: str) -> None:
    """Raise ValueError, with a sentence, if no public holidays are known for it."""
    import holidays

    known = holidays.list_supported_countries(include_aliases=False)
    if country not in known:
        raise ValueError(f"no public holidays are known for `{country}`; write its two letters, such as JP or DE")
    if region and region not in known[country]:
        regions = ", ".join(sorted(known[country])) or "none"
        raise ValueError(f"`{region}` is not a region of {country} with holidays of its own; known are: {regions}")


def read_days(words: list[str]) -> DaySet:
    """Return the days that are written as YYYY-MM-DD, or MM-DD for every year.

    Raises:
        ValueError: with a sentence.
    """
    dates: set[date] = set()
    yearly: set[tuple[int, int]] = set()
    for word in words:
        try:
            if _YEARLY.match(word):
                day = date.fromisoformat(f"2000-{word}")  # a leap year: 02-29 may be written
                yearly.add((day.month, day.day))
            else:
                dates.add(date.fromisoformat(word))
        except ValueError as e:
            raise ValueError(f"`{word}` is not a day; write such as 2026-12-31, or 12-31 for every year") from e
    return DaySet(frozenset(dates), frozenset(yearly))


# --- choosing days ----------------------------------------------------------------------------------------------------

Term = Callable[[date, Calendar], bool]


def read_term(text: str) -> Term:
    """Return whether-a-day-is-meant for one term of the module's words.

    Raises:
        ValueError: with a sentence.
    """
    text = " ".join(text.lower().split())
    if re.fullmatch(r"\d{4}-\d\d-\d\d", text):
        days = read_days([text])
        return lambda day, _: day in days
    found = _TERM.match(text)
    if not found:
        raise ValueError(
            f"`{text}` does not choose days; write such as mon, 2nd tue, last day, 1st business, 2026-12-24"
        )
    nth, is_last, unit = int(found["nth"] or 0), bool(found["last"]), found["unit"]
    if found["nth"] and not 1 <= nth <= 31:
        raise ValueError(f"`{text}`: a month has no {nth}th")
    belongs = _unit(unit)
    if not nth and not is_last:
        return belongs
    return lambda day, kept: belongs(day, kept) and _is_nth(day, kept, belongs, nth=nth or 1, from_end=is_last)


def _unit(unit: str) -> Term:
    if unit == "day":
        return lambda _day, _kept: True
    if unit == "business":
        return lambda day, kept: kept.is_open(day)
    weekday = WEEKDAYS.index(unit)
    return lambda day, _: day.weekday() == weekday


def _is_nth(day: date, kept: Calendar, belongs: Term, *, nth: int, from_end: bool) -> bool:
    """Whether `day` is the nth of its month, counted from its beginning or its end, among the days that belong."""
    last = gregorian.monthrange(day.year, day.month)[1]
    others = range(day.day + 1, last + 1) if from_end else range(1, day.day)
    count = 1
    for number in others:
        count += belongs(day.replace(day=number), kept)
        if count > nth:
            return False
    return count == nth


@dataclass(frozen=True, slots=True)
class Days:
    """Which days: those of any of `terms` in `months`, without those of `but`; `if_closed` then moves or drops them.

    `months` empty: all.
    """

    terms: tuple[Term, ...]
    but: tuple[Term, ...] = ()
    months: frozenset[int] = frozenset()
    if_closed: IfClosed = IfClosed.RUN

    def has(self, day: date, kept: Calendar) -> bool:
        """Return whether `day` is one, after moving and dropping."""
        if self.if_closed is IfClosed.RUN:
            return self._names(day, kept)
        if not kept.is_open(day):
            return False
        return self._names(day, kept) or any(self._names(d, kept) for d in self._moved_here(day, kept))

    def _names(self, day: date, kept: Calendar) -> bool:
        if self.months and day.month not in self.months:
            return False
        return any(t(day, kept) for t in self.terms) and not any(t(day, kept) for t in self.but)

    def _moved_here(self, day: date, kept: Calendar) -> Iterator[date]:
        """Yield the closed days whose work is done on the open `day`."""
        if self.if_closed is IfClosed.SKIP:
            return
        step = timedelta(days=1 if self.if_closed is IfClosed.BEFORE else -1)
        for _ in range(CLOSED_RUN_MAX):
            try:
                day += step
            except OverflowError:
                return
            if kept.is_open(day):
                return
            yield day
