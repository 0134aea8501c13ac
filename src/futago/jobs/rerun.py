"""Which jobs of an ended session run again, from a point that a person chooses. Pure.

A job that runs again takes everything that waits for it with it, whatever that had come to: their conditions are
decided anew. What lies before the point, or beside it, keeps its result.
"""

from __future__ import annotations

from collections.abc import Mapping

from futago.jobs.model import ENDS, JobName, JobState, Net

FAILED = frozenset({JobState.ABNORMAL, JobState.UNKNOWN})


def jobs_again(net: Net, states: Mapping[JobName, JobState], job: JobName | None) -> frozenset[JobName]:
    """Return the jobs that run again.

    Args:
        net: the definition that the session keeps.
        states: of every job, each an end.
        job: from this one on; None: from every job that failed, and every one that a person stopped before its start.

    Raises:
        ValueError: with a sentence: it has no meaning.
    """
    assert all(state in ENDS for state in states.values())
    if job is None:
        first = [name for name, state in states.items() if state in FAILED or _was_stopped(net, states, name)]
        if not first:
            raise ValueError("No job of the run has failed; name the one to begin with.")
    else:
        if job not in states:
            raise ValueError(f"The run has no job `{job}`.")
        first = [job]
        for need in net.jobs[job].needs:
            if states[need.job] not in need.ends:
                raise ValueError(f"`{job}` waits for `{need.job}`, which ended {states[need.job]}; begin there.")
    again = set(first)
    queue = list(first)
    while queue:
        fresh = [f for f in net.followers[queue.pop()] if f not in again]
        again.update(fresh)
        queue += fresh
    return frozenset(again)


def _was_stopped(net: Net, states: Mapping[JobName, JobState], name: JobName) -> bool:
    """Whether it was not run though everything that it waits for had come."""
    is_met = all(states[need.job] in need.ends for need in net.jobs[name].needs)
    return states[name] is JobState.NOT_RUN and is_met
