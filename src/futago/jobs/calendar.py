"""When a schedule is due: cron expressions in a time zone, and what to do about instants that were missed. Pure; the
present is an argument.

The policy of missed instants. A switch takes seconds: what became due meanwhile runs once, late. After a longer gap,
everything of the last `CATCH_UP` still runs, each instant once; of what is older, only the newest instant runs, and
only if nothing newer does (the nightly batch runs in the morning, but a job of every minute does not run a thousand
times). What is left out is said.

Daylight saving is as in Debian's cron: a fixed time that does not exist runs right after the jump, one that exists
twice runs once; intervals (``*`` in minutes or hours) follow the real time. Source: cronsim, which keeps to Debian's
cron.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

CATCH_UP = timedelta(hours=1)
FIELDS = 5  # minute, hour, day of month, month, day of week
_LOOK_BACK = tuple(timedelta(days=d) for d in (1, 32, 366, 366 * 5))
INSTANTS_MAX = 100_000  # of one look back: every minute of two months; a guard, not a policy


@dataclass(frozen=True, slots=True)
class Due:
    """What is to be started now. `instants`: oldest first, in UTC. `has_skipped`: older instants are left out for
    good.
    """

    instants: tuple[datetime, ...] = ()
    has_skipped: bool = False


def check(cron: str) -> None:
    """Raise ValueError, with a sentence, if `cron` is not an expression of five fields."""
    if len(cron.split()) != FIELDS:
        raise ValueError(
            f"`{cron}` has {len(cron.split())} fields; write minute, hour, day of month, month, day of week"
        )
    try:
        CronSim(cron, datetime(2000, 1, 1, tzinfo=UTC))
    except CronSimError as e:
        raise ValueError(f"`{cron}`: {e}") from e


def instants_after(cron: str, zone: ZoneInfo, since: datetime) -> Iterator[datetime]:
    """Yield the due instants later than `since` (aware), in UTC, rising; ends where the expression has no more
    (within 50 years).
    """
    last = since.astimezone(UTC)
    try:
        for instant in CronSim(cron, since.astimezone(zone)):
            found = instant.astimezone(UTC)
            if found > last:  # on the night when an hour comes twice, the walk may begin a little too early
                last = found
                yield found
    except CronSimError:
        return


def next_after(cron: str, zone: ZoneInfo, since: datetime) -> datetime | None:
    """Return the first due instant later than `since`, in UTC; None if there is none."""
    return next(instants_after(cron, zone, since), None)


def due(cron: str, zone: ZoneInfo, *, since: datetime, now: datetime) -> Due:
    """Return what is due in (since, now], after the policy of missed instants."""
    since, now = since.astimezone(UTC), now.astimezone(UTC)
    first = next_after(cron, zone, since)
    if first is None or first > now:
        return Due()
    recent = _between(cron, zone, max(since, now - CATCH_UP), now)
    if not recent:
        recent = _newest(cron, zone, since, now - CATCH_UP)
    return Due(instants=recent, has_skipped=bool(recent) and first < recent[0])


def _between(cron: str, zone: ZoneInfo, since: datetime, until: datetime) -> tuple[datetime, ...]:
    found: list[datetime] = []
    for instant in instants_after(cron, zone, since):
        if instant > until or len(found) >= INSTANTS_MAX:
            break
        found.append(instant)
    return tuple(found)


def _newest(cron: str, zone: ZoneInfo, since: datetime, until: datetime) -> tuple[datetime, ...]:
    for span in _LOOK_BACK:
        found = _between(cron, zone, max(since, until - span), until)
        if found or until - span <= since:
            return found[-1:]
    return ()
