"""A JobNet as people write it in YAML: a checked object, and how it becomes the nouns of plan.py.

    JobNet -> jobs: a command, a nested net (`jobs`), a reference (`net`, `job`), `wait`, `approval`, `http`, ...

A complaint names what is wrong and, for a circle of jobs, the whole circle. References to other objects are only
named here; whether they exist is known when the text is applied. docs/reference/jobs.md has every field.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    ValidationError,
    model_serializer,
    model_validator,
)

from futago.inventory.duration import Duration
from futago.inventory.model import HostName, Kind, Name, Object, Reference, ScopeName
from futago.jobs import plan
from futago.jobs.condition_definitions import (
    CodesField,
    Item,
    JobReference,
    OnDay,
    OtherSession,
    Part,
    condition_of,
    leaves,
    ranges_of,
)
from futago.jobs.control_definitions import (
    CalendarField,
    EndDelayField,
    GivenEnd,
    InQueue,
    QueueField,
    RetryDefinition,
    StartDelayField,
    skip_word,
)
from futago.jobs.model import ROOT, JobName, JobState
from futago.jobs.parameters import VARIABLES_MAX, Parameter, Prefix, VariableName
from futago.jobs.plan import Net, Unit, make_net
from futago.jobs.schedule_definitions import Zone
from futago.jobs.sound import Complaint, complaints
from futago.link.files import wrong_path, wrong_pattern
from futago.link.orders import (
    COMMAND_BYTES_MAX,
    ENV_MAX,
    ENV_VALUE_BYTES_MAX,
    SCRIPT_BYTES_MAX,
    STOP_GRACE_S,
    STOP_GRACE_S_MAX,
)
from futago.runtime.faults import Corrupt

JOBS_MAX = 10_000  # in one net, nested ones included; more belong into several
EXIT_CODE_MAX = 255
EXCLUSIVE_MAX = 100


def _command(text: str) -> str:
    if "\0" in text:
        raise ValueError("a command cannot hold a NUL character")
    if len(text.encode()) > COMMAND_BYTES_MAX:
        raise ValueError(f"a command has {COMMAND_BYTES_MAX} bytes at most; put a longer script on the host")
    return text


def _script(text: str) -> str:
    if "\0" in text or len(text.encode()) > SCRIPT_BYTES_MAX:
        raise ValueError(f"a script has {SCRIPT_BYTES_MAX} bytes at most, and no NUL character")
    return text


def _env_value(text: str) -> str:
    if "\0" in text or len(text.encode()) > ENV_VALUE_BYTES_MAX:
        raise ValueError(f"a variable holds {ENV_VALUE_BYTES_MAX} bytes at most, and no NUL character")
    return text


JobNameField = Annotated[str, StringConstraints(pattern=r"^\w[\w.@:-]{0,62}$")]
UserField = Annotated[str, StringConstraints(pattern=r"^[a-z_][a-z0-9_.-]{0,31}\$?$")]
EnvName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")]
EnvValue = Annotated[str, AfterValidator(_env_value)]
Header = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]{1,100}$")]
HeaderValue = Annotated[str, StringConstraints(max_length=4000, pattern=r"^[^\r\n\x00]*$")]
AbsolutePath = Annotated[str, StringConstraints(max_length=1000, pattern=r"^/[^\x00\n]+$")]


def _file_path(text: str) -> str:
    if wrong := wrong_path(text):
        raise ValueError(wrong)
    return text


def _file_pattern(text: str) -> str:
    if wrong := wrong_pattern(text):
        raise ValueError(wrong)
    return text


FilePath = Annotated[AbsolutePath, AfterValidator(_file_path)]
FilePattern = Annotated[str, AfterValidator(_file_pattern)]


class Codings(Part):
    """Which end values are which end. What is in neither is abnormal."""

    normal: CodesField = "0"
    warning: CodesField | None = None


class StopDefinition(Part):
    """How a run is ended: by a signal to its processes, or by a command beside it; `grace` later by SIGKILL."""

    signal: Literal["TERM", "INT", "HUP", "QUIT", "USR1", "USR2", "KILL"] = "TERM"
    command: Annotated[str, Field(min_length=1), AfterValidator(_command)] | None = None
    grace: Annotated[Duration, Field(le=timedelta(seconds=STOP_GRACE_S_MAX))] | None = None


class ApprovalDefinition(Part):
    """A person says yes or no. `by`: these accounts; empty: whoever may start jobs."""

    text: str = Field(default="", max_length=1000)
    by: list[Name] = Field(default=[], max_length=100)

    def work(self) -> plan.Work:
        """Return it as the decision sees it."""
        return plan.Approval(self.text, tuple(self.by))


class HttpDefinition(Part):
    """A request from the manager. `repeat`: it may be sent again if its outcome is not known, as after a switch."""

    url: Annotated[str, StringConstraints(max_length=2000, pattern=r"^https?://\S+$")]
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    headers: dict[Header, HeaderValue] = Field(default={}, max_length=50)
    body: str = Field(default="", max_length=64 * 1024)
    timeout: Duration | None = None
    repeat: bool | None = None

    def work(self) -> plan.Work:
        """Return it as the decision sees it."""
        may_repeat = self.method in ("GET", "HEAD", "PUT", "DELETE") if self.repeat is None else self.repeat
        timeout_s = self.timeout.total_seconds() if self.timeout else 30.0
        return plan.HttpCall(self.url, self.method, dict(self.headers), self.body, timeout_s, may_repeat)


class FileDefinition(Part):
    """Wait on a host until a file is there, has changed, or is gone."""

    host: HostName
    path: AbsolutePath
    until: Literal["created", "changed", "deleted"] = "created"
    interval: Duration | None = None

    def work(self, timeout_s: float) -> plan.Work:
        """Return it as the decision sees it."""
        interval_s = max(1.0, self.interval.total_seconds()) if self.interval else 5.0
        return plan.FileCheck(self.host, self.path, self.until, interval_s, timeout_s)


class CheckDefinition(Part):
    """A monitor's check of one host, made once."""

    monitor: Name
    host: HostName

    def work(self) -> plan.Work:
        """Return it as the decision sees it."""
        return plan.CheckOnce(self.monitor, self.host)


class PlaceDefinition(Part):
    """One end of a transfer, as `user` sees it."""

    host: HostName
    path: FilePath
    user: UserField | None = None

    def place(self) -> plan.Place:
        """Return it as the decision sees it."""
        return plan.Place(self.host, self.path, self.user or "")


class SourceDefinition(PlaceDefinition):
    """The file that is read; with `files`, the directory below which the names of those that are read match."""

    files: FilePattern | None = None


class TargetDefinition(PlaceDefinition):
    """The file that is made, or replaced as a whole, or the directory of several; they belong to `user`."""

    mode: Annotated[str, StringConstraints(pattern=r"^0?[0-7]{3}$")] = "0640"


class TransferDefinition(Part):
    """A file, or all that match, from one host to another."""

    source: SourceDefinition = Field(alias="from")
    to: TargetDefinition
    model_config = ConfigDict(extra="forbid", frozen=True, serialize_by_alias=True, validate_by_name=True)

    def work(self, timeout_s: float) -> plan.Work:
        """Return it as the decision sees it."""
        files = self.source.files or ""
        return plan.Transfer(self.source.place(), self.to.place(), int(self.to.mode, 8), timeout_s, files)


Skip = Annotated[GivenEnd | None, BeforeValidator(skip_word, json_schema_input_type=GivenEnd | bool | None)]
KINDS = ("command", "script", "jobs", "net", "job", "wait", "approval", "http", "file", "check", "transfer")
_COMMANDS = ("command", "script")
_ON_HOSTS = ("host", "scope", "run_on", "user", "env", "sets", "stop")
_BY_MANAGER = ("http", "check", "transfer")


class JobDefinition(Part):
    """One job, nested net or reference. Which kind it is, one of KINDS tells."""

    name: JobNameField
    owner: Name | None = None
    # what it is
    command: Annotated[str, Field(min_length=1), AfterValidator(_command)] | None = None
    script: Annotated[str, Field(min_length=1), AfterValidator(_script)] | None = None
    jobs: list[JobDefinition] | None = Field(default=None, min_length=1, max_length=JOBS_MAX)
    net: Name | None = None
    job: JobReference | None = None
    wait: Duration | None = None
    approval: ApprovalDefinition | None = None
    http: HttpDefinition | None = None
    file: FileDefinition | None = None
    check: CheckDefinition | None = None
    transfer: TransferDefinition | None = None
    # where and how a command runs
    host: HostName | None = None
    scope: ScopeName | None = None
    run_on: Literal["all", "in-turn", "any"] | None = None
    arguments: Annotated[str, AfterValidator(_command)] | None = None
    user: UserField | None = None
    env: dict[EnvName, EnvValue] = Field(default={}, max_length=ENV_MAX)
    timeout: Duration | None = None
    exit_codes: Codings | None = None
    sets: dict[VariableName, Prefix] = Field(default={}, max_length=VARIABLES_MAX)
    stop: StopDefinition | None = None
    # of a nested net
    exclusive: list[list[JobNameField]] = Field(default=[], max_length=EXCLUSIVE_MAX)
    judge: Literal["worst", "best"] | None = None
    # when it starts, and how it is kept in check
    after: list[Item] = Field(default=[], max_length=JOBS_MAX)
    if_unmet: Literal["not-run", "wait"] | GivenEnd | None = None
    hold: bool = False
    skip: Skip = None
    calendar: CalendarField | None = None
    start_delay: StartDelayField | None = None
    end_delay: EndDelayField | None = None
    retry: RetryDefinition | None = None
    queue: QueueField | None = None
    priority: Annotated[int, Field(ge=-1000, le=1000)] | None = None

    @model_serializer(mode="wrap")
    def _written(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what nobody wrote: ten thousand jobs would be megabytes of nothing."""
        return {
            key: value for key, value in handler(self).items() if value is not None and value not in ({}, [], False)
        }

    @model_validator(mode="after")
    def _is_one_kind(self) -> JobDefinition:
        chosen = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(chosen) != 1:
            said = f", not {' and '.join(f'`{c}`' for c in chosen)}" if chosen else ""
            raise ValueError(f"job `{self.name}`: write one of {', '.join(f'`{k}`' for k in KINDS)}{said}")
        kind = chosen[0]
        self._check_place(kind)
        for fields, kinds in (
            (_ON_HOSTS, _COMMANDS),
            (("arguments",), ("script",)),
            (("retry",), (*_COMMANDS, "file", *_BY_MANAGER)),
            (("exit_codes",), (*_COMMANDS, "http", "file", "check")),
            (("timeout",), (*_COMMANDS, "http", "file", "transfer")),
            (("exclusive", "judge"), ("jobs",)),
            (("queue",), (*_COMMANDS, "file", "jobs", *_BY_MANAGER)),
        ):
            wrong = next((f for f in fields if getattr(self, f) and kind not in kinds), None)
            if wrong:
                owners = " and ".join(f"`{k}`" for k in kinds)
                raise ValueError(f"job `{self.name}`: `{wrong}` belongs to {owners}, not to `{kind}`")
        return self

    @property
    def is_opaque(self) -> bool:
        """Whether what is in it is known only when it is resolved (resolve.py)."""
        return bool(self.net or self.job or self.scope)

    def _check_place(self, kind: str) -> None:
        if kind not in _COMMANDS:
            return
        if (self.host is None) == (self.scope is None):
            raise ValueError(f"job `{self.name}`: write where it runs: `host`, or `scope` with `run_on`")
        if self.run_on and not self.scope:
            raise ValueError(f"job `{self.name}`: `run_on` belongs to `scope`")
        codes = self.exit_codes
        for text in (codes.normal, codes.warning or "0") if codes else ():
            if any(high > EXIT_CODE_MAX for _, high in ranges_of(text)):
                raise ValueError(
                    f"job `{self.name}`: `{text}` is not a range of exit codes between 0 and {EXIT_CODE_MAX}"
                )

    def work(self) -> plan.Work:
        """Return what it does; of a reference, or a command for a scope, that it stands for a net."""
        timeout_s = self.timeout.total_seconds() if self.timeout else 0.0
        if self.jobs is not None or self.is_opaque:
            return plan.SubNet(plan.Judge(self.judge or "worst"))
        if self.wait:
            return plan.Pause(self.wait)
        if plain := self.approval or self.http or self.check:
            return plain.work()
        if timed := self.file or self.transfer:
            return timed.work(timeout_s)
        stop = self.stop or StopDefinition()
        return plan.Command(
            host=self.host or "",
            command=(self.arguments if self.script else self.command) or "",
            user=self.user or "",
            env=MappingProxyType(dict(self.env)),
            timeout_s=timeout_s,
            script=self.script or "",
            stop_command=stop.command or "",
            stop_signal=stop.signal,
            stop_grace_s=stop.grace.total_seconds() if stop.grace else STOP_GRACE_S,
        )

    def unit(self, around: Around) -> Unit:
        """Return it as the decision sees it."""
        calendar, queue = self.calendar, self.queue or around.queue
        default = Codings(normal="200-299") if self.http else Codings()
        codes = self.exit_codes or default
        unmet = self.if_unmet or "not-run"
        return Unit(
            name=around.path(self.name),
            work=self.work(),
            parent=around.name,
            start=condition_of(self.after, around.name),
            if_unmet=None if unmet == "wait" else JobState(unmet),
            above=around.above(self.name),
            is_held=self.hold,
            skip=JobState(self.skip) if self.skip else None,
            calendar=calendar.name if calendar else "",
            if_closed=JobState(calendar.outside) if calendar else JobState.SKIPPED,
            start_limit=self.start_delay.limit() if self.start_delay else None,
            end_limit=self.end_delay.limit() if self.end_delay else None,
            retry=self.retry.retry() if self.retry else None,
            queue=queue.name if queue else "",
            if_full=JobState(queue.if_full) if queue and queue.if_full else None,
            priority=around.priority if self.priority is None else self.priority,
            normal=plan.Codes(ranges_of(codes.normal)),
            warning=plan.Codes(ranges_of(codes.warning or "")),
            sets=dict(self.sets),
            owner=self.owner or around.owner,
        )


@dataclass(frozen=True, slots=True)
class Around:
    """What a job takes from the net around it."""

    name: JobName
    owner: str
    queue: InQueue | None
    priority: int
    exclusive: Sequence[Sequence[str]]

    def path(self, name: str) -> JobName:
        """Return the path of a job of this net."""
        return JobName(f"{self.name}/{name}" if self.name else name)

    def above(self, name: str) -> tuple[JobName, ...]:
        """Return the branches that go before this one."""
        groups = (group[: group.index(name)] for group in self.exclusive if name in group)
        return tuple(dict.fromkeys(self.path(other) for group in groups for other in group))


class JobUnit(Object):
    """A folder of job nets with an owner role, from which its nets take theirs."""

    name: Name
    owner: Name | None = None
    about: str = Field(default="", max_length=1000)


class JobNet(Object):
    """Jobs and what each waits for. `notify`: who is told of an abnormal or unknown end, of delays and approvals."""

    name: Name
    unit: Name | None = None
    owner: Name | None = None
    about: str = Field(default="", max_length=1000)
    notify: list[Name] = Field(default=[], max_length=100)
    timezone: Zone = "UTC"
    parameters: dict[VariableName, Parameter] = Field(default={}, max_length=VARIABLES_MAX)
    queue: QueueField | None = None
    priority: int = Field(default=0, ge=-1000, le=1000)
    exclusive: list[list[JobNameField]] = Field(default=[], max_length=EXCLUSIVE_MAX)
    jobs: list[JobDefinition] = Field(min_length=1, max_length=JOBS_MAX)

    @model_serializer(mode="wrap")
    def _written(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in handler(self).items() if value is not None and value not in ({}, [])}

    def complaints(self) -> Iterator[Complaint]:
        """Yield what makes no sense, each with the field that it is about."""
        yield from complaints(self, jobs_max=JOBS_MAX)

    def references(self) -> Iterator[Reference]:
        """Yield everything that this net names."""
        for i, name in enumerate(self.notify):
            yield Reference(Kind.NOTIFICATION, name, ("notify", i))
        if self.unit:
            yield Reference(Kind.JOB_UNIT, self.unit, ("unit",))
        if self.queue:
            yield Reference(Kind.JOB_QUEUE, self.queue.name, ("queue",))
        for i, job in enumerate(self.jobs):
            yield from _references(job, ("jobs", i))

    def net(self) -> Net:
        """Return it as the decision sees it. To be asked only if there are no complaints, and once references have
        been resolved.
        """
        around = Around(ROOT, self.owner or "", self.queue, self.priority, self.exclusive)
        units = tuple(_units(self.jobs, around))
        return make_net(self.name, units, notify=tuple(self.notify), timezone=self.timezone, owner=self.owner or "")


def _units(jobs: list[JobDefinition], around: Around) -> Iterator[Unit]:
    for job in jobs:
        unit = job.unit(around)
        yield unit
        if job.jobs is not None:
            queue = job.queue or around.queue
            yield from _units(job.jobs, Around(unit.name, unit.owner, queue, unit.priority, job.exclusive))


def _references(job: JobDefinition, path: tuple[str | int, ...]) -> Iterator[Reference]:
    plain: tuple[tuple[Kind, str | None, tuple[str | int, ...]], ...] = (
        (Kind.HOST, job.host, ("host",)),
        (Kind.HOST, job.file.host if job.file else None, ("file", "host")),
        (Kind.MONITOR, job.check.monitor if job.check else None, ("check", "monitor")),
        (Kind.HOST, job.check.host if job.check else None, ("check", "host")),
        (Kind.HOST, job.transfer.source.host if job.transfer else None, ("transfer", "from", "host")),
        (Kind.HOST, job.transfer.to.host if job.transfer else None, ("transfer", "to", "host")),
        (Kind.SCOPE, job.scope if job.scope != "*" else None, ("scope",)),
        (Kind.JOB_NET, job.net, ("net",)),
        (Kind.JOB_NET, job.job.partition("/")[0] if job.job else None, ("job",)),
        (Kind.CALENDAR, job.calendar.name if job.calendar else None, ("calendar",)),
        (Kind.JOB_QUEUE, job.queue.name if job.queue else None, ("queue",)),
    )
    for kind, name, where in plain:
        if name:
            yield Reference(kind, name, (*path, *where))
    for where, leaf in leaves(job.after, ("after",)):
        if isinstance(leaf, OtherSession):
            yield Reference(Kind.JOB_NET, leaf.session, (*path, *where, "session"))
        if isinstance(leaf, OnDay):
            yield Reference(Kind.CALENDAR, leaf.calendar, (*path, *where, "calendar"))
    for i, inner in enumerate(job.jobs or []):
        yield from _references(inner, (*path, "jobs", i))


def read_net(spec: Mapping[str, Any]) -> Net:
    """Return the net that a resolved `spec` column holds.

    Raises:
        Corrupt: another version of the program wrote another shape.
    """
    try:
        return JobNet.model_validate(dict(spec)).net()
    except (ValidationError, ValueError) as e:
        raise Corrupt(f"not a job net: {e}") from e
