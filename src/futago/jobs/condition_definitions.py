"""What a job waits for, as people write it under `after`, and how it becomes a condition.

    after: [extract]                                    it ended well
    after: [{job: extract, end: [abnormal, unknown]}]
    after: [{job: count, value: 1-9}]
    after: [{time: "22:30"}, {elapsed: 30m}]
    after: [{variable: MODE, is: full}]
    after: [{session: intake, end: normal, within: 1d}]
    after: [{calendar: bank, is: closed}]
    after: [{any: [a, {all: [b, c]}]}]

All items of `after` must hold. `/load/extract` names a job by its path from the outermost net; a name without a slash
is a job of the same net.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    model_validator,
)

from futago.inventory.duration import Duration
from futago.inventory.model import Name
from futago.jobs import plan
from futago.jobs.model import ENDS, OPEN_SESSION, Ask, JobName, JobState, SessionState
from futago.jobs.schedule_definitions import TimeField, offset_of

CODE_MAX = 2**31 - 1  # of the column
GROUP_MAX = 10_000

End = Literal["normal", "warning", "abnormal", "unknown", "not-run", "any"]
SessionEnd = Literal["normal", "warning", "abnormal", "unknown", "any"]
_CODES = re.compile(r"\d{1,10}(-\d{1,10})?(,\d{1,10}(-\d{1,10})?)*\Z")

_PART = r"\w[\w.@:-]{0,62}"
_PATH = re.compile(rf"({_PART}|(/{_PART}){{1,10}})\Z")
_REFERENCE = re.compile(rf"{_PART}(/{_PART}){{1,9}}\Z")


def _path(text: str) -> str:
    if not _PATH.match(text):
        raise ValueError(f"`{text}` is not the name of a job, nor a path such as /load/extract")
    return text


def _reference(text: str) -> str:
    if not _REFERENCE.match(text):
        raise ValueError(f"`{text}` does not name a job of another net; write such as nightly/load/extract")
    return text


JobPath = Annotated[str, AfterValidator(_path)]
JobReference = Annotated[str, AfterValidator(_reference)]
VariableName = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]{0,62}$")]


def as_list(value: object) -> object:
    """Return a lone word as a list of it."""
    return [value] if isinstance(value, str) else value


def codes_text(value: object) -> str:
    """Return the text of a set of end values, checked.

    Raises:
        ValueError: with a sentence.
    """
    text = str(value).replace(" ", "")
    if isinstance(value, bool) or not _CODES.match(text):
        raise ValueError(f"`{value}` is not a set of end values; write such as 0, 1-9 or 0,4,10-19")
    for low, high in ranges_of(text):
        if not low <= high <= CODE_MAX:
            raise ValueError(f"`{low}-{high}` is not a range of end values between 0 and {CODE_MAX}")
    return text


def ranges_of(text: str) -> tuple[tuple[int, int], ...]:
    """Return the closed ranges that a checked text writes."""
    parts = (part.partition("-") for part in text.split(",") if part)
    return tuple((int(low), int(high or low)) for low, _, high in parts)


CodesField = Annotated[str, BeforeValidator(codes_text, json_schema_input_type=str | int)]


Ends = Annotated[list[End], BeforeValidator(as_list, json_schema_input_type=End | list[End])]
SessionEnds = Annotated[
    list[SessionEnd], BeforeValidator(as_list, json_schema_input_type=SessionEnd | list[SessionEnd])
]


class Part(BaseModel):
    """A piece of a definition: no unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class After(Part):
    """A predecessor and the ends, or the end values, of it that are waited for. `any`: whatever becomes of it."""

    job: JobPath
    end: Annotated[Ends, Field(min_length=1)] | None = None
    value: CodesField | None = None

    @model_validator(mode="after")
    def _is_one(self) -> After:
        if self.end and self.value is not None:
            raise ValueError("write `end` or `value`, not both")
        return self

    def condition(self, net: str) -> plan.Condition:
        """Return it as the decision sees it."""
        job = absolute(self.job, net)
        if self.value is not None:
            return plan.ValueIs(job, plan.Codes(ranges_of(self.value)))
        return plan.EndIs(job, ends_of(self.end or ["normal", "warning"]))


class AtTime(Part):
    """A time of the session's day, to "47:59"."""

    time: TimeField

    def condition(self, _net: str) -> plan.Condition:
        """Return it as the decision sees it."""
        return plan.TimeIs(offset_of(self.time))


class AfterElapsed(Part):
    """So long after the session's beginning."""

    elapsed: Duration

    def condition(self, _net: str) -> plan.Condition:
        """Return it as the decision sees it."""
        return plan.Elapsed(self.elapsed)


def _scalar(value: object) -> object:
    """Return the text of a number or a truth value, as YAML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else value


Scalar = Annotated[
    str, BeforeValidator(_scalar, json_schema_input_type=str | int | float | bool), Field(max_length=4096)
]


class Variable(Part):
    """A variable of the session, and how it compares."""

    variable: VariableName
    is_: Scalar | None = Field(default=None, alias="is")
    is_not: Scalar | None = None
    less: float | None = None
    more: float | None = None

    model_config = ConfigDict(extra="forbid", frozen=True, serialize_by_alias=True, validate_by_name=True)

    @model_validator(mode="after")
    def _is_one(self) -> Variable:
        if len(self._chosen()) != 1:
            raise ValueError("write one of `is`, `is_not`, `less`, `more`")
        return self

    def _chosen(self) -> list[tuple[plan.Comparison, str]]:
        fields = ((plan.Comparison.IS, self.is_), (plan.Comparison.IS_NOT, self.is_not))
        numbers = ((plan.Comparison.LESS, self.less), (plan.Comparison.MORE, self.more))
        return [(c, str(v)) for c, v in (*fields, *numbers) if v is not None]

    def condition(self, _net: str) -> plan.Condition:
        """Return it as the decision sees it."""
        return plan.VariableIs(self.variable, *self._chosen()[0])


class OtherSession(Part):
    """The newest session of another net: of the same day, or begun at most `within` before this one."""

    session: Name
    end: Annotated[SessionEnds, Field(min_length=1)] = ["normal", "warning"]
    within: Duration | None = None

    def condition(self, _net: str) -> plan.Condition:
        """Return it as the decision sees it."""
        ended = (s for s in SessionState if s not in OPEN_SESSION)
        ends = frozenset(s for s in ended if "any" in self.end or s.value in self.end)
        return plan.OtherEnded(Ask(self.session, self.within), ends)


class OnDay(Part):
    """The session's day is open, or closed, in a calendar."""

    calendar: Name
    is_: Literal["open", "closed"] = Field(default="open", alias="is")

    model_config = ConfigDict(extra="forbid", frozen=True, serialize_by_alias=True, validate_by_name=True)

    def condition(self, _net: str) -> plan.Condition:
        """Return it as the decision sees it."""
        return plan.DayIs(self.calendar, self.is_ == "open")


class AllGroup(Part):
    """All of these."""

    all: list[Item] = Field(min_length=1, max_length=GROUP_MAX)

    def condition(self, net: str) -> plan.Condition:
        """Return it as the decision sees it."""
        return plan.AllOf(tuple(item.condition(net) for item in self.all))


class AnyGroup(Part):
    """At least one of these."""

    any: list[Item] = Field(min_length=1, max_length=GROUP_MAX)

    def condition(self, net: str) -> plan.Condition:
        """Return it as the decision sees it."""
        return plan.AnyOf(tuple(item.condition(net) for item in self.any))


_TAGS = ("job", "time", "elapsed", "variable", "session", "calendar", "all", "any")


def _tag(value: object) -> str:
    """Return the field that tells which kind of item it is."""
    if isinstance(value, dict):
        return next((t for t in _TAGS if t in value), "job")
    return next((t for t in _TAGS if hasattr(value, t)), "job")


def _as_item(value: object) -> object:
    return {"job": value} if isinstance(value, str) else value


_Written = Annotated[
    Annotated[After, Tag("job")]
    | Annotated[AtTime, Tag("time")]
    | Annotated[AfterElapsed, Tag("elapsed")]
    | Annotated[Variable, Tag("variable")]
    | Annotated[OtherSession, Tag("session")]
    | Annotated[OnDay, Tag("calendar")]
    | Annotated[AllGroup, Tag("all")]
    | Annotated[AnyGroup, Tag("any")],
    Discriminator(_tag),
]
Item = Annotated[_Written, BeforeValidator(_as_item, json_schema_input_type=JobPath | _Written)]
AllGroup.model_rebuild()
AnyGroup.model_rebuild()


def absolute(path: str, net: str) -> JobName:
    """Return the path from the outermost net; `net` is where the name is written, empty: the outermost."""
    if path.startswith("/"):
        return JobName(path[1:])
    return JobName(f"{net}/{path}" if net else path)


def ends_of(words: list[Any]) -> frozenset[JobState]:
    """Return the ends that these words mean. What a person leaves out counts as done."""
    ends = ENDS if "any" in words else frozenset(JobState(word) for word in words)
    return ends | {JobState.SKIPPED} if JobState.NORMAL in ends else ends


def condition_of(items: list[Any], net: str) -> plan.Condition:
    """Return the condition that all items of `after` make."""
    return plan.AllOf(tuple(item.condition(net) for item in items))


def leaves(items: list[Any], path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Yield the items that are no groups, each with where it stands."""
    for i, item in enumerate(items):
        match item:
            case AllGroup():
                yield from leaves(item.all, (*path, i, "all"))
            case AnyGroup():
                yield from leaves(item.any, (*path, i, "any"))
            case _:
                yield (*path, i), item
