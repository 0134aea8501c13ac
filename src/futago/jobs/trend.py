"""How long things take, and whether that changes; which jobs decided how long a session took. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median

RECENT_SHARE = 4  # the newest quarter is compared with what lies before
FEWEST = 4  # below so many values there is no trend to speak of


@dataclass(frozen=True, slots=True)
class Trend:
    """What a series of durations says, seconds. `change`: the median of the newest quarter against that of the rest, 0.5
    for half as long again; None where there are fewer than FEWEST values, or the rest took no time.
    """

    count: int
    last_s: float
    median_s: float
    p95_s: float
    max_s: float
    change: float | None


def trend(seconds: Sequence[float]) -> Trend | None:
    """Return what durations say, oldest first; None of no durations."""
    if not seconds:
        return None
    ordered = sorted(seconds)
    recent = max(1, len(seconds) // RECENT_SHARE)
    before = median(seconds[:-recent]) if len(seconds) >= FEWEST else 0.0
    return Trend(
        count=len(seconds),
        last_s=seconds[-1],
        median_s=median(ordered),
        p95_s=ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))],
        max_s=ordered[-1],
        change=median(seconds[-recent:]) / before - 1.0 if before > 0 else None,
    )


def through_nets(
    waits_for: Mapping[str, Sequence[str]], children: Mapping[str, Sequence[str]]
) -> dict[str, Sequence[str]]:
    """Return what decides when each unit of a tree can end: of a net its own jobs, of a job that waits for none beside it
    what its net waits for.

    Args:
        waits_for: the predecessors of each unit.
        children: what is in each net.
    """
    parent = {child: net for net, inside in children.items() for child in inside}

    def before(unit: str) -> Sequence[str]:
        at: str | None = unit
        while at is not None:
            if waits_for.get(at):
                return waits_for[at]
            at = parent.get(at)
        return ()

    return {unit: children.get(unit) or before(unit) for unit in {*waits_for, *children, *parent}}


def critical_path(
    waits_for: Mapping[str, Sequence[str]], ended_utc: Mapping[str, datetime | None], last: str | None = None
) -> list[str]:
    """Return the jobs that decided when everything was done, first to last: from the job that ended last, back along
    whichever predecessor ended last.

    Args:
        waits_for: the predecessors of each job.
        ended_utc: when each job ended; None or missing: it has not, or never began.
        last: begin with this job; default: the one that ended last.
    """

    def latest(names: Sequence[str]) -> str | None:
        ended = [(at, name) for name in names if (at := ended_utc.get(name)) is not None]
        return max(ended)[1] if ended else None

    path: list[str] = []
    at = last or latest(list(ended_utc))
    while at is not None and at not in path:
        path.append(at)
        at = latest(waits_for.get(at, ()))
    return path[::-1]
