"""How a job is kept in check, as people write it: delays, retries, calendars, queues. And the JobQueue object."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from futago.inventory.duration import Duration
from futago.inventory.model import Name, Object
from futago.jobs import plan
from futago.jobs.condition_definitions import Ends, Part, ends_of
from futago.jobs.model import JobState
from futago.jobs.schedule_definitions import TimeField, offset_of

GivenEnd = Literal["normal", "warning", "abnormal", "skipped"]


def _named(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


def _after(value: object) -> object:
    return {"after": value} if isinstance(value, str) else value


class StartDelay(Part):
    """By when the unit has begun: `at` a time of the session's day, `after` so long since the session's beginning."""

    at: TimeField | None = None
    after: Duration | None = None
    notify: bool = True
    then: GivenEnd | None = None

    @model_validator(mode="after")
    def _says_when(self) -> StartDelay:
        if not (self.at or self.after):
            raise ValueError("write `at`, `after` or both")
        return self

    def limit(self) -> plan.Limit:
        """Return it as the decision sees it."""
        return plan.Limit(
            offset=offset_of(self.at) if self.at else None,
            elapsed=self.after,
            tells=self.notify,
            then=JobState(self.then) if self.then else None,
        )


class EndDelay(Part):
    """By when the unit has ended: `at` a time of the session's day, `after` so long since its own beginning,
    `session_after` since the session's; `deviations` above the mean of its past durations.
    """

    at: TimeField | None = None
    after: Duration | None = None
    session_after: Duration | None = None
    deviations: float | None = Field(default=None, gt=0, le=100)
    notify: bool = True
    stop: bool = False
    then: GivenEnd | None = None

    @model_validator(mode="after")
    def _says_when(self) -> EndDelay:
        if not (self.at or self.after or self.session_after or self.deviations):
            raise ValueError("write `at`, `after`, `session_after`, `deviations`, or several of them")
        return self

    def limit(self) -> plan.Limit:
        """Return it as the decision sees it."""
        return plan.Limit(
            offset=offset_of(self.at) if self.at else None,
            elapsed=self.session_after,
            length=self.after,
            deviations=self.deviations,
            tells=self.notify,
            stops=self.stop,
            then=JobState(self.then) if self.then else None,
        )


class RetryDefinition(Part):
    """Up to `count` more attempts, `interval` apart, until it ends in one of `until`."""

    count: int = Field(ge=1, le=1000)
    interval: Duration | None = None
    until: Ends = Field(default=["normal", "warning"], min_length=1)
    on_unknown: bool = False

    def retry(self) -> plan.Retry:
        """Return it as the decision sees it."""
        return plan.Retry(self.count, self.interval or timedelta(0), ends_of(self.until), self.on_unknown)


class OnDays(Part):
    """On which days it runs at all, and how it ends on the others."""

    name: Name
    outside: GivenEnd = "skipped"


class InQueue(Part):
    """Where it waits for its turn; `if_full`: it does not wait, it ends so."""

    name: Name
    if_full: GivenEnd | None = None


StartDelayField = Annotated[StartDelay, BeforeValidator(_after, json_schema_input_type=str | StartDelay)]
EndDelayField = Annotated[EndDelay, BeforeValidator(_after, json_schema_input_type=str | EndDelay)]
CalendarField = Annotated[OnDays, BeforeValidator(_named, json_schema_input_type=str | OnDays)]
QueueField = Annotated[InQueue, BeforeValidator(_named, json_schema_input_type=str | InQueue)]


class JobQueue(Object):
    """How many jobs run at once of those that name it: in all, or (`per_host`) on each host. 0: none for now. Nets of any owner
    role may name it; `owner` says who sees its definition.
    """

    name: Name
    owner: Name | None = None
    limit: int = Field(ge=0, le=100_000)
    per_host: bool = False


def skip_word(value: Any) -> Any:
    """Return the end that `skip` names; `true` stands for skipped."""
    return "skipped" if value is True else None if value is False else value
