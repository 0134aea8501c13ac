"""What goes over the wire: the bodies of requests and answers of /api/v1, as OpenAPI shows them.

Pure shapes: no database, no clock, no route. The pair's status is the controller's, passed on as it is; members of it
that a newer controller adds are kept.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field


class Shape(BaseModel):
    """Base of what we take in: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Told(BaseModel):
    """Base of what the controller tells: unknown fields are kept."""

    model_config = ConfigDict(extra="allow", frozen=True)


class ErrorBody(Shape):
    """Every answer that is not a success."""

    error: str = Field(description="One sentence: what happened and what it means.")
    hint: str = Field(default="", description="One sentence: what to do next.")
    code: str = Field(description="Stable code, listed in the reference.")
    primary: str | None = Field(default=None, description="With 503: the member that serves now, if known.")
    primary_address: str | None = Field(default=None, description="With 503: its address on the service network.")


# --- the pair ---------------------------------------------------------------------------------------------------------


class PairState(StrEnum):
    """What the two members are together."""

    PAIRED = "paired"
    SOLO = "solo"
    BLOCKED = "blocked"
    STARTING = "starting"
    SWITCHING = "switching"
    NO_PEER = "no-peer"


class MemberStatus(Told):
    """One member, as the answering controller sees it."""

    name: str
    role: str = "unknown"
    reachable: bool = False
    pg: str = "unknown"
    timeline: int | None = None
    flush_lsn: str | None = None
    replay_lag_bytes: int | None = None
    gate: str | None = None
    address: bool | None = None
    fit: bool | None = None
    able: bool | None = None
    boot: str | None = None
    version: str | None = None


class LinkStatus(Told):
    """One heartbeat path."""

    name: str
    up: bool
    last_heard_ms: float | None = None


class FenceStatus(Told):
    """A device that can power a member off, or (level 0) a member's own watchdog. `ok`: its last self-test succeeded."""

    member: str
    driver: str = ""
    level: int = 1
    state: str = "unknown"
    tested_ago_s: float | None = None
    ok: bool = False
    error: str = ""


class JurorStatus(Told):
    """One acceptor of the jury."""

    name: str
    ok: bool
    error: str = ""


class ThirdVoteStatus(Told):
    """The register W."""

    kind: str = "none"
    ok: bool = False
    epoch: int | None = None
    knows_view: bool = False
    jurors: list[JurorStatus] = []


class JournalStatus(Told):
    """The journals of received messages. `complete`: each member has all that the other received. `troubles`: what is
    wrong with the member's own one, in words.
    """

    complete: bool = False
    troubles: list[str] = []


class SwitchStep(Told):
    """One step of a switch: milliseconds from the last sign of life of the lost member, or from the request."""

    name: str
    ms: float


def _none_if_empty(value: object) -> object:
    return None if value == "" else value


class SwitchStatus(Told):
    """The newest change of who serves, or of paired and solo."""

    model_config = ConfigDict(extra="allow", frozen=True, populate_by_name=True)

    kind: str
    epoch: int
    from_member: str | None = Field(default=None, alias="from")
    to: str | None = None
    utc: Annotated[datetime | None, BeforeValidator(_none_if_empty)] = None
    steps: list[SwitchStep] = []


class RecoveryStatus(Told):
    """The ladder that brings a member back, whichever of the two climbs it. `last`: how the last climb ended."""

    running: bool = False
    member: str = ""
    rung: str | None = ""
    progress: str | None = ""
    percent: int | None = None
    error: str | None = ""
    repair: str = ""
    last: dict[str, Any] | None = None


class PairStatus(Told):
    """Everything that a person needs to know of the pair. `command` is the one command that resolves what is wrong;
    empty if none is needed."""

    pair: str
    state: Annotated[str, Field(description=f"One of {', '.join(PairState)}.")]
    protected: bool
    primary: str | None = None
    epoch: int = 0
    reason: str = ""
    rule: str = ""
    command: str = ""
    not_protected: list[str] = []
    members: list[MemberStatus] = []
    links: list[LinkStatus] = []
    fences: list[FenceStatus] = []
    third_vote: ThirdVoteStatus = ThirdVoteStatus()
    journals: JournalStatus = JournalStatus()
    last_switch: SwitchStatus | None = None
    recovery: RecoveryStatus = RecoveryStatus()
    maintenance: bool = False
    utc: datetime | None = None


class Health(Shape):
    """Who answers, and whether it serves. Needs no login."""

    member: str
    serving: bool
    role: str
    epoch: int
    primary: str | None
    primary_address: str | None
    floating_ip: str


class Hello(Shape):
    """The first word of a stream: who serves."""

    member: str
    epoch: int


class OperationState(StrEnum):
    """How far an operation on the pair is."""

    RUNNING = "running"
    DONE = "done"
    REFUSED = "refused"
    UNKNOWN = "unknown"


class OperationStatus(Shape):
    """A switchover or recovery that was asked for."""

    operation: str
    state: OperationState
    progress: list[str] = []
    error: str = ""
    hint: str = ""
    by: str = ""
    since_utc: datetime


# --- people -----------------------------------------------------------------------------------------------------------


class Login(Shape):
    """Who wants in."""

    account: Annotated[str, Field(min_length=1, max_length=63)]
    password: Annotated[str, Field(min_length=1, max_length=200)]


class LoggedIn(Shape):
    """The session's cookie comes with this answer. Send `csrf_token` in the header X-CSRF-Token with every request
    that changes something."""

    account: str
    role: str
    csrf_token: str


# --- hosts, events, monitors ------------------------------------------------------------------------------------------


class Host(Shape):
    """A managed machine or device, with the worst status of its monitors."""

    host_name: str
    address: str | None
    is_registered: bool
    has_agent: bool
    agent_seen_utc: datetime | None
    scopes: list[str]
    status: str = Field(description="critical, unknown, warning, ok; `none` if nothing monitors it.")
    since_utc: datetime | None
    monitor_count: int


class Hosts(Shape):
    """All hosts, by name."""

    hosts: list[Host]


class Priority(StrEnum):
    """How much an event matters."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"
    UNKNOWN = "unknown"


class Source(StrEnum):
    """What made an event."""

    MESSAGE = "message"
    MONITOR = "monitor"
    JOB = "job"
    API = "api"
    PAIR = "pair"


class Order(StrEnum):
    """The order of a list."""

    ASCENDING = "asc"
    DESCENDING = "desc"


class EventFilter(Shape):
    """Which events are wanted."""

    after: Annotated[int, Field(ge=0, description="Only events with a greater id.")] | None = None
    before: Annotated[int, Field(ge=0, description="Only events with a smaller id.")] | None = None
    source: Source | None = None
    monitor: str | None = None
    host: str | None = None
    priority: Priority | None = None
    text: Annotated[str, Field(max_length=500, description="Occurs in the message, in any case.")] | None = None


class EventPage(EventFilter):
    """Which events are wanted, and how many of them in which order."""

    order: Order = Order.ASCENDING
    limit: Annotated[int, Field(ge=1, le=10_000)] = 100


class SamplePage(Shape):
    """Which samples are wanted."""

    monitor: str
    host: str | None = None
    since_utc: AwareDatetime | None = None
    limit: Annotated[int, Field(ge=1, le=10_000)] = 1000


class NewEvent(Shape):
    """An event that an outside system tells."""

    message: Annotated[str, Field(min_length=1, max_length=8192)]
    priority: Priority = Priority.INFO
    host: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    occurred_utc: Annotated[AwareDatetime, Field(description="When it happened; default: now.")] | None = None
    detail: Annotated[dict[str, Any], Field(description="Anything else, as JSON.")] | None = None


class Event(Shape):
    """Something that happened."""

    event_id: int
    occurred_utc: datetime
    recorded_utc: datetime
    priority: Priority
    source: Source
    monitor_name: str | None
    host_name: str | None
    message: str
    detail: dict[str, Any] | None
    epoch: int


class Events(Shape):
    """One page of events. `next` continues it in the same order (as `after`, or as `before` when descending); null at
    the end."""

    events: list[Event]
    next: int | None


class EventCount(Shape):
    """How many events there are."""

    count: int
    last_event_id: int | None


class PostedEvent(Shape):
    """The event is committed. `repeated`: its key was known, and this is the event of then."""

    event_id: int
    repeated: bool


class MonitorState(Shape):
    """What a monitor says of one host."""

    host_name: str
    status: str
    since_utc: datetime
    failures: int
    next_due_utc: datetime | None


class Monitor(Shape):
    """A monitor as it was defined, with the state of each host."""

    monitor_name: str
    kind: str
    scope_name: str | None
    is_enabled: bool
    version: int
    spec: dict[str, Any]
    states: list[MonitorState]


class Monitors(Shape):
    """All monitors, by name."""

    monitors: list[Monitor]


class Sample(Shape):
    """One result of a polling monitor."""

    monitor_name: str
    host_name: str
    at_utc: datetime
    value: float | None
    ok: bool


class Samples(Shape):
    """One page of samples by time. `next_since_utc` continues it; null at the end."""

    samples: list[Sample]
    next_since_utc: datetime | None


# --- definitions ------------------------------------------------------------------------------------------------------


class DefinitionFile(Shape):
    """One YAML file; `name` appears in messages about its content."""

    name: Annotated[str, Field(min_length=1, max_length=1000)]
    text: str


class DefinitionFiles(Shape):
    """Several YAML files that are applied together or not at all."""

    files: Annotated[list[DefinitionFile], Field(min_length=1, max_length=1000)]


class AppliedChange(Shape):
    """What happened to one object."""

    kind: str
    name: str
    change: str = Field(description="created, changed or unchanged.")


class RulesAtWork(Shape):
    """Whether messages are held against the definitions of this moment."""

    at_work: bool
    fault: str = Field(description="Why some of them are not at work; empty if all are.")
    since_utc: datetime = Field(description="Since when those that are at work are.")


class Applied(Shape):
    """What an apply did; with a dry run, what it would do."""

    dry_run: bool
    changes: list[AppliedChange]


class ExportedObject(Shape):
    """One object as YAML that can be applied again."""

    kind: str
    name: str
    text: str


class Exported(Shape):
    """Definitions, in the order in which they can be applied."""

    objects: list[ExportedObject]
