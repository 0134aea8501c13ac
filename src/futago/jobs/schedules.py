"""Schedules on the clock: which instants are due, each fired exactly once whoever is primary.

The instant is the key of the session it starts, so a second firing finds the first. How far a schedule has been dealt
with is a row, written in the same transaction; after a switch the next primary goes on there, and what was missed
runs late and says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from pydantic import ValidationError

from futago.jobs import store
from futago.jobs.calendar import Calendar
from futago.jobs.missed import Due, between, due
from futago.jobs.schedule_definitions import CalendarObject, Schedule
from futago.jobs.sessions import open_session
from futago.jobs.store import Connection, EventRow, ScheduleRow
from futago.jobs.timetable import Planned, Timetable
from futago.runtime.clock import now_utc
from futago.runtime.engine import EngineContext
from futago.runtime.faults import OperatorFault, WorldFault

ROUND_S = 1.0  # changes of schedules, and jumps of the clock, are seen within this time
FIRED_MAX = 100  # instants of one commit: the rest comes in the next, and others are not kept waiting
LATE = timedelta(seconds=10)  # more than this, and an event says so


@dataclass(frozen=True, slots=True)
class Known:
    """A schedule that can be read. `counted_utc`: its instants up to then have been dealt with."""

    schedule: Schedule
    table: Timetable
    counted_utc: datetime
    calendar: Calendar | None = None

    @property
    def key(self) -> tuple[object, ...]:
        """What the next start follows from."""
        return (self.schedule.model_dump_json(), self.calendar, self.counted_utc)


@dataclass(frozen=True, slots=True)
class Upcoming:
    """One start that will be made if nothing is changed meanwhile."""

    planned: Planned
    schedule: str
    job_net: str
    timezone: str


@dataclass(frozen=True, slots=True)
class Complaint:
    """Something that cannot be read: another version of the program wrote it. `job_net`: of a schedule; empty: a calendar."""

    text: str
    job_net: str = ""


async def read_known(conn: Connection) -> tuple[list[Known], list[Complaint]]:
    """Return the schedules, and a complaint about each that cannot be read."""
    rows, specs = await store.read_schedules(conn), await store.read_calendars(conn)
    known: list[Known] = []
    complaints: list[Complaint] = []
    calendars: dict[str, Calendar] = {}
    for name, spec in specs.items():
        try:
            calendars[name] = CalendarObject.model_validate(dict(spec)).calendar()
        except ValidationError as e:
            complaints.append(Complaint(f"calendar {name}: {e}"))
    for row in rows:
        try:
            known.append(_known(row, calendars))
        except (ValidationError, KeyError) as e:
            complaints.append(Complaint(f"schedule {row.name}: {e}", str(row.spec.get("job_net", ""))))
    return known, complaints


def _known(row: ScheduleRow, calendars: Mapping[str, Calendar]) -> Known:
    schedule = Schedule.model_validate(dict(row.spec))
    calendar = calendars[schedule.calendar] if schedule.calendar else None
    return Known(schedule, schedule.timetable(calendars), row.counted_utc, calendar)


def upcoming(known: list[Known], *, since: datetime, until: datetime, count_max: int) -> list[Upcoming]:
    """Return what the enabled schedules will start in (since, until], oldest first, `count_max` of it: by the same
    timetables that fire them.
    """
    found = [
        Upcoming(planned, k.schedule.name, k.schedule.job_net, k.schedule.timezone)
        for k in known
        if k.schedule.enabled
        for planned in between(k.table, max(since, k.counted_utc), until)[:count_max]
    ]
    return sorted(found, key=lambda u: (u.planned, u.schedule))[:count_max]


class Scheduler:
    """Fires what is due, until cancelled. `fired()` is called after each commit that started sessions."""

    def __init__(
        self, context: EngineContext, fired: Callable[[], None], *, now: Callable[[], datetime] = now_utc
    ) -> None:
        self._context = context
        self._fired = fired
        self._now = now
        self._log = context.log.bind(engine="schedules")
        # The first instant after what was counted, of each schedule: walking a timetable may take long where a calendar is
        # closed for long, and nothing of it changes from one second to the next.
        self._first: dict[tuple[object, ...], datetime | None] = {}

    async def run(self) -> None:
        """Work until cancelled. A failed round is made again."""
        while True:
            try:
                pause_s = await self.round()
            except WorldFault as e:  # what became of it stands in the rows, which the next round reads
                self._log.warning("schedules.round_failed", error=str(e))
                pause_s = ROUND_S
            await asyncio.sleep(pause_s)

    async def round(self) -> float:
        """Fire everything that is due; return after how many seconds to look again.

        Raises:
            Refused, Unknown: of the store.
        """
        now = self._now()
        pause = timedelta(seconds=ROUND_S)
        enabled = [k for k in await self._read() if k.schedule.enabled]
        before, self._first = self._first, {}
        for known in enabled:
            first = before[known.key] if known.key in before else await asyncio.to_thread(_first, known)
            if first is not None and first <= now:
                found = await asyncio.to_thread(due, known.table, since=known.counted_utc, now=now)
                await self._fire(known.schedule, Due(found.instants[:FIRED_MAX], found.has_skipped), now)
                pause = timedelta(0)  # what comes next follows from what is counted now
                continue
            self._first[known.key] = first
            if first is not None:
                pause = min(pause, first - now)
        return pause.total_seconds()

    async def _read(self) -> list[Known]:
        known, complaints = await self._context.store.read(read_known, name="jobs.schedules")
        for complaint in complaints:
            self._log.error("schedules.unreadable", error=complaint.text)
        return known

    async def _fire(self, schedule: Schedule, found: Due, now: datetime) -> None:
        async def write(conn: Connection) -> int:
            opened = [await self._open(conn, schedule, instant) for instant in found.instants]
            await store.count_schedule(conn, schedule.name, found.instants[-1].at_utc)
            if any(opened):
                await self._tell(conn, schedule, _events(schedule, found, now))
            return sum(opened)

        try:
            count = await self._context.store.commit(write, name="jobs.fire")
        except OperatorFault as e:  # the net is gone: the instants are dealt with, and people are told
            await self._complain(schedule, found, e)
            return
        self._log.event(
            "schedule.fired", schedule=schedule.name, sessions=count, instants=[str(i.at_utc) for i in found.instants]
        )
        self._fired()

    async def _open(self, conn: Connection, schedule: Schedule, planned: Planned) -> bool:
        opened = await open_session(
            conn,
            schedule.job_net,
            trigger=f"schedule {schedule.name}",
            trigger_key=f"schedule:{schedule.name}:{planned.at_utc.isoformat()}",
            business_date=planned.business_date,
        )
        return opened.is_new

    async def _complain(self, schedule: Schedule, found: Due, why: OperatorFault) -> None:
        event = EventRow(
            occurred_utc=self._now(),
            priority="critical",
            host_name=None,
            message=f"Schedule {schedule.name} could not start anything: {why.what}",
            detail={"schedule": schedule.name, "instants": [i.at_utc.isoformat() for i in found.instants]},
        )

        async def write(conn: Connection) -> None:
            await store.count_schedule(conn, schedule.name, found.instants[-1].at_utc)
            await self._tell(conn, schedule, [event])

        await self._context.store.commit(write, name="jobs.fire_failed")

    async def _tell(self, conn: Connection, schedule: Schedule, events: list[EventRow]) -> None:
        """Write events of a schedule, as those of whoever owns its net."""
        owner = await store.net_owner(conn, schedule.job_net) if events else None
        await store.add_events(conn, [replace(e, owner=owner or "") for e in events], epoch=self._context.epoch)


def _first(known: Known) -> datetime | None:
    planned = next(known.table.after(known.counted_utc), None)
    return planned.at_utc if planned else None


def _events(schedule: Schedule, found: Due, now: datetime) -> list[EventRow]:
    """Return what people should know about instants that run late, or not at all."""
    late = [i.at_utc for i in found.instants if now - i.at_utc > LATE]
    events = []
    if late:
        seconds = (now - late[0]).total_seconds()
        text = f"Schedule {schedule.name} starts {schedule.job_net} late: {len(late)} due instants, the oldest {seconds:.0f} s ago"
        events.append(_event("info", text, schedule, late, now))
    if found.has_skipped:
        text = f"Schedule {schedule.name} leaves out instants before {found.instants[0].at_utc.isoformat()}: they were missed too long ago"
        events.append(_event("warning", text, schedule, [], now))
    return events


def _event(priority: str, text: str, schedule: Schedule, instants: list[datetime], now: datetime) -> EventRow:
    detail = {"schedule": schedule.name, "net": schedule.job_net, "instants": [i.isoformat() for i in instants]}
    return EventRow(occurred_utc=now, priority=priority, host_name=None, message=text, detail=detail)
