"""Calendar and Schedule as people write them in YAML: checked objects, and how they become timetables.

    kind: Calendar                         kind: Schedule
    name: bank                             name: nightly
    country: JP                            job_net: nightly
    weekdays: [mon, tue, wed, thu, fri]    timezone: Asia/Tokyo
    closed: [12-31, 01-02, 01-03]          calendar: bank
                                           days: [last business]
                                           at: ["25:30"]

A schedule says either `cron`, or `days` with `at` or `every`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, model_validator

from futago.inventory.duration import Duration
from futago.inventory.model import Kind, Name, Object, Reference
from futago.jobs import cron
from futago.jobs.calendar import EVERY_DAY, WEEKDAYS, Calendar, Days, IfClosed, check_country, read_days, read_term
from futago.jobs.timetable import DAY, TIME_MAX, CronTable, DayTable, Every, Timetable

TERMS_MAX = 100
TIMES_MAX = 500
STEP_MIN = timedelta(seconds=1)
_TIME = re.compile(r"(\d\d):(\d\d)(?::(\d\d))?\Z")

WeekdayField = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as e:
        raise ValueError(f"`{name}` is not a time zone; write such as Asia/Tokyo or UTC") from e
    return name


def _cron(text: str) -> str:
    cron.check(text)
    return " ".join(text.split())


def _term(text: str) -> str:
    read_term(text)
    return " ".join(text.lower().split())


def _day(value: object) -> str:
    text = str(value)  # YAML reads 2026-12-31 as a date
    read_days([text])
    return text


def _time(value: object) -> str:
    if isinstance(value, int):  # YAML reads 25:30 as a number of minutes in base sixty
        raise ValueError(f'{value} is not a time of day; write it in quotes, such as "25:30"')
    offset_of(str(value))
    return str(value)


def offset_of(text: str) -> timedelta:
    """Return the offset from midnight that a time of day writes, beyond 24:00 too.

    Raises:
        ValueError: with a sentence.
    """
    found = _TIME.match(text)
    hours, minutes, seconds = (int(part or 0) for part in found.groups()) if found else (99, 0, 0)
    offset = timedelta(hours=hours, minutes=minutes, seconds=seconds)
    if minutes > 59 or seconds > 59 or offset >= TIME_MAX:
        raise ValueError(f'`{text}` is not a time; write "00:00" to "47:59": beyond 24:00 is the day after')
    return offset


def _as_list(value: object) -> object:
    return value if isinstance(value, list) else [value]


Zone = Annotated[str, AfterValidator(_zone)]
DayField = Annotated[str, BeforeValidator(_day)]
TermField = Annotated[str, BeforeValidator(str), StringConstraints(max_length=40), AfterValidator(_term)]
Terms = Annotated[list[TermField], BeforeValidator(_as_list), Field(max_length=TERMS_MAX)]
TimeField = Annotated[str, BeforeValidator(_time)]
Month = Annotated[int, Field(ge=1, le=12)]


class CalendarObject(Object):
    """Which days are business days. A day is open if it is in `open`; else closed if it is in `closed`, not one of
    `weekdays`, or a public holiday of `country`. Nets and schedules of any owner role may name it; `owner` says who sees its
    definition.
    """

    name: Name
    owner: Name | None = None
    country: Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$")] | None = None
    region: Annotated[str, StringConstraints(max_length=40)] | None = None
    weekdays: list[WeekdayField] = Field(
        default=["mon", "tue", "wed", "thu", "fri", "sat", "sun"], min_length=1, max_length=7
    )
    open: list[DayField] = Field(default=[], max_length=10_000)
    closed: list[DayField] = Field(default=[], max_length=10_000)

    @model_validator(mode="after")
    def _is_known(self) -> CalendarObject:
        if self.country:
            check_country(self.country, self.region or "")
        elif self.region:
            raise ValueError("`region` says nothing without `country`")
        return self

    def calendar(self) -> Calendar:
        """Return it as the timetables see it."""
        return Calendar(
            weekdays=frozenset(WEEKDAYS.index(w) for w in self.weekdays),
            country=self.country or "",
            region=self.region or "",
            opened=read_days(self.open),
            closed=read_days(self.closed),
        )


class Between(Object):
    """The first and the last instant of `every`."""

    first: TimeField = Field(alias="from")
    last: TimeField = Field(alias="to")


class Schedule(Object):
    """When to start a net by itself.

    `days` (all, if it is not written) without `but`, in `months`; `at` these times of the business date, or `every` so
    often, `between` two times (the whole day, if it is not written). `if_closed`: what becomes of a day on which
    `calendar` is closed: skip (if a calendar is named), run, before, after. `day_begins`: the hour at which the
    business date changes; an earlier time of day belongs to the evening before.
    """

    name: Name
    job_net: Name
    cron: Annotated[str, StringConstraints(max_length=200), AfterValidator(_cron)] | None = None
    days: Terms | None = None
    but: Terms = Field(default=[])
    months: list[Month] = Field(default=[], max_length=12)
    at: Annotated[list[TimeField], BeforeValidator(_as_list), Field(min_length=1, max_length=TIMES_MAX)] | None = None
    every: Duration | None = None
    between: Between | None = None
    day_begins: TimeField = "00:00"
    calendar: Name | None = None
    if_closed: IfClosed | None = None
    timezone: Zone = "UTC"
    enabled: bool = True

    @model_validator(mode="after")
    def _is_one_kind(self) -> Schedule:
        chosen = [f for f in ("cron", "at", "every") if getattr(self, f) is not None]
        if len(chosen) != 1:
            raise ValueError("write one of `cron`, `at` and `every`" + (f", not {' and '.join(chosen)}" * bool(chosen)))
        if self.cron and (self.days or self.but or self.months or self.between or self.day_begins != "00:00"):
            raise ValueError(
                "`cron` chooses days and times itself: no `days`, `but`, `months`, `between`, `day_begins`"
            )
        if self.between and not self.every:
            raise ValueError("`between` belongs to `every`")
        if self.if_closed and not self.calendar:
            raise ValueError("`if_closed` needs a `calendar`")
        if self.cron and self.if_closed in (IfClosed.BEFORE, IfClosed.AFTER):
            raise ValueError("with `cron`, `if_closed` is skip or run: write `days` and `at` to move days")
        return self._check_times()

    def _check_times(self) -> Schedule:
        if offset_of(self.day_begins) >= DAY:
            raise ValueError("`day_begins` is a time of day below 24:00")
        if self.every is not None and self.every < STEP_MIN:
            raise ValueError("`every` is shorter than 1s")
        if self.between and self._past_midnight(self.between.first) > self._past_midnight(self.between.last):
            raise ValueError('`between` ends before it begins; the day after is beyond "24:00"')
        return self

    def references(self) -> Iterator[Reference]:
        """Yield the net and the calendar."""
        yield Reference(Kind.JOB_NET, self.job_net, ("job_net",))
        if self.calendar:
            yield Reference(Kind.CALENDAR, self.calendar, ("calendar",))

    def zone(self) -> ZoneInfo:
        """Return the time zone."""
        return ZoneInfo(self.timezone)

    def timetable(self, calendars: Mapping[str, Calendar]) -> Timetable:
        """Return when it is due.

        Args:
            calendars: by name; must hold the one that is named.

        Raises:
            KeyError: it does not.
        """
        kept = calendars[self.calendar] if self.calendar else EVERY_DAY
        if_closed = self.if_closed or (IfClosed.SKIP if self.calendar else IfClosed.RUN)
        if self.cron:
            return CronTable(self.cron, self.zone(), kept, if_closed)
        days = Days(
            terms=tuple(read_term(t) for t in self.days or ["day"]),
            but=tuple(read_term(t) for t in self.but),
            months=frozenset(self.months),
            if_closed=if_closed,
        )
        times = tuple(sorted({self._past_midnight(t) for t in self.at or []}))
        return DayTable(days, self.zone(), times=times, every=self._every(), kept=kept)

    def _every(self) -> Every | None:
        if self.every is None:
            return None
        if self.between:
            return Every(self.every, self._past_midnight(self.between.first), self._past_midnight(self.between.last))
        first = offset_of(self.day_begins)
        return Every(self.every, first, first + DAY - STEP_MIN)

    def _past_midnight(self, text: str) -> timedelta:
        """Return the offset from midnight of the business date."""
        offset = offset_of(text)
        return offset + DAY if offset < offset_of(self.day_begins) else offset
