"""The nouns of a running session: states, the tree as the decision sees it, events and transitions.

Pure data. A *net* is a definition (plan.py), a *session* is one execution of it, a *unit* is a net or a job inside it,
a *run* is one attempt of a unit. A `Tree` is a session at one instant: the plan, and where each unit stands.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, NewType

from futago.link.orders import Outcome

if TYPE_CHECKING:
    from futago.jobs.plan import Net

JobName = NewType("JobName", str)  # a path inside the net: `load`, `load/extract`
SessionId = NewType("SessionId", int)
ROOT = JobName("")  # the session's own net


class JobState(StrEnum):
    """Where a unit stands. The last six are ends. A net knows waiting, running and the ends only."""

    WAITING = "waiting"  # for its conditions, a release, or the net around it
    READY = "ready"  # it may start: at an instant (a retry), or as soon as its queue has a place
    ORDERED = "ordered"  # its order is committed, and may have reached the agent
    RUNNING = "running"  # the agent has it on its disk; or the manager itself is at it
    NORMAL = "normal"
    WARNING = "warning"
    ABNORMAL = "abnormal"
    UNKNOWN = "unknown"  # it started, and nobody can know how it ended
    NOT_RUN = "not-run"  # what it waits for cannot come any more, or a person stopped it before its start
    SKIPPED = "skipped"  # it was left out: those that wait for its success go on


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
AT_AGENT = frozenset({JobState.ORDERED, JobState.RUNNING})  # of a command: its agent may have it
NOT_BEGUN = frozenset({JobState.WAITING, JobState.READY})


class SessionState(StrEnum):
    """Where a session stands. The last four are ends: the worst of its units' ends."""

    STARTING = "starting"
    RUNNING = "running"
    NORMAL = "normal"
    WARNING = "warning"
    ABNORMAL = "abnormal"
    UNKNOWN = "unknown"


OPEN_SESSION = frozenset({SessionState.STARTING, SessionState.RUNNING})


@dataclass(frozen=True, slots=True)
class Ask:
    """The newest session of another net: of the same day, or (`within`) begun at most so long before this one."""

    net: str
    within: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """Where one unit stands. Instants are the manager's.

    `value`: its end value (of a command: the exit code). `tries`: how often it has been tried again. `ready_utc`: of
    READY, not before then. `begun_utc`: when it was ordered or began to run.
    """

    state: JobState = JobState.WAITING
    value: int | None = None
    tries: int = 0
    ready_utc: datetime | None = None
    begun_utc: datetime | None = None
    is_held: bool = False  # it waits for a person's release, beside what else it waits for
    is_stopping: bool = False  # it is to be ended; or, not run, a person stopped it
    is_suspended: bool = False  # of a net: nothing in it begins
    is_late: bool = False  # its delay has been dealt with: of its start before it began, else of its end
    is_stuck: bool = False  # its conditions cannot be met, and it waits for a person


@dataclass(slots=True)
class Tree:
    """A session at one instant. `open`: how many children of each net have not ended; ROOT is the session.

    `day`: whose work it is. `shut`: calendars of the plan that are closed on that day. `others`: how the sessions of
    other nets stand that conditions ask about, None: there is none. `typical_s`: mean and deviation of past durations.
    """

    session_id: SessionId
    net: Net
    state: SessionState
    standings: MutableMapping[JobName, Standing]
    open: MutableMapping[JobName, int]
    day: date = date(1970, 1, 1)
    started_utc: datetime | None = None
    is_suspended: bool = False
    variables: MutableMapping[str, str] = field(default_factory=dict)
    shut: frozenset[str] = frozenset()
    others: MutableMapping[Ask, SessionState | None] = field(default_factory=dict)
    typical_s: Mapping[JobName, tuple[float, float]] = field(default_factory=dict)

    @property
    def states(self) -> dict[JobName, JobState]:
        """The state of every unit."""
        return {name: s.state for name, s in self.standings.items()}

    @property
    def open_count(self) -> int:
        """How many units have not ended."""
        return sum(1 for s in self.standings.values() if s.state not in ENDS)

    @property
    def held(self) -> frozenset[JobName]:
        return frozenset(name for name, s in self.standings.items() if s.is_held)

    @property
    def stopping(self) -> frozenset[JobName]:
        """The units that are to be ended."""
        return frozenset(name for name, s in self.standings.items() if s.is_stopping and s.state not in ENDS)

    def overlay(self) -> Tree:
        """Return a tree that begins as this one, and whose changes leave this one as it is."""
        return replace(
            self,
            standings=ChainMap({}, self.standings),
            open=ChainMap({}, self.open),
            variables=ChainMap({}, self.variables),
            others=ChainMap({}, self.others),
        )


def make_tree(
    session_id: SessionId,
    net: Net,
    state: SessionState,
    states: Mapping[JobName, JobState | Standing],
    *,
    started_utc: datetime | None = None,
    day: date = date(1970, 1, 1),
    is_suspended: bool = False,
    variables: Mapping[str, str] | None = None,
    shut: frozenset[str] = frozenset(),
    typical_s: Mapping[JobName, tuple[float, float]] | None = None,
) -> Tree:
    """Return the tree of a session whose units stand so."""
    standings = {n: s if isinstance(s, Standing) else Standing(s) for n, s in states.items()}
    count = {parent: sum(1 for c in kids if standings[c].state not in ENDS) for parent, kids in net.children.items()}
    return Tree(
        session_id,
        net,
        state,
        standings,
        count,
        started_utc=started_utc,
        day=day,
        is_suspended=is_suspended,
        variables=dict(variables or {}),
        shut=shut,
        others=dict.fromkeys(net.asks),
        typical_s=typical_s or {},
    )


# --- events -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Started:
    """The session is to begin."""


@dataclass(frozen=True, slots=True)
class Taken:
    """The agent has the order of this job on its disk; or the manager has begun with it."""

    job: JobName


@dataclass(frozen=True, slots=True)
class Ended:
    """How this job's run ended. `exit_code` None: it has none. `said`: the variables that its output sets."""

    job: JobName
    outcome: Outcome
    exit_code: int | None = None
    said: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reread:
    """The tree was made anew from its rows. They may hold an end whose consequences are not there: two ends were
    committed apart, by boards that did not know of each other's.
    """


@dataclass(frozen=True, slots=True)
class NeverTaken:
    """The agent says that it has never seen the order of this job, after every order that was sent to it."""

    job: JobName


@dataclass(frozen=True, slots=True)
class Due:
    """An instant may have come at which something about this unit changes (`timing.next_due`)."""

    job: JobName


@dataclass(frozen=True, slots=True)
class Admitted:
    """The queue of this READY job has a place for it."""

    job: JobName


@dataclass(frozen=True, slots=True)
class TurnedAway:
    """The queue of this READY job is full, and the job is not to wait for a place."""

    job: JobName


@dataclass(frozen=True, slots=True)
class OtherStands:
    """The session that is asked about stands so; None: there is none."""

    ask: Ask
    state: SessionState | None


class Operation(StrEnum):
    """What a person may do to a running session."""

    HOLD = "hold"  # a unit that has not begun does not start before its release
    RELEASE = "release"
    SKIP = "skip"  # a unit that has not begun is left out, as if it had succeeded
    STOP = "stop"  # a unit, or everything: what waits is not run, what runs is ended
    SUSPEND = "suspend"  # nothing in a net, or in the session, begins until it is resumed
    RESUME = "resume"
    FORCE = "force"  # a unit that has not begun starts now, whatever it waits for
    END = "end"  # a unit ends, or has ended, with the status and end value that a person says
    APPROVE = "approve"
    REJECT = "reject"


@dataclass(frozen=True, slots=True)
class Operated:
    """A person operated on a unit; `job` None (STOP, SUSPEND, RESUME): on the whole session. To be fed only if
    `refusal` has nothing against it. `status`, `value`: of END. `text`: what the person wrote about it.
    """

    operation: Operation
    job: JobName | None
    by: str
    status: JobState | None = None
    value: int | None = None
    text: str = ""


Event = (
    Started | Taken | NeverTaken | Ended | Reread | Due | Admitted | TurnedAway | OtherStands | Operated
)  # fmt: skip


# --- transitions ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class JobMoved:
    """A unit goes from one state to another. `why` is a sentence part for people, empty where it is evident. `value`:
    of an end.
    """

    job: JobName
    before: JobState
    to: JobState
    at: datetime
    why: str = ""
    value: int | None = None


@dataclass(frozen=True, slots=True)
class JobRetried:
    """A run has ended so, and its job gets another attempt, not before `ready_utc`: it is READY."""

    job: JobName
    before: JobState
    ended: JobState
    at: datetime
    tries: int
    ready_utc: datetime
    value: int | None = None


@dataclass(frozen=True, slots=True)
class JobMarked:
    """Something about a unit (job ROOT: the session) changes; its state stays. None: as it was."""

    job: JobName
    is_held: bool | None = None
    is_stopping: bool | None = None
    is_suspended: bool | None = None
    is_late: bool | None = None
    is_stuck: bool | None = None


@dataclass(frozen=True, slots=True)
class VariableSet:
    """A variable of the session has a value from now on."""

    name: str
    value: str


class Notice(StrEnum):
    """What people are told beside ends."""

    LATE_START = "late-start"
    LATE_END = "late-end"
    STUCK = "stuck"
    APPROVAL = "approval"


@dataclass(frozen=True, slots=True)
class Noticed:
    """Something about a unit that people should know now."""

    job: JobName
    notice: Notice
    at: datetime


@dataclass(frozen=True, slots=True)
class OtherSeen:
    """The tree knows how another net's session stands. Not a row: asked again after a switch."""

    ask: Ask
    state: SessionState | None


@dataclass(frozen=True, slots=True)
class SessionMoved:
    """The session goes from one state to another."""

    before: SessionState
    to: SessionState
    at: datetime


Transition = JobMoved | JobRetried | JobMarked | VariableSet | Noticed | OtherSeen | SessionMoved


def change(tree: Tree, steps: Iterable[Transition]) -> None:
    """Let the transitions take effect in `tree` itself."""
    for step in steps:
        match step:
            case JobMoved():
                _move(tree, step)
            case JobRetried():
                tree.standings[step.job] = Standing(JobState.READY, tries=step.tries, ready_utc=step.ready_utc)
            case JobMarked():
                _mark(tree, step)
            case VariableSet(name, value):
                tree.variables[name] = value
            case OtherSeen(ask, stands):
                tree.others[ask] = stands
            case SessionMoved():
                tree.state = step.to
                if step.to is SessionState.RUNNING:
                    tree.started_utc = step.at
            case Noticed():
                pass


def _move(tree: Tree, step: JobMoved) -> None:
    old = tree.standings[step.job]
    parent = tree.net.units[step.job].parent
    tree.open[parent] += (old.state in ENDS) - (step.to in ENDS)
    begins = step.to in AT_AGENT and old.state not in AT_AGENT
    tree.standings[step.job] = replace(
        old,
        state=step.to,
        value=step.value if step.to in ENDS else old.value,
        begun_utc=step.at if begins else old.begun_utc,
        ready_utc=step.at if step.to is JobState.READY else old.ready_utc,
        is_late=old.is_late and not begins,
        is_stuck=False,
    )


def _mark(tree: Tree, step: JobMarked) -> None:
    if step.job == ROOT:
        tree.is_suspended = tree.is_suspended if step.is_suspended is None else step.is_suspended
        return
    named = ("is_held", "is_stopping", "is_suspended", "is_late", "is_stuck")
    changed = {name: value for name in named if (value := getattr(step, name)) is not None}
    tree.standings[step.job] = replace(tree.standings[step.job], **changed)
