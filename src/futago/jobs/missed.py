"""What is due now, and what to do about instants that were missed. Pure; the present is an argument.

A switch takes seconds: what became due meanwhile runs once, late. After a longer gap, everything of the last
`CATCH_UP` still runs, each instant once; of what is older, only the newest instant runs, and only if nothing newer
does (the nightly batch runs in the morning, but a job of every minute does not run a thousand times). What is left
out is said.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from futago.jobs.timetable import Planned, Timetable

CATCH_UP = timedelta(hours=1)
_LOOK_BACK = tuple(timedelta(days=d) for d in (1, 32, 366, 366 * 5))
INSTANTS_MAX = 100_000  # of one look back: every minute of two months; a guard, not a policy


@dataclass(frozen=True, slots=True)
class Due:
    """What is to be started now. `instants`: oldest first. `has_skipped`: older instants are left out for good."""

    instants: tuple[Planned, ...] = ()
    has_skipped: bool = False


def due(table: Timetable, *, since: datetime, now: datetime) -> Due:
    """Return what is due in (since, now], after the policy of missed instants. Both are aware."""
    since, now = since.astimezone(UTC), now.astimezone(UTC)
    first = next(table.after(since), None)
    if first is None or first.at_utc > now:
        return Due()
    recent = between(table, max(since, now - CATCH_UP), now)
    if not recent:
        recent = _newest(table, since, now - CATCH_UP)
    return Due(instants=recent, has_skipped=bool(recent) and first.at_utc < recent[0].at_utc)


def between(table: Timetable, since: datetime, until: datetime) -> tuple[Planned, ...]:
    """Return what is planned in (since, until], the first INSTANTS_MAX of it."""
    found: list[Planned] = []
    for planned in table.after(since):
        if planned.at_utc > until or len(found) >= INSTANTS_MAX:
            break
        found.append(planned)
    return tuple(found)


def _newest(table: Timetable, since: datetime, until: datetime) -> tuple[Planned, ...]:
    for span in _LOOK_BACK:
        found = between(table, max(since, until - span), until)
        if found or until - span <= since:
            return found[-1:]
    return ()
