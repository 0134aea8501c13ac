"""YAML text to checked objects. Every complaint names the file, the line, the kind and the field.

Lives here: which model belongs to which `kind`, and how a complaint is worded. Not here: YAML itself (document.py),
what the objects are (model.py, jobs/definitions.py), and what only the database can tell (apply.py). All complaints
of a text are gathered and shown at once.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any, Protocol, cast, get_args

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from futago.inventory.document import DocumentError, Mapping, Node, Sequence, line_of, plain, read
from futago.inventory.model import Kind, Reference
from futago.runtime.faults import OperatorFault

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
COMPLAINTS_MAX = 20  # more help nobody


class Definable(Protocol):
    """What every kind of object offers."""

    @property
    def name(self) -> str: ...

    def references(self) -> Iterable[Reference]:
        """Yield the objects that this one names."""
        ...

    def complaints(self) -> Iterable[tuple[tuple[str | int, ...], str]]:
        """Yield what makes no sense in it as a whole, each with the field that it is about."""
        ...

    def model_dump(self, *, mode: str = "python") -> dict[str, Any]:
        """Return plain data that validates to the same object."""
        ...


@dataclass(frozen=True, slots=True)
class Definition:
    """One object as it stood in a file."""

    kind: Kind
    object: Definable
    file: str
    node: Node

    @property
    def name(self) -> str:
        return self.object.name

    def place(self, path: tuple[str | int, ...] = ("name",)) -> str:
        """Return ``file:line: kind K `name` `` for a complaint about the field at `path`."""
        return f"{self.file}:{line_of(self.node, path)}: {self.kind} `{self.name}`"


def complaint(lines: Iterable[str]) -> OperatorFault:
    """Return the fault that shows these complaints."""
    known = list(lines)
    shown = known[:COMPLAINTS_MAX]
    if len(known) > len(shown):
        shown.append(f"... and {len(known) - len(shown)} more")
    return OperatorFault(
        "\n".join(shown), hint="Nothing has been changed: correct it and apply again.", code="apply.invalid"
    )


def parse(text: str, *, file: str = "<text>") -> list[Definition]:
    """Return the objects of a multi-document YAML text, in its order.

    Raises:
        OperatorFault: with one line per complaint: file, line, kind, field, what is wrong.
    """
    found: list[Definition] = []
    complaints: list[str] = []
    try:
        for node in read(text):
            try:
                found.append(_definition(node, file))
            except _Complaints as e:
                complaints += e.lines
    except DocumentError as e:
        complaints.append(f"{file}:{e.line}: {e.what}")
    complaints += _duplicates(found)
    if complaints:
        raise complaint(complaints)
    return found


class _Complaints(Exception):
    def __init__(self, *lines: str) -> None:
        super().__init__(*lines)
        self.lines = lines


# Jobs are heavy, and their own column: imported when somebody writes about them.
_MODELS = {
    Kind.HOST: "futago.inventory.model:Host",
    Kind.SCOPE: "futago.inventory.model:Scope",
    Kind.NOTIFICATION: "futago.inventory.model:Notification",
    Kind.MONITOR: "futago.inventory.model:Monitor",
    Kind.CALENDAR: "futago.jobs.schedule_definitions:CalendarObject",
    Kind.JOB_UNIT: "futago.jobs.definitions:JobUnit",
    Kind.JOB_QUEUE: "futago.jobs.control_definitions:JobQueue",
    Kind.JOB_NET: "futago.jobs.definitions:JobNet",
    Kind.SCHEDULE: "futago.jobs.schedule_definitions:Schedule",
    Kind.TRIGGER: "futago.jobs.trigger_definitions:Trigger",
}


def _annotation(kind: Kind) -> Any:
    module, _, name = _MODELS[kind].partition(":")
    return getattr(import_module(module), name)


@cache
def _adapter(kind: Kind) -> TypeAdapter[Any]:
    return TypeAdapter(_annotation(kind))


def schema_of(kind: Kind | None = None) -> dict[str, Any]:
    """Return the JSON schema of one kind as people write it, or of any."""
    made = [_schema(k) for k in ([kind] if kind else Kind)]
    shared: dict[str, Any] = {}
    for one in made:
        shared |= one.pop("$defs", {})
    chosen = made[0] if kind else {"title": "Futago", "anyOf": made}
    return {"$schema": _DIALECT, **chosen, "$defs": shared}


def _schema(kind: Kind) -> dict[str, Any]:
    schema = _adapter(kind).json_schema(by_alias=True, mode="validation")
    for member in [schema] if "properties" in schema else _alternatives(schema):
        member["properties"] = {"kind": {"const": kind.value}, **member["properties"]}
        member["required"] = ["kind", *member.get("required", [])]
    return schema


def _alternatives(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the models that a union is made of."""
    return [schema["$defs"][one["$ref"].rpartition("/")[2]] for one in schema["oneOf"]]


def validate(kind: Kind, spec: dict[str, Any]) -> Definable:
    """Return the object that a `spec` column holds.

    Raises:
        ValidationError: pydantic's; another version of the program wrote another shape.
    """
    return cast("Definable", _adapter(kind).validate_python(spec))


def _definition(node: Node, file: str) -> Definition:
    kind = _kind(node, file)
    data = plain(node)
    del data["kind"]
    try:
        found = Definition(kind, validate(kind, data), file, node)
        wrong = [f"{found.place(path)}: {text}" for path, text in found.object.complaints()]
        if wrong:
            raise _Complaints(*wrong)
        return found
    except ValidationError as e:
        label = f"kind {kind}" + (f" `{data['name']}`" if isinstance(data.get("name"), str) else "")
        raise _Complaints(*(_sentence(kind, label, node, file, error) for error in e.errors(include_url=False))) from e


def _kind(node: Node, file: str) -> Kind:
    if not isinstance(node, Mapping):
        raise _Complaints(f"{file}:{node.line}: a document is a set of fields, beginning with `kind:`")
    known = ", ".join(Kind)
    if "kind" not in node.entries:
        raise _Complaints(f"{file}:{node.line}: field `kind` is missing; kinds are {known}")
    line, value = node.entries["kind"]
    name = plain(value)
    if name not in set(Kind):
        close = difflib.get_close_matches(str(name), list(Kind), n=1)
        hint = f"did you mean `{close[0]}`?" if close else f"kinds are {known}"
        raise _Complaints(f"{file}:{line}: kind `{name}` is not known; {hint}")
    return Kind(name)


def _sentence(kind: Kind, label: str, node: Node, file: str, error: ErrorDetails) -> str:
    path = _written_path(node, error["loc"])
    if error["type"] == "missing":
        path = (*path, error["loc"][-1])
    where = f"{file}:{line_of(node, path)}: {label}"
    field = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path).lstrip(".")
    match error["type"]:
        case "extra_forbidden":
            models = _models_at(_annotation(kind), error["loc"][:-1])
            known = list({str(info.alias or name) for m in models for name, info in m.model_fields.items()})
            close = difflib.get_close_matches(str(path[-1]), known, n=1)
            hint = f"did you mean `{close[0]}`?" if close else f"known are {', '.join(sorted(known))}"
            return f"{where}: field `{field}` is not known; {hint}"
        case "missing":
            return f"{where}: field `{field}` is missing"
        case "union_tag_not_found":
            return f"{where}: field `{_tag_of(error)}` is missing"
        case "union_tag_invalid":
            wrong = (*path, _tag_of(error))
            context = error.get("ctx", {})
            return (
                f"{file}:{line_of(node, wrong)}: {label}: field `{_tag_of(error)}` is `{context.get('tag')}`; "
                f"it must be one of {context.get('expected_tags')}"
            )
    text = error["msg"].removeprefix("Value error, ")
    return f"{where}: field `{field}`: {text}" if field else f"{where}: {text}"


def _tag_of(error: ErrorDetails) -> str:
    return str(error.get("ctx", {}).get("discriminator", "")).strip("'")


def _written_path(node: Node, loc: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """Return the error's location without the parts that pydantic adds for its own unions."""
    path: list[str | int] = []
    for part in loc:
        if isinstance(node, Mapping) and part in node.entries:
            path.append(part)
            node = node.entries[str(part)][1]
        elif isinstance(node, Sequence) and isinstance(part, int):
            path.append(part)
            node = node.items[part]
    return tuple(path)


def _models_at(annotation: Any, loc: tuple[str | int, ...]) -> list[type[BaseModel]]:
    """Return the models that an object at `loc` may be of: fields are entered, tags of unions choose."""
    models = _members(annotation)
    for part in loc:
        fields = [(m, name, info) for m in models for name, info in m.model_fields.items()]
        entered = [info.annotation for _, name, info in fields if part in (name, info.alias)]
        tagged = [m for m, _, info in fields if part in get_args(info.annotation)]
        if isinstance(part, str) and entered:
            models = [member for found in entered for member in _members(found)]
        elif isinstance(part, str) and tagged:
            models = tagged
    return models


def _members(annotation: Any) -> list[type[BaseModel]]:
    """Return the models inside unions, lists and annotations, without entering their fields."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [member for part in get_args(annotation) for member in _members(part)]


def _duplicates(found: list[Definition]) -> Iterator[str]:
    first: dict[tuple[Kind, str], Definition] = {}
    for definition in found:
        known = first.setdefault((definition.kind, definition.name), definition)
        if known is not definition:
            yield f"{definition.place()} is defined twice (first in {known.file}:{line_of(known.node, ('name',))})"
