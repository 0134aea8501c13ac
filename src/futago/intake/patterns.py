r"""Many patterns against one text at once.

All patterns are compiled into automata (hyperscan), so that a text costs about the same with ten patterns as with ten
thousand. There are two: one for text of nothing but ASCII, where what hyperscan finds is what `re` finds; and one for
all other text, in which patterns with `\w`, `\d`, `\s` or `\b` are widened (widen.py) and confirmed with `re`. What
hyperscan cannot express (look-around, back-references) goes in as a prefilter and is confirmed; what it cannot take at
all, or understands differently from `re`, is tried with `re` alone. Where hyperscan is absent everything is. The meaning
of a pattern is that of Python's `re.search` on text without control characters.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from futago.intake.widen import IMPURE, is_unicode, widened
from futago.runtime.faults import OperatorFault

try:
    import hyperscan
except ImportError:  # no wheel for this machine
    hyperscan = None  # type: ignore[assignment]

# Where the two languages differ in a way that could make hyperscan miss something.
_DIFFERENT = re.compile(r"\{,|\[:|\\[QEGKRXCh]|\(\?\(")


@dataclass(slots=True)
class _Sorted:
    """How the patterns go into one automaton: id -> text, and the ids that `re` alone decides."""

    exact: dict[int, str] = field(default_factory=dict)
    confirmed: dict[int, str] = field(default_factory=dict)  # found more often than the pattern
    prefiltered: dict[int, str] = field(default_factory=dict)  # with hyperscan's own approximation; confirmed, too
    slow: list[int] = field(default_factory=list)


class _Automaton:
    """Patterns for one kind of text."""

    def __init__(self, texts: Sequence[str], compiled: Sequence[re.Pattern[str]], wanted: _Sorted) -> None:
        self._compiled = compiled
        self._database = _database(wanted) if hyperscan is not None else None
        if self._database is None:
            wanted.slow = list(range(len(texts)))
        self.slow = sorted(wanted.slow)
        self._confirm = frozenset([*wanted.confirmed, *wanted.prefiltered])
        self._hits: list[int] = []

    def match(self, text: str) -> list[int]:
        """Return the ids of the patterns that are found in `text`, ascending."""
        hits: list[int] = []
        if self._database is not None:
            self._hits = hits
            self._database.scan(text.encode("utf-8", "replace"), match_event_handler=self._hit)
            if hits and self._confirm:
                confirm, compiled = self._confirm, self._compiled
                hits = [i for i in hits if i not in confirm or compiled[i].search(text)]
        if self.slow:
            hits += [i for i in self.slow if self._compiled[i].search(text)]
        if len(hits) > 1:
            hits.sort()
        return hits

    def _hit(self, pattern_id: int, start: int, end: int, flags: int, context: object) -> None:
        self._hits.append(pattern_id)


class PatternSet:
    """Compiled patterns; a pattern's id is its place in the sequence. Compiling ten thousand takes half a minute, during
    which other threads run.

    Raises:
        OperatorFault: a pattern is not one.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self._compiled = [_compile(text) for text in texts]
        self._ascii = _Automaton(texts, self._compiled, _for_ascii(texts))
        self._any = _Automaton(texts, self._compiled, _for_any(texts))
        self.slow = self._ascii.slow

    def match(self, text: str) -> list[int]:
        """Return the ids of the patterns that are found in `text`, ascending."""
        return (self._ascii if text.isascii() else self._any).match(text)

    def groups(self, pattern_id: int, text: str) -> dict[str, str]:
        """Return the named groups of a pattern that is found in `text`."""
        compiled = self._compiled[pattern_id]
        if not compiled.groupindex:
            return {}
        found = compiled.search(text)
        return {key: value or "" for key, value in found.groupdict().items()} if found else {}


def _compile(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except (re.error, RecursionError, OverflowError) as e:
        raise OperatorFault(
            f"`{text}` is not a regular expression: {e}.", hint="Correct the monitor's pattern.", code="monitor.pattern"
        ) from e


def _for_ascii(texts: Sequence[str]) -> _Sorted:
    made = _Sorted()
    for i, text in enumerate(texts):
        if _DIFFERENT.search(text):
            made.slow.append(i)
        else:
            (made.prefiltered if IMPURE.search(text) else made.exact)[i] = text
    return made


def _for_any(texts: Sequence[str]) -> _Sorted:
    made = _Sorted()
    for i, text in enumerate(texts):
        if _DIFFERENT.search(text):
            made.slow.append(i)
        elif not is_unicode(text):
            (made.prefiltered if IMPURE.search(text) else made.exact)[i] = text
        elif (wider := widened(text)) is not None:
            made.confirmed[i] = wider
        else:
            made.slow.append(i)
    return made


def _database(wanted: _Sorted) -> hyperscan.Database | None:
    """Return the automaton; what hyperscan refuses is moved on: to be prefiltered, then to `re` alone."""
    while wanted.exact or wanted.confirmed or wanted.prefiltered:
        try:
            return _built(wanted)
        except hyperscan.error:
            _move_refused(wanted)
    return None


def _move_refused(wanted: _Sorted) -> None:
    for kind, following in ((wanted.exact, wanted.prefiltered), (wanted.confirmed, None), (wanted.prefiltered, None)):
        flags = hyperscan.HS_FLAG_PREFILTER if kind is wanted.prefiltered else 0
        for i in _refused(kind, flags):
            text = kind.pop(i)
            if following is not None:
                following[i] = text
            else:
                wanted.slow.append(i)


def _refused(patterns: dict[int, str], flags: int) -> list[int]:
    """Return the ids of those that hyperscan does not take, by halving where it refuses."""
    if not patterns:
        return []
    try:
        _compiled_database(patterns, {i: flags for i in patterns})
        return []
    except hyperscan.error:
        if len(patterns) == 1:
            return list(patterns)
        ids = list(patterns)
        halves = (ids[: len(ids) // 2], ids[len(ids) // 2 :])
        return [i for half in halves for i in _refused({i: patterns[i] for i in half}, flags)]


def _built(wanted: _Sorted) -> hyperscan.Database:
    flags = dict.fromkeys(wanted.prefiltered, hyperscan.HS_FLAG_PREFILTER)
    return _compiled_database(wanted.exact | wanted.confirmed | wanted.prefiltered, flags)


def _compiled_database(patterns: dict[int, str], flags: dict[int, int]) -> hyperscan.Database:
    always = hyperscan.HS_FLAG_SINGLEMATCH | hyperscan.HS_FLAG_ALLOWEMPTY | hyperscan.HS_FLAG_UTF8
    database = hyperscan.Database()
    database.compile(
        expressions=[text.encode() for text in patterns.values()],
        ids=list(patterns),
        elements=len(patterns),
        flags=[always | flags.get(i, 0) for i in patterns],
    )
    return database
