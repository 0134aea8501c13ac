"""Message monitors: which message makes which event. Pure.

All patterns of all syslog monitors are one pattern set, those of all snmptrap monitors another. Within one monitor the
first pattern that matches decides; each monitor decides for itself.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

import msgspec

from futago.intake.patterns import Automata, PatternSet
from futago.intake.suppress import repeat_key

EVERY_HOST = "*"
EVENT_CHARS_MAX = 16_384
_NO_FIELDS: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Suppress:
    """For so long after an event repeats of it make none; `by`: host, message, or named groups of the pattern."""

    length_ns: int
    by: tuple[str, ...] = ("host",)


@dataclass(frozen=True, slots=True)
class Rule:
    """One pattern of a monitor, and what its event says."""

    match: str
    priority: str
    message: str
    suppress: Suppress | None = None


@dataclass(frozen=True, slots=True)
class MessageMonitor:
    """A monitor of kind syslog or snmptrap."""

    name: str
    kind: str
    scope: str
    rules: tuple[Rule, ...]
    notify: tuple[str, ...] = ()
    keep: bool = False  # messages that match are kept for search


class Match(msgspec.Struct, frozen=True, gc=False):
    """A message of which a monitor makes an event."""

    monitor: MessageMonitor
    rule: Rule
    message: str
    groups: Mapping[str, str]

    @property
    def priority(self) -> str:
        return self.rule.priority

    def repeat_key(self, host: str) -> bytes:
        """Return what a repeat of it has in common with it."""
        assert self.rule.suppress is not None
        known = {**self.groups, "host": host, "message": self.message}
        return repeat_key(self.monitor.name, self.rule.match, *(known.get(name, "") for name in self.rule.suppress.by))


class _Template:
    """A message with named holes, as str.format understands them, without anything beyond names."""

    __slots__ = ("_parts", "is_whole_text")

    def __init__(self, text: str) -> None:
        self._parts = [(literal, field) for literal, field, _, _ in string.Formatter().parse(text)]
        self.is_whole_text = self._parts == [("", "text")]

    def fill(self, text: str, groups: Mapping[str, str], fields: Mapping[str, str]) -> str:
        made = []
        for literal, field in self._parts:
            made.append(literal)
            if field is not None:
                made.append(groups[field] if field in groups else text if field == "text" else fields.get(field, ""))
        return "".join(made)


class RuleSet:
    """The monitors of one kind, compiled.

    Args:
        monitors: of one kind.
        automata: what was made of all their patterns, in their order; None: it is made here.

    Raises:
        OperatorFault: a pattern is not a regular expression.
        Corrupt: the automata are not for this machine.
    """

    def __init__(self, monitors: Sequence[MessageMonitor], automata: Automata | None = None) -> None:
        self.monitors = tuple(monitors)
        self._places = [(monitor, rule) for monitor in monitors for rule in monitor.rules]
        self._templates = [_Template(rule.message) for _, rule in self._places]
        self.patterns = PatternSet([rule.match for _, rule in self._places], automata)

    def matches(
        self,
        text: str,
        found: Sequence[int] | None = None,
        *,
        host: str,
        scopes: Mapping[str, Set[str]],
        fields: Mapping[str, str] = _NO_FIELDS,
    ) -> list[Match]:
        """Return the events that a message makes.

        Args:
            text: the line that patterns see.
            found: what `patterns.match` says of it, if it was asked already.
            host: the name of the host that sent it.
            scopes: scope name -> names of its hosts; the scope "*" holds every host, registered or not.
            fields: what the message itself names, for holes of templates that are no groups.
        """
        made: list[Match] = []
        decided: MessageMonitor | None = None
        for pattern_id in self.patterns.match(text) if found is None else found:
            monitor, rule = self._places[pattern_id]
            if monitor is decided:
                continue
            decided = monitor
            if monitor.scope != EVERY_HOST and host not in scopes.get(monitor.scope, ()):
                continue
            template = self._templates[pattern_id]
            groups = self.patterns.groups(pattern_id, text)
            message = text if template.is_whole_text else template.fill(text, groups, fields)
            made.append(Match(monitor, rule, message[:EVENT_CHARS_MAX], groups))
        return made
