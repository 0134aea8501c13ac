"""Schedules: what they are, and the starts that they will make."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Query

from futago.access.model import Principal
from futago.jobs.schedules import Complaint, Known, read_known, upcoming
from futago.runtime.clock import now_utc
from futago.store.commit import Connection
from futago.web.allow import SCHEMES, Reader
from futago.web.job_model import PlannedStart, Schedule, Schedules, Upcoming
from futago.web.owners import hidden_nets
from futago.web.rooms import InRooms, Rooms

router = APIRouter(tags=["jobs"], dependencies=SCHEMES)

DAYS_MAX = 400
STARTS_MAX = 5000


@router.get("/schedules")
async def schedules(rooms: InRooms, who: Reader) -> Schedules:
    """Return all schedules, each with its next start."""
    known, complaints = await _known(rooms, who)
    now = now_utc()
    found = []
    for one in known:
        following = next(one.table.after(max(now, one.counted_utc)), None) if one.schedule.enabled else None
        found.append(
            Schedule(
                schedule_name=one.schedule.name,
                job_net=one.schedule.job_net,
                enabled=one.schedule.enabled,
                timezone=one.schedule.timezone,
                next_utc=following.at_utc if following else None,
                spec=one.schedule.model_dump(mode="json", exclude_defaults=True),
            )
        )
    return Schedules(schedules=found, unreadable=[complaint.text for complaint in complaints])


@router.get("/schedules/upcoming")
async def starts(
    rooms: InRooms,
    who: Reader,
    days: Annotated[int, Query(ge=1, le=DAYS_MAX)] = 7,
    limit: Annotated[int, Query(ge=1, le=STARTS_MAX)] = 500,
) -> Upcoming:
    """Return the starts of the next days, oldest first: by the same timetables that make them."""
    known, _ = await _known(rooms, who)
    now = now_utc()
    until = now + timedelta(days=days)
    found = upcoming(known, since=now, until=until, count_max=limit + 1)
    return Upcoming(
        until_utc=until,
        is_complete=len(found) <= limit,
        starts=[
            PlannedStart(
                at_utc=u.planned.at_utc,
                business_date=u.planned.business_date,
                schedule_name=u.schedule,
                job_net=u.job_net,
                timezone=u.timezone,
            )
            for u in found[:limit]
        ],
    )


async def _known(rooms: Rooms, who: Principal) -> tuple[list[Known], list[Complaint]]:
    """Return the schedules of nets that `who` has a part in, and complaints about those that cannot be read."""

    async def work(conn: Connection) -> tuple[list[Known], list[Complaint]]:
        known, complaints = await read_known(conn)
        hidden = await hidden_nets(conn, who)
        return [k for k in known if k.schedule.job_net not in hidden], [
            c for c in complaints if c.job_net not in hidden
        ]

    return await rooms.serving.require().store.read(work, name="web.schedules")
