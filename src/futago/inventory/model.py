"""The objects that people write in YAML, each a pydantic model: Host, Scope, Notification, Monitor.

Pure data: types, bounds, defaults, and which other objects each refers to. JobNet, Calendar and Schedule
stand in the jobs column; every object offers the same two things, a `name` and `references()`. A validated object dumps
to JSON that validates to itself again: that JSON is the `spec` column.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, IPvAnyAddress, StringConstraints, model_validator

from futago.inventory.duration import Duration

EVERY_HOST = "*"  # the scope of all registered hosts


class Kind(StrEnum):
    """The kinds of objects, in the order in which they are applied: what is referred to comes first."""

    HOST = "Host"
    SCOPE = "Scope"
    NOTIFICATION = "Notification"
    MONITOR = "Monitor"
    CALENDAR = "Calendar"
    JOB_UNIT = "JobUnit"
    JOB_QUEUE = "JobQueue"
    JOB_NET = "JobNet"
    SCHEDULE = "Schedule"
    TRIGGER = "Trigger"


@dataclass(frozen=True, slots=True)
class Reference:
    """That an object names another. `path`: the field that does, for the message."""

    kind: Kind
    name: str
    path: tuple[str | int, ...]


class Priority(StrEnum):
    """How grave an event is."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"
    UNKNOWN = "unknown"


HostName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$")]
Name = Annotated[str, StringConstraints(pattern=r"^\w[\w.@:-]{0,62}$")]  # letters of any script
ScopeName = Annotated[str, StringConstraints(pattern=r"^(\*|\w[\w.@:-]{0,62})$")]


def _mail_address(text: str) -> str:
    local, at, domain = text.rpartition("@")
    if (
        not at
        or not local
        or not domain
        or not text.isascii()
        or len(text) > 254
        or re.search(r"[\s<>,;:\"()\[\]\x00-\x1f\x7f]", text)
    ):
        raise ValueError(f"`{text}` is not a mail address")
    return text


MailAddress = Annotated[str, AfterValidator(_mail_address)]


class Object(BaseModel):
    """What all objects share: a name, no unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, serialize_by_alias=True, validate_by_name=True)

    def references(self) -> Iterator[Reference]:
        """Yield the objects that this one names."""
        yield from ()

    def complaints(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """Yield what makes no sense in it as a whole, each with the field that it is about."""
        yield from ()


class Host(Object):
    """A managed machine or device."""

    name: HostName
    address: IPvAnyAddress


class Scope(Object):
    """A named set of hosts."""

    name: Name
    hosts: list[HostName] = Field(max_length=10_000)

    def references(self) -> Iterator[Reference]:
        """Yield the hosts."""
        for i, name in enumerate(self.hosts):
            yield Reference(Kind.HOST, name, ("hosts", i))


class Smtp(Object):
    """A mail server. STARTTLS: used where offered, or required, or never."""

    host: str = Field(min_length=1, max_length=253)
    port: int = Field(default=25, ge=1, le=65535)
    starttls: Literal["offered", "required", "never"] = "offered"


class Notification(Object):
    """How people are told."""

    name: Name
    channel: Literal["mail"]
    to: list[MailAddress] = Field(min_length=1, max_length=100)
    sender: MailAddress = Field(alias="from")
    smtp: Smtp
    timeout: Duration = timedelta(seconds=10)


SUPPRESS_MAX = timedelta(days=7)
_FIELD = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}\Z")


class Suppress(Object):
    """After an event, repeats of it make none for so long. `by`: what makes two the same, beside monitor and pattern."""

    length: Duration = Field(alias="for")
    by: list[str] = Field(default=["host"], max_length=16)  # host, message, named groups of `match`

    @model_validator(mode="after")
    def _fits(self) -> Suppress:
        if not timedelta(seconds=1) <= self.length <= SUPPRESS_MAX:
            raise ValueError("`for` is from 1s to 7d")
        return self


class Pattern(Object):
    """One rule of a message monitor: what to match, how grave it is, what the event says.

    `message` may hold the named groups of `match`, and {text}, the whole message.
    """

    takes_fields: ClassVar[bool] = False  # `message` may also hold names that the message itself brings

    match: str = Field(min_length=1, max_length=4096)
    priority: Priority
    message: str = Field(default="{text}", min_length=1, max_length=4096)
    suppress: Suppress | None = None

    @model_validator(mode="after")
    def _is_sound(self) -> Pattern:
        try:
            groups = set(re.compile(self.match).groupindex)
        except (re.error, RecursionError, OverflowError) as e:
            raise ValueError(f"`match` is not a regular expression: {e}") from e
        try:
            fields = [part for part in string.Formatter().parse(self.message) if part[1] is not None]
        except ValueError as e:
            raise ValueError(f"`message`: {e}; write {{{{ and }}}} for literal braces") from e
        if any(spec or conversion for _, _, spec, conversion in fields):
            raise ValueError("`message`: only plain {name} is accepted, without ! or :")
        named = {str(field) for _, field, _, _ in fields}
        unknown = named - groups - {"text"}
        if unknown and not (self.takes_fields and all(_FIELD.match(name) for name in unknown)):
            raise ValueError(f"`message` names {{{sorted(unknown)[0]}}}, which is not a named group of `match`")
        by = set(self.suppress.by) if self.suppress else set()
        if unknown := by - groups - {"host", "message"}:
            raise ValueError(
                f"`suppress.by` names `{sorted(unknown)[0]}`: known are host, message and the named groups of `match`"
            )
        return self


class FieldPattern(Pattern):
    """A pattern for messages that bring names of their own: objects that MIB modules name, fields of a custom trap."""

    takes_fields: ClassVar[bool] = True


class _Monitor(Object):
    name: Name
    scope: ScopeName
    enabled: bool = True
    notify: list[Name] = Field(default=[], max_length=100)

    def references(self) -> Iterator[Reference]:
        """Yield the scope and the notifications."""
        if self.scope != EVERY_HOST:
            yield Reference(Kind.SCOPE, self.scope, ("scope",))
        for i, name in enumerate(self.notify):
            yield Reference(Kind.NOTIFICATION, name, ("notify", i))


class _Polling(_Monitor):
    """A check that we make ourselves, at an interval. `failures`: bad results in a row until the status changes."""

    interval: Duration = timedelta(minutes=1)
    timeout: Duration = timedelta(seconds=1)
    failures: int = Field(default=1, ge=1, le=1000)

    @model_validator(mode="after")
    def _fits(self) -> _Polling:
        if self.interval < timedelta(milliseconds=100):
            raise ValueError("`interval` is shorter than 100ms")
        if self.timeout > self.interval:
            raise ValueError("`timeout` is longer than `interval`: a check would meet the next one")
        return self


class PingMonitor(_Polling):
    """Does the host answer an ICMP echo?"""

    check: Literal["ping"]


class TcpMonitor(_Polling):
    """Does the host accept a TCP connection?"""

    check: Literal["tcp"]
    port: int = Field(ge=1, le=65535)


class SyslogMonitor(_Monitor):
    """Ordered patterns over syslog messages: the first that matches makes an event."""

    check: Literal["syslog"]
    keep: bool = False  # received messages that match, for search
    patterns: list[Pattern] = Field(min_length=1, max_length=1000)


class SnmptrapMonitor(_Monitor):
    """Ordered patterns over the text form of SNMP traps."""

    check: Literal["snmptrap"]
    keep: bool = False  # received messages that match, for search
    patterns: list[FieldPattern] = Field(min_length=1, max_length=1000)


class CustomtrapMonitor(_Monitor):
    """Ordered patterns over custom traps, which programs send by HTTP: the message, and name=value of each field."""

    check: Literal["customtrap"]
    keep: bool = False  # received messages that match, for search
    patterns: list[FieldPattern] = Field(min_length=1, max_length=1000)


PollingMonitor = Annotated[PingMonitor | TcpMonitor, Field(discriminator="check")]
MessageMonitor = Annotated[SyslogMonitor | SnmptrapMonitor | CustomtrapMonitor, Field(discriminator="check")]
Monitor = Annotated[
    PingMonitor | TcpMonitor | SyslogMonitor | SnmptrapMonitor | CustomtrapMonitor, Field(discriminator="check")
]
