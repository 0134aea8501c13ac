"""A Trigger as people write it in YAML, and the values that it gives to its net's parameters.

    kind: Trigger                                        kind: Trigger
    name: disk-full                                      name: deploy
    job_net: clean-up                                    job_net: deploy
    event: {monitor: disk-logs, priority: [critical]}    webhook: {key: X-GitHub-Delivery}
    set: {HOST: host, TEXT: message}                     set: {REF: head_commit.id}

`file: {host: h, path: /in, files: "*.csv"}` is the third. `set` names, for each parameter, a field of the event or the
file, or a place in the JSON that the request brought.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from glob import escape
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from futago.inventory.duration import Duration
from futago.inventory.model import HostName, Kind, Name, Object, Priority, Reference
from futago.jobs.condition_definitions import Part, VariableName
from futago.jobs.definitions import FilePath, FilePattern
from futago.jobs.hook_signature import GITHUB_DELIVERY
from futago.jobs.parameters import VALUE_CHARS_MAX, VARIABLES_MAX

FILE_FIELDS = ("host", "path", "name", "size", "modified")
EVENT_FIELDS = ("host", "monitor", "priority", "message", "event_id", "occurred")
FieldPath = Annotated[str, StringConstraints(pattern=r"^[^.\x00-\x1f]{1,100}(\.[^.\x00-\x1f]{1,100}){0,9}$")]


class OnEvent(Part):
    """Events of this monitor; of these priorities (none named: any), of this host, whose message holds this text."""

    monitor: Name
    priority: list[Priority] = Field(default=[], max_length=4)
    host: HostName | None = None
    contains: str = Field(default="", max_length=1000)


class OnRequest(Part):
    """Requests with the trigger's secret. `key`: the header that tells one delivery from another (where nothing is written:
    `Idempotency-Key`, of GitHub's `X-GitHub-Delivery`); `signed`: the secret is not sent, but signs the request, in our own
    way or in GitHub's.
    """

    key: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]{1,100}$")] = "Idempotency-Key"
    signed: bool | Literal["github"] = False

    @model_validator(mode="before")
    @classmethod
    def _named_by_github(cls, written: Any) -> Any:
        if isinstance(written, dict) and written.get("signed") == "github":
            return {"key": GITHUB_DELIVERY, **written}
        return written


class OnFile(Part):
    """Files of a host that come, change or go. `path`: the file; or, with `files`, the directory in which their names match.
    `settle`: a file counts once it has looked the same for so long.
    """

    host: HostName
    path: FilePath
    files: FilePattern | None = None
    when: Literal["created", "changed", "deleted"] = "created"
    interval: Annotated[Duration, Field(ge=timedelta(seconds=1), le=timedelta(days=1))] = timedelta(seconds=5)
    settle: Annotated[Duration, Field(le=timedelta(days=1))] | None = None

    @model_validator(mode="after")
    def _is_sensible(self) -> OnFile:
        if self.files is None and self.path.count("/") == 1:
            raise ValueError("a file right under `/` cannot be watched; let it be in a directory")
        if self.settle is not None and self.when == "deleted":
            raise ValueError("`settle` belongs to files that come or change")
        return self

    @property
    def directory(self) -> str:
        """The directory that is read."""
        return self.path if self.files else self.path.rpartition("/")[0]

    @property
    def pattern(self) -> str:
        """What the names of the files match, below the directory."""
        return self.files or escape(self.path.rpartition("/")[2])

    @property
    def watched(self) -> str:
        """Which files, and what of them: what has been seen is of use as long as this is the same."""
        return self.model_dump_json(include={"host", "path", "files", "when"})


class Trigger(Object):
    """What starts a net. `if_open`: whether an event or a file starts it while a session of the net is open."""

    name: Name
    job_net: Name
    enabled: bool = True
    event: OnEvent | None = None
    webhook: OnRequest | None = None
    file: OnFile | None = None
    set: dict[VariableName, FieldPath] = Field(default={}, max_length=VARIABLES_MAX)
    if_open: Literal["start", "skip"] = "start"

    @model_validator(mode="after")
    def _is_one(self) -> Trigger:
        if sum(one is not None for one in (self.event, self.webhook, self.file)) != 1:
            raise ValueError("write one of `event`, `webhook`, `file`")
        if self.webhook is not None and self.if_open == "skip":
            raise ValueError("`if_open` belongs to `event` and `file`: whoever sends a request is told what it started")
        fields, what = (EVENT_FIELDS, "an event") if self.event else (FILE_FIELDS, "a file")
        unknown = [field for field in self.set.values() if self.webhook is None and field not in fields]
        if unknown:
            raise ValueError(f"`set` names `{unknown[0]}`; {what} has {', '.join(fields)}")
        return self

    def references(self) -> Iterator[Reference]:
        """Yield the net, and the monitor and the host if it names them."""
        yield Reference(Kind.JOB_NET, self.job_net, ("job_net",))
        if self.event is not None:
            yield Reference(Kind.MONITOR, self.event.monitor, ("event", "monitor"))
            if self.event.host is not None:
                yield Reference(Kind.HOST, self.event.host, ("event", "host"))
        if self.file is not None:
            yield Reference(Kind.HOST, self.file.host, ("file", "host"))

    def wants(self, event: Mapping[str, str]) -> bool:
        """Return whether an event of its monitor starts it; `event` holds EVENT_FIELDS."""
        if self.event is None or not self.enabled or event["monitor"] != self.event.monitor:
            return False
        return (
            (not self.event.priority or event["priority"] in self.event.priority)
            and self.event.host in (None, event["host"])
            and self.event.contains.casefold() in event["message"].casefold()
        )

    def values(self, of: Mapping[str, Any]) -> dict[str, str]:
        """Return the parameters that an event, or the JSON of a request, gives; a place that is not there gives none.

        Raises:
            ValueError: with a sentence: what is there is no value, but an object or a list.
        """
        found = {parameter: _at(of, path) for parameter, path in self.set.items()}
        return {parameter: text for parameter, text in found.items() if text is not None}


def _at(of: Mapping[str, Any], path: str) -> str | None:
    place: Any = of
    for name in path.split("."):
        if not isinstance(place, Mapping) or name not in place:
            return None
        place = place[name]
    if place is None:
        return None
    if isinstance(place, bool):
        return "true" if place else "false"
    if not isinstance(place, str | int | float):
        raise ValueError(f"`{path}` is no single value")
    return str(place)[:VALUE_CHARS_MAX]
