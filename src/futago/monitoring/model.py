"""The nouns of monitoring: what is checked, what came of it, what is known of it. Pure data."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple


class Status(StrEnum):
    """How a host stands in the eyes of a monitor."""

    UNKNOWN = "unknown"
    OK = "ok"
    WARNING = "warning"
    CRITICAL = "critical"


class Verdict(StrEnum):
    """What a probe found."""

    OK = "ok"
    FAILED = "failed"  # the host did not do what it should
    IMPOSSIBLE = "impossible"  # we could not even ask: it says nothing about the host


class Pair(NamedTuple):
    """One host under one monitor."""

    monitor: str
    host: str


@dataclass(frozen=True, slots=True)
class Ping:
    """Ask for an ICMP echo."""


@dataclass(frozen=True, slots=True)
class Tcp:
    """Open a TCP connection to a port."""

    port: int


Probe = Ping | Tcp


@dataclass(frozen=True, slots=True)
class Check:
    """What is done for one pair, and how it is judged. `failures`: bad results in a row until the status changes."""

    pair: Pair
    address: str
    probe: Probe
    interval: timedelta
    timeout: timedelta
    failures: int
    notify: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Result:
    """What one probe brought. `value`: round trip in milliseconds, where there was one. `text`: for people."""

    at_utc: datetime
    verdict: Verdict
    value: float | None = None
    text: str = ""

    @property
    def is_ok(self) -> bool:
        return self.verdict is Verdict.OK


@dataclass(frozen=True, slots=True)
class State:
    """The row of a pair. `failures`: results in a row that speak against `status`."""

    status: Status
    since_utc: datetime
    failures: int
    next_due_utc: datetime


@dataclass(frozen=True, slots=True)
class Change:
    """A status change: it becomes an event."""

    pair: Pair
    before: Status
    after: Status
    at_utc: datetime
    text: str
    notify: tuple[str, ...]


@dataclass(slots=True)
class Pending:
    """What happened to a pair since its row was last written: written in one piece, or not at all.

    `expected_due_utc` is what the row must still hold: an attempt that did reach the database cannot be repeated.
    """

    expected_due_utc: datetime
    state: State
    results: list[Result] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
