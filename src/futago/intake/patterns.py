"""Many patterns against one text at once.

All patterns are compiled into one automaton (hyperscan), so that a text costs about the same with ten patterns as with
ten thousand. What hyperscan cannot express (look-around, back-references) goes in as a prefilter and is confirmed with
`re`; what it cannot take at all, or understands differently from `re`, is tried with `re` alone. Where hyperscan is
absent everything is. The meaning of a pattern is that of Python's `re.search` on text without control characters; for
letters that only a newer Unicode knows, what hyperscan takes for a letter counts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from futago.runtime.faults import OperatorFault

try:
    import hyperscan
except ImportError:  # no wheel for this machine
    hyperscan = None  # type: ignore[assignment]

# Where the two languages differ in a way that could make hyperscan miss something.
_DIFFERENT = re.compile(r"\{,|\[:|\\[QEGKRXCh]|\(\?\(")
_BATCH_MIN = 1


@dataclass(frozen=True, slots=True)
class Pattern:
    """One pattern. `is_exact`: a hit of the automaton needs no confirmation."""

    text: str
    compiled: re.Pattern[str]
    is_exact: bool


class PatternSet:
    """Compiled patterns; a pattern's id is its place in the sequence.

    Raises:
        OperatorFault: a pattern is not one.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        compiled = [_compile(text) for text in texts]
        self._hits: list[int] = []
        exact, filtered, self.slow = _sort(texts)
        self.patterns = [Pattern(t, c, i in exact) for i, (t, c) in enumerate(zip(texts, compiled, strict=True))]
        self._confirm = frozenset(filtered)
        self._database = _database(texts, sorted(exact), sorted(filtered)) if exact or filtered else None

    def match(self, text: str) -> list[int]:
        """Return the ids of the patterns that are found in `text`, ascending."""
        hits: list[int] = []
        if self._database is not None:
            self._hits = []
            self._database.scan(text.encode("utf-8", "replace"), match_event_handler=self._hit)
            confirm = self._confirm
            hits = [i for i in self._hits if i not in confirm or self.patterns[i].compiled.search(text)]
        hits += [i for i in self.slow if self.patterns[i].compiled.search(text)]
        if len(hits) > 1:
            hits.sort()
        return hits

    def groups(self, pattern_id: int, text: str) -> dict[str, str]:
        """Return the named groups of a pattern that is found in `text`."""
        compiled = self.patterns[pattern_id].compiled
        if not compiled.groupindex:
            return {}
        found = compiled.search(text)
        return {key: value or "" for key, value in found.groupdict().items()} if found else {}

    def _hit(self, pattern_id: int, start: int, end: int, flags: int, context: object) -> None:
        self._hits.append(pattern_id)


def _compile(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except (re.error, RecursionError, OverflowError) as e:
        raise OperatorFault(
            f"`{text}` is not a regular expression: {e}.", hint="Correct the monitor's pattern.", code="monitor.pattern"
        ) from e


def _sort(texts: Sequence[str]) -> tuple[set[int], set[int], list[int]]:
    """Return the ids that hyperscan takes exactly, those it takes as a prefilter, and the rest."""
    everything = list(range(len(texts)))
    if hyperscan is None:
        return set(), set(), everything
    candidates = [i for i in everything if not _DIFFERENT.search(texts[i])]
    exact = _taken(texts, candidates, is_prefilter=False)
    filtered = _taken(texts, [i for i in candidates if i not in exact], is_prefilter=True)
    return exact, filtered, [i for i in everything if i not in exact and i not in filtered]


def _taken(texts: Sequence[str], ids: list[int], *, is_prefilter: bool) -> set[int]:
    """Return those of `ids` that hyperscan takes, by halving where it refuses."""
    if not ids:
        return set()
    try:
        _database(texts, [] if is_prefilter else ids, ids if is_prefilter else [])
        return set(ids)
    except hyperscan.error:
        if len(ids) == _BATCH_MIN:
            return set()
        half = len(ids) // 2
        return _taken(texts, ids[:half], is_prefilter=is_prefilter) | _taken(
            texts, ids[half:], is_prefilter=is_prefilter
        )


def _database(texts: Sequence[str], exact: list[int], filtered: list[int]) -> hyperscan.Database:
    flags = hyperscan.HS_FLAG_SINGLEMATCH | hyperscan.HS_FLAG_ALLOWEMPTY | hyperscan.HS_FLAG_UTF8
    flags |= hyperscan.HS_FLAG_UCP
    ids = [*exact, *filtered]
    database = hyperscan.Database()
    database.compile(
        expressions=[texts[i].encode() for i in ids],
        ids=ids,
        elements=len(ids),
        flags=[flags] * len(exact) + [flags | hyperscan.HS_FLAG_PREFILTER] * len(filtered),
    )
    return database
