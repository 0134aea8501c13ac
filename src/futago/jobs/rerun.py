"""Which jobs of an ended session run again, from a point that a person chooses. Pure.

A job that runs again takes everything that waits for it with it, whatever that had come to: their conditions are
decided anew. What lies before the point, or beside it, keeps its result. The nets around it go on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from futago.jobs.conditions import holds, why_not
from futago.jobs.model import ENDS, ROOT, JobName, JobState, Tree
from futago.jobs.plan import Net, SubNet, inside

FAILED = frozenset({JobState.ABNORMAL, JobState.UNKNOWN})


@dataclass(frozen=True, slots=True)
class Again:
    """`jobs` wait anew, and `around` are the nets that they are in: they have begun."""

    jobs: frozenset[JobName]
    around: frozenset[JobName]


def jobs_again(tree: Tree, job: JobName | None, now: datetime) -> Again:
    """Return what runs again.

    Args:
        tree: of a session whose every unit has ended.
        job: from this one on; None: from every job that failed, and every one that a person stopped before its start.

    Raises:
        ValueError: with a sentence: it has no meaning.
    """
    assert all(s.state in ENDS for s in tree.standings.values())
    if job is None:
        first = [name for name in tree.net.units if _has_failed(tree, name, now)]
        if not first:
            raise ValueError("No job of the run has failed; name the one to begin with.")
    else:
        if job not in tree.standings:
            raise ValueError(f"The run has no job `{job}`.")
        first = [job]
        for name in (*around(tree.net, job), job):
            start = tree.net.units[name].start
            if holds(start, tree, now) is False:
                raise ValueError(f"`{name}` cannot start, for {why_not(start, tree, now)}; begin there.")
    jobs = _with_followers(tree.net, first)
    return Again(jobs, frozenset(n for name in jobs for n in around(tree.net, name)) - jobs)


def around(net: Net, name: JobName) -> tuple[JobName, ...]:
    """Return the nets around a unit, the nearest first."""
    return tuple(_around(net, name))


def _around(net: Net, name: JobName) -> Iterator[JobName]:
    while (name := net.units[name].parent) != ROOT:
        yield name


def _with_followers(net: Net, first: list[JobName]) -> frozenset[JobName]:
    again: set[JobName] = set()
    ending: set[JobName] = set()  # nets that end anew, so whoever waits for them is decided anew
    queue = list(first)
    while queue:
        name = queue.pop()
        if name in again:
            continue
        again.add(name)
        queue += [*inside(net, name), *net.followers[name]]
        for outer in around(net, name):
            if outer not in ending:
                ending.add(outer)
                queue += net.followers[outer]
    return frozenset(again)


def _has_failed(tree: Tree, name: JobName, now: datetime) -> bool:
    """Whether it failed itself, or was not run though everything that it waits for had come."""
    standing, unit = tree.standings[name], tree.net.units[name]
    if isinstance(unit.work, SubNet) and standing.begun_utc is not None:
        return False  # what failed in it did
    if standing.state in FAILED:
        return True
    was_stopped = standing.is_stopping or (
        unit.parent == ROOT and holds(unit.start, tree, now) is True and not unit.above
    )
    return standing.state is JobState.NOT_RUN and was_stopped
