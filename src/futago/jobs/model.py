"""The nouns of job control: nets, jobs, what a job waits for, the states of runs and sessions, events and transitions.

Pure data. A *net* is a definition, a *session* is one execution of it, a *run* is one execution of one of its jobs. A
`Tree` is a session as the decision sees it: the net, and the state of each job.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import NewType

from futago.link.orders import Outcome

JobName = NewType("JobName", str)
SessionId = NewType("SessionId", int)


class JobState(StrEnum):
    """Where a run stands. The last six are ends."""

    WAITING = "waiting"  # for its predecessors
    ORDERED = "ordered"  # its order is committed, and may have reached the agent
    RUNNING = "running"  # the agent has it on its disk
    NORMAL = "normal"
    WARNING = "warning"
    ABNORMAL = "abnormal"
    UNKNOWN = "unknown"  # it started, and nobody can know how it ended
    NOT_RUN = "not-run"  # what it waits for cannot come any more, or a person stopped it before its start
    SKIPPED = "skipped"  # a person left it out: those that wait for its success go on


ENDS = frozenset(
    {
        JobState.NORMAL,
        JobState.WARNING,
        JobState.ABNORMAL,
        JobState.UNKNOWN,
        JobState.NOT_RUN,
        JobState.SKIPPED,
    }
)
SUCCESS = frozenset({JobState.NORMAL, JobState.WARNING, JobState.SKIPPED})
AT_AGENT = frozenset({JobState.ORDERED, JobState.RUNNING})


class SessionState(StrEnum):
    """Where a session stands. The last four are ends: the worst of its jobs' ends."""

    STARTING = "starting"
    RUNNING = "running"
    NORMAL = "normal"
    WARNING = "warning"
    ABNORMAL = "abnormal"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Need:
    """A job waits until `job` has ended in one of `ends`."""

    job: JobName
    ends: frozenset[JobState] = SUCCESS


@dataclass(frozen=True, slots=True)
class Codes:
    """A set of exit codes: closed ranges."""

    ranges: tuple[tuple[int, int], ...] = ()

    def __contains__(self, code: int) -> bool:
        return any(low <= code <= high for low, high in self.ranges)


@dataclass(frozen=True, slots=True)
class Job:
    """One command on one host. It starts when every need is met. An exit code in neither set is abnormal."""

    name: JobName
    host: str
    command: str
    needs: tuple[Need, ...] = ()
    user: str = ""
    env: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    timeout_s: float = 0.0
    normal: Codes = Codes(((0, 0),))
    warning: Codes = Codes()


@dataclass(frozen=True, slots=True)
class Net:
    """A definition: its jobs in the order written, who waits for whom, and whom to notify of a bad end."""

    name: str
    jobs: Mapping[JobName, Job]
    followers: Mapping[JobName, tuple[JobName, ...]]
    notify: tuple[str, ...] = ()


def make_net(name: str, jobs: tuple[Job, ...], *, notify: tuple[str, ...] = ()) -> Net:
    """Return the net of these jobs. Names are unique and needs name jobs of the net: definitions.py has checked it."""
    followers: dict[JobName, list[JobName]] = {job.name: [] for job in jobs}
    for job in jobs:
        for need in job.needs:
            if job.name not in followers[need.job]:
                followers[need.job].append(job.name)
    return Net(name, {job.name: job for job in jobs}, {k: tuple(v) for k, v in followers.items()}, notify)


@dataclass(frozen=True, slots=True)
class Tree:
    """A session at one instant. `open_count`: jobs that have not come to an end. `held`: jobs that wait for a person's
    release, beside what else they wait for. `stopping`: jobs at an agent that a person wants ended.
    """

    session_id: SessionId
    net: Net
    state: SessionState
    states: Mapping[JobName, JobState]
    open_count: int
    held: frozenset[JobName] = frozenset()
    stopping: frozenset[JobName] = frozenset()


def make_tree(
    session_id: SessionId,
    net: Net,
    state: SessionState,
    states: Mapping[JobName, JobState],
    *,
    held: frozenset[JobName] = frozenset(),
    stopping: frozenset[JobName] = frozenset(),
) -> Tree:
    """Return the tree of a session whose jobs are in `states`."""
    open_count = sum(1 for s in states.values() if s not in ENDS)
    return Tree(session_id, net, state, dict(states), open_count, held, stopping)


# --- events -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Started:
    """The session is to begin."""


@dataclass(frozen=True, slots=True)
class Taken:
    """The agent has the order of this job on its disk."""

    job: JobName


@dataclass(frozen=True, slots=True)
class Ended:
    """The agent says how this job's run ended. `exit_code` None: it has none."""

    job: JobName
    outcome: Outcome
    exit_code: int | None = None


@dataclass(frozen=True, slots=True)
class Reread:
    """The tree was made anew from its rows. They may hold an end whose consequences are not there: two ends were
    committed apart, by boards that did not know of each other's.
    """


@dataclass(frozen=True, slots=True)
class NeverTaken:
    """The agent says that it has never seen the order of this job, after every order that was sent to it."""

    job: JobName


class Operation(StrEnum):
    """What a person may do to a running session."""

    HOLD = "hold"  # a waiting job does not start before its release
    RELEASE = "release"
    SKIP = "skip"  # a waiting job is left out, as if it had succeeded
    STOP = "stop"  # a job, or everything: what waits is not run, what runs is ended


@dataclass(frozen=True, slots=True)
class Operated:
    """A person operated on a job; `job` None (STOP only): on the whole session. To be fed only if `refusal` has nothing
    against it.
    """

    operation: Operation
    job: JobName | None
    by: str


Event = Started | Taken | NeverTaken | Ended | Reread | Operated


# --- transitions ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class JobMoved:
    """A job's run goes from one state to another. `why` is a sentence part for people, empty where it is evident."""

    job: JobName
    before: JobState
    to: JobState
    at: datetime
    why: str = ""


@dataclass(frozen=True, slots=True)
class SessionMoved:
    """The session goes from one state to another."""

    before: SessionState
    to: SessionState
    at: datetime


@dataclass(frozen=True, slots=True)
class JobMarked:
    """A job is held or released, or is to be ended; its state stays. None: as it was."""

    job: JobName
    is_held: bool | None = None
    is_stopping: bool | None = None


Transition = JobMoved | JobMarked | SessionMoved
