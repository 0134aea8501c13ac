"""Instants at which something about a unit changes by itself. Pure; the present is an argument."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from futago.jobs.conditions import instants
from futago.jobs.model import AT_AGENT, NOT_BEGUN, JobName, JobState, Standing, Tree
from futago.jobs.plan import Elapsed, Limit, Pause, TimeIs, Unit, parts_of
from futago.jobs.timetable import instant


def is_timed(unit: Unit) -> bool:
    """Return whether anything about the unit may change by itself."""
    has_limit = unit.start_limit is not None or unit.end_limit is not None
    waits = isinstance(unit.work, Pause) or unit.retry is not None
    return has_limit or waits or any(isinstance(leaf, TimeIs | Elapsed) for leaf in parts_of(unit.start))


def next_due(tree: Tree, name: JobName, now: datetime) -> datetime | None:
    """Return the first instant after `now` at which `Due` may change something about the unit; None: there is none."""
    unit = tree.net.units[name]
    return min((at for at in _candidates(tree, unit, tree.standings[name]) if at > now), default=None)


def late_at(tree: Tree, unit: Unit, limit: Limit) -> datetime | None:
    """Return when the unit is late by this limit; None: that is not known yet."""
    standing = tree.standings[unit.name]
    found: list[datetime] = []
    if limit.offset is not None:
        found.append(instant(tree.day, limit.offset, ZoneInfo(tree.net.timezone)))
    if limit.elapsed is not None and tree.started_utc:
        found.append(tree.started_utc + limit.elapsed)
    if standing.begun_utc:
        if limit.length is not None:
            found.append(standing.begun_utc + limit.length)
        if limit.deviations is not None and unit.name in tree.typical_s:
            mean, deviation = tree.typical_s[unit.name]
            found.append(standing.begun_utc + timedelta(seconds=mean + limit.deviations * deviation))
    return min(found, default=None)


def limit_of(unit: Unit, standing: Standing) -> Limit | None:
    """Return the limit that holds for a unit that stands so."""
    if standing.state in NOT_BEGUN:
        return unit.start_limit if not standing.tries else None
    return unit.end_limit if standing.state in AT_AGENT else None


def pause_ends(unit: Unit, standing: Standing) -> datetime | None:
    """Return when a pause that has begun is over."""
    if not isinstance(unit.work, Pause) or standing.state is not JobState.RUNNING or not standing.begun_utc:
        return None
    return standing.begun_utc + unit.work.length


def _candidates(tree: Tree, unit: Unit, standing: Standing) -> Iterator[datetime]:
    if standing.state is JobState.WAITING:
        yield from instants(unit.start, tree)
        for higher in unit.above:
            yield from instants(tree.net.units[higher].start, tree)
    if standing.state is JobState.READY and standing.ready_utc:
        yield standing.ready_utc
    ends = pause_ends(unit, standing)
    if ends:
        yield ends
    limit = limit_of(unit, standing)
    late = late_at(tree, unit, limit) if limit and not standing.is_late else None
    if late:
        yield late
