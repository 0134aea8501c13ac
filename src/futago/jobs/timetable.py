"""When a schedule is due: a timetable yields instants, each with the business date it belongs to. Pure.

Two kinds: a cron expression, and days with times. The times of a business date may run past midnight, as night
batches are planned: 25:30 of the 3rd is half past one on the 4th. Where the business date changes at a set hour
(`day_begins`), an earlier time of day belongs to the evening before: with 05:00, the 01:30 of the 3rd is in the night
from the 3rd to the 4th.

Daylight saving: a time of day that does not exist is due right after the jump; one that exists twice is due the
first time, once; `every` follows the real time from the first instant of the day to the last.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Protocol
from zoneinfo import ZoneInfo

from futago.jobs import cron
from futago.jobs.calendar import EVERY_DAY, Calendar, Days, IfClosed

DAY = timedelta(days=1)
TIME_MAX = timedelta(hours=48)  # a time of a business date lies before this
LOOK_AHEAD = timedelta(days=366 * 9)  # a leap day on which a calendar is open comes within that, or is not waited for


@dataclass(frozen=True, slots=True, order=True)
class Planned:
    """One instant, and the business date that it belongs to."""

    at_utc: datetime
    business_date: date


class Timetable(Protocol):
    """What every kind of timetable offers."""

    def after(self, since: datetime) -> Iterator[Planned]:
        """Yield what is planned later than `since` (aware), rising, without end or until nothing more can come."""
        ...


@dataclass(frozen=True, slots=True)
class CronTable:
    """A cron expression. On days on which the calendar is closed it is due only if `if_closed` is RUN."""

    expression: str
    zone: ZoneInfo
    kept: Calendar = EVERY_DAY
    if_closed: IfClosed = IfClosed.RUN

    def after(self, since: datetime) -> Iterator[Planned]:
        """Yield what is planned later than `since`."""
        give_up = since.astimezone(UTC) + LOOK_AHEAD
        closed: date | None = None
        while True:
            for at in cron.instants_after(self.expression, self.zone, since):
                day = at.astimezone(self.zone).date()
                if self.if_closed is IfClosed.RUN or self.kept.is_open(day):
                    give_up = at + LOOK_AHEAD
                    yield Planned(at, day)
                elif at <= give_up:
                    closed = day
                    break  # the rest of a closed day is not walked
                else:
                    return
            else:
                return
            since = instant(closed + DAY, timedelta(0), self.zone) - timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Every:
    """At `first`, then at every `step` of real time, up to and including `last`: offsets as in `DayTable.times`."""

    step: timedelta
    first: timedelta
    last: timedelta


@dataclass(frozen=True, slots=True)
class DayTable:
    """Times of chosen days. `times`: offsets from midnight of the business date, rising, below TIME_MAX."""

    days: Days
    zone: ZoneInfo
    times: tuple[timedelta, ...] = ()
    every: Every | None = None
    kept: Calendar = EVERY_DAY

    def after(self, since: datetime) -> Iterator[Planned]:
        """Yield what is planned later than `since`."""
        day = since.astimezone(self.zone).date() - DAY * (self._longest() // DAY + 1)
        last_found = day + LOOK_AHEAD
        waiting: list[Planned] = []
        last = since.astimezone(UTC)
        while day <= last_found:
            if self.days.has(day, self.kept):
                waiting = sorted({*waiting, *self._of(day, last)})
                last_found = day + LOOK_AHEAD
            day += DAY
            border = instant(day, timedelta(0), self.zone)  # nothing of the days to come lies before it
            while waiting and waiting[0].at_utc < border:
                planned = waiting.pop(0)
                if planned.at_utc > last:  # two times of day may fall on one instant: after a jump of the clock
                    last = planned.at_utc
                    yield planned

    def _longest(self) -> timedelta:
        return max((*self.times, self.every.last if self.every else timedelta(0)))

    def _of(self, day: date, since: datetime) -> Iterator[Planned]:
        for offset in self.times:
            yield Planned(instant(day, offset, self.zone), day)
        if self.every is not None:
            at, last = instant(day, self.every.first, self.zone), instant(day, self.every.last, self.zone)
            at += self.every.step * max(0, (since - at) // self.every.step)  # what lies before `since` is not walked
            while at <= last:
                yield Planned(at, day)
                at += self.every.step


def instant(day: date, offset: timedelta, zone: ZoneInfo) -> datetime:
    """Return when `offset` past midnight of `day` is shown by the clocks of `zone`: an instant in UTC.

    A time that is jumped over is the instant of the jump; of a time that is shown twice, the first.
    """
    wall = datetime.combine(day, time()) + offset
    at = wall.replace(tzinfo=zone, fold=0).astimezone(UTC)
    shown = at.astimezone(zone).replace(tzinfo=None)
    if shown == wall:
        return at
    before = wall.replace(tzinfo=zone, fold=1).astimezone(UTC)  # by the offset that holds after the jump
    return _jump(before, at, zone)


def _jump(before: datetime, after: datetime, zone: ZoneInfo) -> datetime:
    """Return the first instant in (before, after] at which the zone's offset is that of `after`, to the second."""
    new = after.astimezone(zone).utcoffset()
    while after - before > timedelta(seconds=1):
        middle = before + (after - before) // 2
        if middle.astimezone(zone).utcoffset() == new:
            after = middle
        else:
            before = middle
    return after.replace(microsecond=0)
