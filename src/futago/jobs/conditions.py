"""May a unit start? Three-valued: yes, no and never again, not certain yet. Pure.

All of several is no as soon as one is no, any of several is yes as soon as one is yes: so a group is decided as soon
as it is certain, whatever its other parts come to. Time never says no, a day says either at once. A variable says no
only when nothing is left that could still set it.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from zoneinfo import ZoneInfo

from futago.jobs.model import ENDS, OPEN_SESSION, JobName, JobState, Standing, Tree
from futago.jobs.plan import (
    AllOf,
    AnyOf,
    Comparison,
    Condition,
    DayIs,
    Elapsed,
    EndIs,
    OtherEnded,
    TimeIs,
    ValueIs,
    VariableIs,
    parts_of,
)
from futago.jobs.timetable import instant

Verdict = bool | None  # None: not certain yet


def holds(condition: Condition, tree: Tree, now: datetime) -> Verdict:
    """Return whether the condition holds."""
    match condition:
        case AllOf(parts):
            return _all([holds(part, tree, now) for part in parts])
        case AnyOf(parts):
            return _any([holds(part, tree, now) for part in parts])
        case EndIs(job) | ValueIs(job):
            return _ended(condition, tree.standings[job])
        case TimeIs() | Elapsed():
            at = comes_at(condition, tree)
            return True if at is not None and at <= now else None
        case VariableIs():
            return _variable(condition, tree)
        case OtherEnded() | DayIs():
            return _around(condition, tree)


def may_start(name: JobName, tree: Tree, now: datetime) -> Verdict:
    """Return whether the unit's own condition holds and no branch above it is taken."""
    unit = tree.net.units[name]
    own = holds(unit.start, tree, now)
    return _all([own, *(_not(is_taken(higher, tree, now)) for higher in unit.above)]) if own is not False else False


def is_taken(name: JobName, tree: Tree, now: datetime) -> Verdict:
    """Return whether an exclusive branch has begun, or is certain to begin."""
    standing, own = tree.standings[name], tree.net.units[name].start
    if standing.state is JobState.WAITING:
        return holds(own, tree, now)
    if standing.begun_utc is None and standing.state in ENDS:  # it was given an end without being run
        return standing.state is not JobState.NOT_RUN and holds(own, tree, now) is not False
    return True


def comes_at(condition: Condition, tree: Tree) -> datetime | None:
    """Return when a condition on time begins to hold; None: the session has not begun."""
    match condition:
        case TimeIs(offset):
            return instant(tree.day, offset, ZoneInfo(tree.net.timezone))
        case Elapsed(length):
            return tree.started_utc + length if tree.started_utc else None
    return None


def instants(condition: Condition, tree: Tree) -> Iterator[datetime]:
    """Yield the instants at which the condition may change by itself."""
    for leaf in parts_of(condition):
        at = comes_at(leaf, tree)
        if at is not None:
            yield at


def why_not(condition: Condition, tree: Tree, now: datetime) -> str:
    """Return a sentence part that names the first leaf that cannot hold any more."""
    for leaf in parts_of(condition):
        if holds(leaf, tree, now) is False:
            return _why(leaf, tree)
    return "its conditions cannot be met"


def _why(leaf: Condition, tree: Tree) -> str:
    match leaf:
        case EndIs(job):
            state = tree.standings[job].state
            return f"`{job}` was not run" if state is JobState.NOT_RUN else f"`{job}` ended {state}"
        case ValueIs(job, codes):
            value = tree.standings[job].value
            return f"`{job}` ended with {'no value' if value is None else f'value {value}'}, not {codes}"
        case VariableIs(name):
            return f"variable {name} is {tree.variables[name]!r}" if name in tree.variables else f"nothing set {name}"
        case OtherEnded(ask):
            return f"job net `{ask.net}` ended {tree.others.get(ask)}"
        case DayIs(calendar, is_open):
            return f"calendar `{calendar}` is {'closed' if is_open else 'open'} on {tree.day}"
    return "its conditions cannot be met"


def _all(verdicts: list[Verdict]) -> Verdict:
    return False if False in verdicts else None if None in verdicts else True


def _any(verdicts: list[Verdict]) -> Verdict:
    return True if True in verdicts else None if None in verdicts else False


def _not(verdict: Verdict) -> Verdict:
    return None if verdict is None else not verdict


def _ended(asked: EndIs | ValueIs, standing: Standing) -> Verdict:
    if standing.state not in ENDS:
        return None
    if isinstance(asked, EndIs):
        return standing.state in asked.ends
    return standing.value is not None and standing.value in asked.codes


def _around(asked: OtherEnded | DayIs, tree: Tree) -> Verdict:
    if isinstance(asked, DayIs):
        return (asked.calendar not in tree.shut) is asked.is_open
    other = tree.others.get(asked.ask)
    return None if other is None or other in OPEN_SESSION else other in asked.ends


def _variable(asked: VariableIs, tree: Tree) -> Verdict:
    if asked.name in tree.variables and compares(tree.variables[asked.name], asked.comparison, asked.value):
        return True
    setters = tree.net.setters.get(asked.name, ())
    return None if any(tree.standings[job].state not in ENDS for job in setters) else False


def compares(held: str, comparison: Comparison, value: str) -> bool:
    """Return whether a variable's value compares so with another."""
    match comparison:
        case Comparison.IS:
            return held == value
        case Comparison.IS_NOT:
            return held != value
        case Comparison.LESS | Comparison.MORE:
            try:
                left, right = float(held), float(value)
            except ValueError:
                return False
            return left < right if comparison is Comparison.LESS else left > right
