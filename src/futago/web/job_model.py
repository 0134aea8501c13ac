"""What goes over the wire about job nets, their schedules and their runs.

Pure shapes, as model.py.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Any, Literal

from pydantic import Field

from futago.jobs.model import JobState, Operation
from futago.web.model import Shape

JOB_PATH_MAX = 640  # ten names of 63 characters, and the slashes
VARIABLES_MAX = 100


class JobNet(Shape):
    """A job net as it was defined."""

    net_name: str
    version: int
    spec: dict[str, Any]
    last_session_id: int | None
    last_state: str | None
    owner: str = Field(default="", description="The owner role, its own or its unit's.")


class JobNets(Shape):
    """All job nets, by name."""

    job_nets: list[JobNet]


class Schedule(Shape):
    """When a net is started by itself. `next_utc` null: never again, or not enabled."""

    schedule_name: str
    job_net: str
    enabled: bool
    timezone: str
    next_utc: datetime | None
    spec: dict[str, Any]


class Schedules(Shape):
    """All schedules, by name. `unreadable`: complaints about those that another version of the program wrote."""

    schedules: list[Schedule]
    unreadable: list[str]


class Trigger(Shape):
    """What starts a net beside schedules and people. `secret_since_utc`: of one that waits for requests; null: none.
    `watched_since_utc`: of one that waits for files; null: its host has not been asked yet. `fault`: why they cannot be read.
    """

    trigger_name: str
    job_net: str
    enabled: bool
    waits_for: Literal["event", "webhook", "file"]
    secret_since_utc: datetime | None
    watched_since_utc: datetime | None = None
    fault: str = ""
    spec: dict[str, Any]


class Triggers(Shape):
    """All triggers, by name."""

    triggers: list[Trigger]


class TriggerSecret(Shape):
    """The secret of a trigger's requests, shown this once, and where they go."""

    trigger_name: str
    path: str
    secret: str


class PlannedStart(Shape):
    """One start that will be made. `business_date`: the date whose work it is, in the schedule's time zone."""

    at_utc: datetime
    business_date: date
    schedule_name: str
    job_net: str
    timezone: str


class Upcoming(Shape):
    """The starts until an instant, oldest first. `is_complete` false: there are more than were asked for."""

    until_utc: datetime
    is_complete: bool
    starts: list[PlannedStart]


class Session(Shape):
    """One run of a job net, and how many of its jobs are in each state."""

    session_id: int
    net_name: str
    state: str
    trigger: str
    created_utc: datetime
    started_utc: datetime | None
    ended_utc: datetime | None
    job_states: dict[str, int]


class Sessions(Shape):
    """Runs of job nets, newest first. `next` continues the list as `before`; null at the end."""

    runs: list[Session]
    next: int | None


class JobRun(Shape):
    """One attempt of one job of a session."""

    run_id: str
    job_name: str
    host_name: str
    state: str
    attempt: int
    exit_code: int | None
    started_utc: datetime | None = Field(description="By the host's clock, as ended_utc.")
    ended_utc: datetime | None
    detail: str | None
    is_held: bool = Field(description="It waits for a person's release, too.")
    is_stopping: bool = Field(description="A person wants it ended; its agent is told until it has.")
    output: str | None = Field(description="The end of what the job wrote.")


class SessionDetail(Session):
    """One run of a job net with all its jobs."""

    jobs: list[JobRun]


class AskedOperation(Shape):
    """What to do to a running session. `job` null (stop, suspend, resume): to everything in it. `status`, `value`: how it
    ends, of `end`. `note`: why.
    """

    operation: Operation
    job: str | None = Field(default=None, max_length=JOB_PATH_MAX)
    status: JobState | None = None
    value: int | None = Field(default=None, ge=-(2**31), lt=2**31)
    note: str = Field(default="", max_length=1000)


class AskedStart(Shape):
    """With which parameters a net is started."""

    parameters: dict[str, str] = Field(default={}, max_length=VARIABLES_MAX)


class AskedRerun(Shape):
    """From where an ended run runs again. `job` null: from every job that failed."""

    job: str | None = Field(default=None, max_length=JOB_PATH_MAX)


class RunsAgain(Shape):
    """The run has begun again, with these jobs. `repeated`: the request with this key had done it before."""

    session_id: int
    jobs: list[str]
    repeated: bool = False


class OperationDone(Shape):
    """The operation was done, or (`is_decided` false) will be decided when the pair serves again."""

    operation_id: int
    is_decided: bool


class Started(Shape):
    """The run exists. `repeated`: the key was known, and this is the run of then."""

    session_id: int
    repeated: bool
