"""The nouns of a definition: nets, jobs, what each does, what it waits for, and how it is kept in check.

Pure data. A definition as people write it (definitions.py) becomes a `Net`: every unit of the whole tree under its
path, with the conditions that start it. What follows from events is decided in turn.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import TypeVar

from futago.jobs.model import ROOT, SUCCESS, Ask, JobName, JobState, SessionState
from futago.link.orders import STOP_GRACE_S

K = TypeVar("K")
NOTHING: Mapping[str, str] = MappingProxyType({})


def _nothing() -> Mapping[str, str]:
    return NOTHING


@dataclass(frozen=True, slots=True)
class Codes:
    """A set of end values: closed ranges."""

    ranges: tuple[tuple[int, int], ...] = ()

    def __contains__(self, code: int) -> bool:
        return any(low <= code <= high for low, high in self.ranges)

    def __str__(self) -> str:
        return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in self.ranges)


# --- conditions -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EndIs:
    """`job` has ended in one of `ends`."""

    job: JobName
    ends: frozenset[JobState] = SUCCESS


@dataclass(frozen=True, slots=True)
class ValueIs:
    """`job` has ended with one of these end values."""

    job: JobName
    codes: Codes


@dataclass(frozen=True, slots=True)
class TimeIs:
    """It is `offset` past midnight of the session's day, or later. Beyond 24 hours: in the night that follows."""

    offset: timedelta


@dataclass(frozen=True, slots=True)
class Elapsed:
    """So much has passed since the session began."""

    length: timedelta


class Comparison(StrEnum):
    """How a variable is compared. `less` and `more` compare numbers; what is none is neither."""

    IS = "is"
    IS_NOT = "is_not"
    LESS = "less"
    MORE = "more"


@dataclass(frozen=True, slots=True)
class VariableIs:
    """A variable of the session compares so with `value`."""

    name: str
    comparison: Comparison
    value: str


@dataclass(frozen=True, slots=True)
class OtherEnded:
    """The newest session that is asked about has ended in one of `ends`."""

    ask: Ask
    ends: frozenset[SessionState]


@dataclass(frozen=True, slots=True)
class DayIs:
    """The session's day is open in that calendar, or closed. That is certain from the session's beginning."""

    calendar: str
    is_open: bool


@dataclass(frozen=True, slots=True)
class AllOf:
    """All of them."""

    parts: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one of them."""

    parts: tuple[Condition, ...]


Condition = EndIs | ValueIs | TimeIs | Elapsed | VariableIs | OtherEnded | DayIs | AllOf | AnyOf
ALWAYS = AllOf()


# --- work -------------------------------------------------------------------------------------------------------------


class Judge(StrEnum):
    """How a net ends: in the worst of its children's ends; or well, if one of them did."""

    WORST = "worst"
    BEST = "best"


@dataclass(frozen=True, slots=True)
class SubNet:
    """A net inside a net."""

    judge: Judge = Judge.WORST


@dataclass(frozen=True, slots=True)
class Command:
    """A shell command on a host, by its agent; or (`script`) a text that becomes a file there, and `command` is what
    follows it. `timeout_s` 0: none. `user` empty: the agent's own. `stop_...`: how it is ended (link/orders.py).
    """

    host: str
    command: str
    user: str = ""
    env: Mapping[str, str] = field(default_factory=_nothing)
    timeout_s: float = 0.0
    script: str = ""
    stop_command: str = ""
    stop_signal: str = "TERM"
    stop_grace_s: float = STOP_GRACE_S


@dataclass(frozen=True, slots=True)
class FileCheck:
    """Wait on a host until a file is there, has changed, or is gone."""

    host: str
    path: str
    event: str
    interval_s: float = 5.0
    timeout_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Pause:
    """Let time pass."""

    length: timedelta


@dataclass(frozen=True, slots=True)
class Approval:
    """A person says yes (end value 0, normal) or no (1, abnormal). `by` empty: whoever may start jobs."""

    text: str = ""
    by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HttpCall:
    """A request from the manager; the end value is the answer's status. `may_repeat`: if the outcome is not known, as
    after a switch, it is sent again.
    """

    url: str
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=_nothing)
    body: str = ""
    timeout_s: float = 30.0
    may_repeat: bool = False


@dataclass(frozen=True, slots=True)
class CheckOnce:
    """A monitor's check of one host, made once by the manager; the end value is what it found."""

    monitor: str
    target: str

    @property
    def may_repeat(self) -> bool:
        """A check that a switch cut off is made again: it changes nothing."""
        return True


@dataclass(frozen=True, slots=True)
class Place:
    """A file on a host; what is done to it is done as `user` (empty: the agent's own)."""

    host: str
    path: str
    user: str = ""


@dataclass(frozen=True, slots=True)
class Transfer:
    """A file from one host to another, through the manager. `mode`: of the new file. `timeout_s` 0: none. `files`: the places
    are directories, and all files of the source go whose names match.
    """

    source: Place
    to: Place
    mode: int = 0o640
    timeout_s: float = 0.0
    files: str = ""

    @property
    def may_repeat(self) -> bool:
        """A transfer that a switch cut off goes on: its effect is under its run id, and comes once."""
        return True


Work = SubNet | Command | FileCheck | Pause | Approval | HttpCall | CheckOnce | Transfer
OnHost = Command | FileCheck
ByManager = HttpCall | CheckOnce | Transfer  # a run of the manager itself


# --- control ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Limit:
    """When a unit is late, and what is done then beside telling people.

    Late is whichever of these is first: `offset` past midnight of the session's day, `elapsed` since its beginning,
    `length` since the unit's own beginning (ends only), or so many standard `deviations` above the mean of its past
    durations (ends only). `then`: the unit is given this end; of a unit that runs, after it has been stopped.
    """

    offset: timedelta | None = None
    elapsed: timedelta | None = None
    length: timedelta | None = None
    deviations: float | None = None
    tells: bool = True
    stops: bool = False
    then: JobState | None = None


@dataclass(frozen=True, slots=True)
class Retry:
    """Up to `count` more attempts, `interval` apart, until it ends in one of `until`."""

    count: int
    interval: timedelta = timedelta(0)
    until: frozenset[JobState] = frozenset({JobState.NORMAL, JobState.WARNING})
    on_unknown: bool = False  # what may have run and left no trace is not run again by itself


@dataclass(frozen=True, slots=True)
class Unit:
    """One net or job of the tree. It starts when `start` holds; see docs/reference/jobs.md for every field.

    `if_unmet`: its end once `start` cannot hold any more; None: it waits for a person. `above`: the branches before
    it: only if none of them is taken, it may start. `skip`: its end without being run. `if_full`: its end when its
    queue has no place; None: it waits for one.
    """

    name: JobName
    work: Work
    parent: JobName = ROOT
    start: Condition = ALWAYS
    if_unmet: JobState | None = JobState.NOT_RUN
    above: tuple[JobName, ...] = ()
    is_held: bool = False
    skip: JobState | None = None
    calendar: str = ""
    if_closed: JobState = JobState.SKIPPED
    start_limit: Limit | None = None
    end_limit: Limit | None = None
    retry: Retry | None = None
    queue: str = ""
    if_full: JobState | None = None
    priority: int = 0
    normal: Codes = Codes(((0, 0),))
    warning: Codes = Codes()
    sets: Mapping[str, str] = field(default_factory=_nothing)
    owner: str = ""

    @property
    def host(self) -> str:
        """The host whose agent does it; empty: the manager itself."""
        return self.work.host if isinstance(self.work, OnHost) else ""


@dataclass(frozen=True, slots=True)
class Net:
    """A whole tree. `followers`: whose start may follow from the end of each unit; `below`: the branches that are not
    taken if it is; `readers`: whose from a variable,
    or from another net's session. `setters`: which jobs may set a variable. `asks`: what conditions ask about
    sessions of other nets.
    """

    name: str
    units: Mapping[JobName, Unit]
    children: Mapping[JobName, tuple[JobName, ...]]
    followers: Mapping[JobName, tuple[JobName, ...]]
    below: Mapping[JobName, tuple[JobName, ...]] = field(default_factory=dict)
    readers: Mapping[str, tuple[JobName, ...]] = field(default_factory=dict)
    setters: Mapping[str, tuple[JobName, ...]] = field(default_factory=dict)
    asks: Mapping[Ask, tuple[JobName, ...]] = field(default_factory=dict)
    notify: tuple[str, ...] = ()
    timezone: str = "UTC"
    owner: str = ""


def parts_of(condition: Condition) -> tuple[Condition, ...]:
    """Return the condition's leaves."""
    if isinstance(condition, AllOf | AnyOf):
        return tuple(leaf for part in condition.parts for leaf in parts_of(part))
    return (condition,)


def calendars_of(unit: Unit) -> frozenset[str]:
    """Return the calendars that the unit asks: whether it runs at all, and in its conditions."""
    asked = {leaf.calendar for leaf in parts_of(unit.start) if isinstance(leaf, DayIs)}
    return frozenset(asked | {unit.calendar} if unit.calendar else asked)


def predecessors(unit: Unit) -> tuple[JobName, ...]:
    """Return the units whose ends its conditions ask about, each once, in their order."""
    return tuple(dict.fromkeys(leaf.job for leaf in parts_of(unit.start) if isinstance(leaf, EndIs | ValueIs)))


def make_net(
    name: str,
    units: tuple[Unit, ...],
    *,
    notify: tuple[str, ...] = (),
    timezone: str = "UTC",
    owner: str = "",
) -> Net:
    """Return the net of these units. Names are unique, and what conditions name exists: definitions.py has checked."""
    children: dict[JobName, list[JobName]] = {ROOT: []}
    followers: dict[JobName, dict[JobName, None]] = {unit.name: {} for unit in units}
    below: dict[JobName, list[JobName]] = {}
    readers: dict[str, dict[JobName, None]] = {}
    setters: dict[str, list[JobName]] = {}
    asks: dict[Ask, dict[JobName, None]] = {}
    for unit in units:
        children.setdefault(unit.parent, []).append(unit.name)
        if isinstance(unit.work, SubNet):
            children.setdefault(unit.name, [])
        for higher in unit.above:
            followers[higher][unit.name] = None
            below.setdefault(higher, []).append(unit.name)
        for variable in unit.sets:
            setters.setdefault(variable, []).append(unit.name)
        for leaf in parts_of(unit.start):
            match leaf:
                case EndIs(job) | ValueIs(job):
                    followers[job][unit.name] = None
                case VariableIs(variable):
                    readers.setdefault(variable, {})[unit.name] = None
                case OtherEnded(ask):
                    asks.setdefault(ask, {})[unit.name] = None
    return Net(
        name,
        {unit.name: unit for unit in units},
        _frozen(children),
        _frozen(followers),
        _frozen(below),
        _frozen(readers),
        _frozen(setters),
        _frozen(asks),
        notify,
        timezone,
        owner,
    )


def _frozen(of: Mapping[K, Iterable[JobName]]) -> dict[K, tuple[JobName, ...]]:
    return {key: tuple(names) for key, names in of.items()}


def inside(net: Net, name: JobName) -> tuple[JobName, ...]:
    """Return every unit inside the net `name` (ROOT: all), outer ones first."""
    found: list[JobName] = []
    queue = list(net.children.get(name, ()))
    while queue:
        unit = queue.pop()
        found.append(unit)
        queue.extend(net.children.get(unit, ()))
    return tuple(found)
