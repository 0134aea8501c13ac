"""Cron expressions of five fields in a time zone: when is one due? Pure; the present is an argument.

Daylight saving is as in Debian's cron: a fixed time that does not exist runs right after the jump, one that exists
twice runs once; intervals (``*`` in minutes or hours) follow the real time. Source: cronsim, which keeps to Debian's
cron.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

FIELDS = 5  # minute, hour, day of month, month, day of week


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
