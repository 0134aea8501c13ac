"""YAML text as a tree that remembers its lines. Input is hostile until proven otherwise.

Lives here: syntax and bounds. Not here: what a field means (model.py). Built from the parser's events instead of
PyYAML's own loader, so that nothing is constructed that we did not ask for: no tags, no anchors (a few lines of
aliases can stand for gigabytes), no duplicate keys, scalars as in YAML 1.2 (`off` is a word, not a boolean; `1:30`
is not 90).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

TEXT_BYTES_MAX = 4 << 20  # ten thousand monitors are about 1.5 MB
NODES_MAX = 400_000  # about 4 s of work
DEPTH_MAX = 20  # our deepest object needs 6

Plain = str | int | float | bool | None
_INT = re.compile(r"[-+]?[0-9]+\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_WORDS: dict[str, Plain] = {
    "": None,
    "~": None,
    "null": None,
    "true": True,
    "True": True,
    "false": False,
    "False": False,
}
_DIGITS_MAX = 18  # a longer number is a word: it fits no column, and conversion is quadratic


class DocumentError(Exception):
    """The text is not what we accept as YAML. `line` counts from 1."""

    def __init__(self, line: int, what: str) -> None:
        super().__init__(what)
        self.line = line
        self.what = what


@dataclass(frozen=True, slots=True)
class Leaf:
    line: int
    value: Plain


@dataclass(frozen=True, slots=True)
class Sequence:
    line: int
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Mapping:
    """`entries`: key → (line of the key, value)."""

    line: int
    entries: dict[str, tuple[int, Node]]


Node = Leaf | Sequence | Mapping


def plain(node: Node) -> Any:
    """Return the node as dicts, lists and scalars."""
    match node:
        case Mapping(entries=entries):
            return {key: plain(value) for key, (_, value) in entries.items()}
        case Sequence(items=items):
            return [plain(item) for item in items]
        case Leaf(value=value):
            return value


def line_of(node: Node, path: tuple[str | int, ...]) -> int:
    """Return the line of the deepest part of `path` that exists; parts that name nothing are passed over."""
    line = node.line
    for part in path:
        match node:
            case Mapping(entries=entries) if part in entries:
                line, node = entries[str(part)]
            case Sequence(items=items) if isinstance(part, int) and part < len(items):
                node = items[part]
                line = node.line
    return line


def read(text: str) -> Iterator[Node]:
    """Yield the non-empty documents of a text.

    Raises:
        DocumentError: not YAML, or beyond the bounds, or with something that we do not accept.
    """
    if len(text.encode("utf-8", errors="surrogatepass")) > TEXT_BYTES_MAX:
        raise DocumentError(1, f"the text is longer than {TEXT_BYTES_MAX >> 20} MiB")
    try:
        yield from _Reader(yaml.parse(text, Loader=yaml.CSafeLoader)).documents()
    except yaml.MarkedYAMLError as e:
        is_unfinished = "end of stream" in str(e.problem)  # then where it began helps more
        mark = (e.context_mark if is_unfinished else None) or e.problem_mark or e.context_mark
        raise DocumentError(mark.line + 1 if mark else 1, f"not valid YAML: {e.problem or e.context}") from e
    except (yaml.YAMLError, UnicodeError) as e:
        raise DocumentError(1, f"not valid YAML: {' '.join(str(e).split())}") from e


class _Reader:
    def __init__(self, events: Iterator[yaml.Event]) -> None:
        self._events = events
        self._nodes = 0

    def documents(self) -> Iterator[Node]:
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                node = self._node(next(self._events), 1)
                if node != Leaf(node.line, None):
                    yield node

    def _node(self, event: yaml.Event, depth: int) -> Node:
        line = _line(event)
        self._nodes += 1
        if self._nodes > NODES_MAX:
            raise DocumentError(line, f"the text holds more than {NODES_MAX} values")
        if depth > DEPTH_MAX:
            raise DocumentError(line, f"nested deeper than {DEPTH_MAX} levels")
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise DocumentError(
                line, "anchors and aliases (& and *) are not accepted: write the value out, or quote it"
            )
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(event, line, depth)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(event, line, depth)
        assert isinstance(event, yaml.ScalarEvent)
        return Leaf(line, _scalar(event, line))

    def _mapping(self, start: yaml.MappingStartEvent, line: int, depth: int) -> Mapping:
        _no_tag(start.tag, line)
        entries: dict[str, tuple[int, Node]] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key_line = _line(event)
            if not isinstance(event, yaml.ScalarEvent):
                raise DocumentError(key_line, "a field's name must be a word")
            key = event.value
            if key in entries:
                raise DocumentError(key_line, f"field `{key}` stands here twice (first in line {entries[key][0]})")
            entries[key] = (key_line, self._node(next(self._events), depth + 1))
        return Mapping(line, entries)

    def _sequence(self, start: yaml.SequenceStartEvent, line: int, depth: int) -> Sequence:
        _no_tag(start.tag, line)
        items: list[Node] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            items.append(self._node(event, depth + 1))
        return Sequence(line, tuple(items))


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1


def _no_tag(tag: str | None, line: int) -> None:
    if tag and tag != "!":
        raise DocumentError(line, f"the tag `{tag}` is not accepted")


def _scalar(event: yaml.ScalarEvent, line: int) -> Plain:
    _no_tag(event.tag, line)
    text: str = event.value
    if event.style or not event.implicit[0]:
        return text
    if text in _WORDS:
        return _WORDS[text]
    if len(text) <= _DIGITS_MAX:
        if _INT.match(text):
            return int(text)
        if _FLOAT.match(text):
            return float(text)
    return text
