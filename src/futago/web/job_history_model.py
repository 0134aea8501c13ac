"""What goes over the wire about what jobs wrote, how long they took and when they ran.

Pure shapes, as model.py.
"""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from futago.web.model import Shape


class JobOutput(Shape):
    """A part of what a job writes. Ask again from `next` while `is_ended` is false."""

    run_id: str
    job_name: str
    host_name: str
    attempt: int
    state: str
    offset: int = Field(
        description="Where `text` begins, bytes. Beyond the one asked for where the middle was not kept."
    )
    text: str
    next: int = Field(description="Ask from here on for what follows.")
    size: int | None = Field(description="Bytes written so far; null: its host does not answer now.")
    is_ended: bool = Field(description="Nothing will be added, and this is the end of what is kept.")


class FoundOutput(Shape):
    """A run whose output holds what was searched for."""

    session_id: int
    net_name: str
    job_name: str
    host_name: str
    attempt: int
    state: str
    ended_utc: datetime | None
    line: str = Field(description="The first line that holds it.")


class FoundOutputs(Shape):
    """Newest first. What is searched is what the pair keeps of each output: the end of it."""

    runs: list[FoundOutput]


class Bar(Shape):
    """One attempt of one job. Nulls: it has not come so far, or never did."""

    job_name: str
    host_name: str
    state: str
    attempt: int
    ordered_utc: datetime | None
    started_utc: datetime | None = Field(description="By the host's clock, as ended_utc.")
    ended_utc: datetime | None
    after: list[str] = Field(description="The jobs it waits for.")
    is_critical: bool = Field(description="It is one of those that decided when everything was done.")


class Gantt(Shape):
    """When each job of a run was ordered, started and ended."""

    session_id: int
    net_name: str
    state: str
    started_utc: datetime | None
    ended_utc: datetime | None
    critical_path: list[str]
    bars: list[Bar]


class Series(Shape):
    """How long something took over the newest runs, seconds. `change`: the newest quarter against the rest, 0.5 for
    half as long again; null where that cannot be said.
    """

    name: str
    count: int
    last_s: float
    median_s: float
    p95_s: float
    max_s: float
    change: float | None


class SessionTook(Shape):
    """One run of the net."""

    session_id: int
    state: str
    started_utc: datetime
    seconds: float


class Durations(Shape):
    """How long the newest runs of a net took, oldest first, and each of its jobs; the longest job first."""

    net_name: str
    net: Series | None
    jobs: list[Series]
    runs: list[SessionTook]


class SwitchReport(Shape):
    """What became of what was open when a member took job control up. `sessions`: runs of nets; the rest counts runs of
    jobs: those that go on, have ended, are unknown, or are on hosts that were not heard of (`silent_hosts`, the first few);
    `repeated`: orders sent again under their ids.
    """

    epoch: int
    member: str
    taken_utc: datetime
    told_utc: datetime
    sessions: int
    going_on: int
    ended: int
    unknown: int
    silent: int
    repeated: int
    silent_hosts: list[str]


class SwitchReports(Shape):
    """The reports, newest first."""

    reports: list[SwitchReport]
