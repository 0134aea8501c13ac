"""A JobNet as people write it in YAML: a checked object, and how it becomes the nouns of model.py.

A complaint names what is wrong and, for a circle of jobs, the whole circle. References to other objects are only
named here; whether they exist is known when the text is applied.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
)

from futago.inventory.duration import Duration
from futago.inventory.model import HostName, Kind, Name, Object, Reference
from futago.jobs.model import ENDS, Codes, Job, JobName, JobState, Need, Net, make_net
from futago.link.orders import COMMAND_BYTES_MAX, ENV_MAX, ENV_VALUE_BYTES_MAX
from futago.runtime.faults import Corrupt

JOBS_MAX = 10_000  # in one net; more belong into several
CODE_MAX = 255

End = Literal["normal", "warning", "abnormal", "unknown", "not-run", "any"]
_CODES = re.compile(r"\d{1,3}(-\d{1,3})?(,\d{1,3}(-\d{1,3})?)*\Z")


def _command(text: str) -> str:
    if "\0" in text:
        raise ValueError("a command cannot hold a NUL character")
    if len(text.encode()) > COMMAND_BYTES_MAX:
        raise ValueError(f"a command has {COMMAND_BYTES_MAX} bytes at most; put a longer script on the host")
    return text


def _env_value(text: str) -> str:
    if "\0" in text or len(text.encode()) > ENV_VALUE_BYTES_MAX:
        raise ValueError(f"a variable holds {ENV_VALUE_BYTES_MAX} bytes at most, and no NUL character")
    return text


def _codes(value: object) -> str:
    text = str(value).replace(" ", "")
    if isinstance(value, bool) or not _CODES.match(text):
        raise ValueError(f"`{value}` is not a set of exit codes; write such as 0, 1-9 or 0,4,10-19")
    for low, high in _ranges(text):
        if not low <= high <= CODE_MAX:
            raise ValueError(f"`{low}-{high}` is not a range of exit codes between 0 and {CODE_MAX}")
    return text


def _ranges(text: str) -> tuple[tuple[int, int], ...]:
    parts = (part.partition("-") for part in text.split(",") if part)
    return tuple((int(low), int(high or low)) for low, _, high in parts)


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _as_need(value: object) -> object:
    return {"job": value} if isinstance(value, str) else value


JobNameField = Annotated[str, StringConstraints(pattern=r"^\w[\w.@:-]{0,62}$")]
UserField = Annotated[str, StringConstraints(pattern=r"^[a-z_][a-z0-9_.-]{0,31}\$?$")]
EnvName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")]
EnvValue = Annotated[str, AfterValidator(_env_value)]
CodesField = Annotated[str, BeforeValidator(_codes)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class After(_Part):
    """A predecessor and the ends of it that are waited for. `any`: whatever becomes of it."""

    job: JobNameField
    end: Annotated[list[End], BeforeValidator(_as_list), Field(min_length=1)] = ["normal", "warning"]

    def need(self) -> Need:
        """Return it as the decision sees it."""
        ends = ENDS if "any" in self.end else frozenset(JobState(e) for e in self.end)
        if JobState.NORMAL in ends:
            ends |= {JobState.SKIPPED}  # what a person leaves out counts as done
        return Need(JobName(self.job), ends)


class Codings(_Part):
    """Which exit codes are which end. What is in neither is abnormal."""

    normal: CodesField = "0"
    warning: CodesField | None = None


class JobDefinition(_Part):
    """One command on one host."""

    name: JobNameField
    host: HostName
    command: Annotated[str, Field(min_length=1), AfterValidator(_command)]
    after: list[Annotated[After, BeforeValidator(_as_need)]] = Field(default=[], max_length=JOBS_MAX)
    timeout: Duration | None = None
    user: UserField | None = None
    env: dict[EnvName, EnvValue] = Field(default={}, max_length=ENV_MAX)
    exit_codes: Codings = Codings()

    def job(self) -> Job:
        """Return it as the decision sees it."""
        return Job(
            name=JobName(self.name),
            host=self.host,
            command=self.command,
            needs=tuple(a.need() for a in self.after),
            user=self.user or "",
            env=MappingProxyType(dict(self.env)),
            timeout_s=self.timeout.total_seconds() if self.timeout else 0.0,
            normal=Codes(_ranges(self.exit_codes.normal)),
            warning=Codes(_ranges(self.exit_codes.warning or "")),
        )


class JobNet(Object):
    """Jobs and what each waits for. `notify`: who is told of an abnormal or unknown end."""

    name: Name
    notify: list[Name] = Field(default=[], max_length=100)
    jobs: list[JobDefinition] = Field(min_length=1, max_length=JOBS_MAX)

    @field_validator("jobs")
    @classmethod
    def _is_a_net(cls, jobs: list[JobDefinition]) -> list[JobDefinition]:
        names = [job.name for job in jobs]
        known = set(names)
        if len(known) < len(names):
            twice = next(n for i, n in enumerate(names) if n in names[:i])
            raise ValueError(f"two jobs are named `{twice}`")
        for job in jobs:
            for need in job.after:
                if need.job not in known:
                    close = difflib.get_close_matches(need.job, names, n=1)
                    hint = f"; did you mean `{close[0]}`?" if close else ""
                    raise ValueError(f"job `{job.name}` is after `{need.job}`, which is not a job of this net{hint}")
        circle = find_circle({job.name: [need.job for need in job.after] for job in jobs})
        if circle:
            raise ValueError(f"jobs wait for each other in a circle: {' -> '.join(circle)}")
        return jobs

    def references(self) -> Iterator[Reference]:
        """Yield the hosts and the notifications."""
        for i, job in enumerate(self.jobs):
            yield Reference(Kind.HOST, job.host, ("jobs", i, "host"))
        for i, name in enumerate(self.notify):
            yield Reference(Kind.NOTIFICATION, name, ("notify", i))

    def net(self) -> Net:
        """Return it as the decision sees it."""
        return make_net(self.name, tuple(j.job() for j in self.jobs), notify=tuple(self.notify))


def find_circle(waits_for: dict[str, list[str]]) -> list[str]:
    """Return one circle as a path whose last name is its first, in the order of waiting; empty if there is none.

    Walked with a stack of our own: a chain of ten thousand jobs is deeper than Python's.
    """
    done: set[str] = set()
    for root in waits_for:
        path: list[str] = []
        on_path: dict[str, int] = {}
        stack: list[tuple[str, Iterator[str]]] = []
        name: str | None = root
        while name is not None or stack:
            if name is not None and name not in done:
                if name in on_path:
                    return [*path[on_path[name] :], name]
                on_path[name] = len(path)
                path.append(name)
                stack.append((name, iter(waits_for[name])))
            if not stack:
                break
            top, rest = stack[-1]
            name = next(rest, None)
            if name is None:
                stack.pop()
                path.pop()
                del on_path[top]
                done.add(top)
    return []


def read_net(spec: dict[str, Any]) -> Net:
    """Return the net that a `spec` column holds.

    Raises:
        Corrupt: another version of the program wrote another shape.
    """
    try:
        return JobNet.model_validate(spec).net()
    except ValidationError as e:
        raise Corrupt(f"not a job net: {e}") from e
