"""Whom an event is told to: a pure function. In its first form, all that the event names.

The place where suppression, calendars and repetition will be decided.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Selection:
    """`told`: notifications that exist. `missing`: named, but not declared: shown as failed, never passed over."""

    told: tuple[str, ...]
    missing: tuple[str, ...]


def select(named: Iterable[str], *, declared: Set[str]) -> Selection:
    """Return which of the named notifications are to tell an event; each once, in the order of their naming."""
    names = tuple(dict.fromkeys(named))
    return Selection(tuple(n for n in names if n in declared), tuple(n for n in names if n not in declared))
