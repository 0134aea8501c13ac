"""When a pair is due: pure functions over wall-clock instants.

Each pair has a grid: instants one interval apart, shifted by a phase that its names give. So probes are spread by
themselves, and whoever runs the engine finds the same instants. The row's `next_due_utc` says up to where the grid
has been walked. After a pause, however long, what is overdue runs once, at once, spread by a rate; then the grid
goes on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from futago.monitoring.model import Pair

ORIGIN = datetime(2020, 1, 1, tzinfo=UTC)
OVERDUE_PER_S = 2000  # how many overdue probes begin per second
SPREAD_PART = 2  # ... but all of them within interval / 2


def phase(pair: Pair, interval: timedelta) -> timedelta:
    """Return the pair's own shift within the interval."""
    digest = hashlib.blake2b(f"{pair.monitor}\0{pair.host}".encode(), digest_size=4).digest()
    return interval * (int.from_bytes(digest) / 2**32)


def next_on_grid(pair: Pair, interval: timedelta, after: datetime) -> datetime:
    """Return the first instant of the pair's grid that is later than `after`."""
    origin = ORIGIN + phase(pair, interval)
    return origin + ((after - origin) // interval + 1) * interval


def due(pair: Pair, interval: timedelta, *, row_due: datetime, now: datetime) -> datetime:
    """Return when the pair is to be probed next, given what its row says.

    A row that points further ahead than one interval was written by a clock that has since been set back, or for a
    longer
    interval: the grid from now on counts.
    """
    return row_due if row_due <= now + interval else next_on_grid(pair, interval, now)


def spread(waiting: Iterable[tuple[Pair, timedelta, datetime]], *, now: datetime) -> dict[Pair, datetime]:
    """Return when each pair begins. Who is overdue gets a place in a queue from now on; the others keep their
    instants.

    Args:
        waiting: pair, interval and `due`.
    """
    plan: dict[Pair, datetime] = {}
    overdue = 0
    for pair, interval, at in sorted(waiting, key=lambda w: (w[2], w[0])):
        if at > now:
            plan[pair] = at
            continue
        plan[pair] = now + min(timedelta(seconds=overdue / OVERDUE_PER_S), interval / SPREAD_PART)
        overdue += 1
    return plan
