r"""Many patterns against one text at once.

All patterns are compiled into automata (hyperscan), so that a text costs about the same with ten patterns as with ten
thousand. There are two: one for text of nothing but ASCII, where what hyperscan finds is what `re` finds; and one for
all other text, in which patterns with `\w`, `\d`, `\s` or `\b` are widened (widen.py) and confirmed with `re`. What
hyperscan cannot express (look-around, back-references) goes in as a prefilter and is confirmed; what it cannot take at
all, or understands differently from `re`, is tried with `re` alone. Where hyperscan is absent everything is. The meaning
of a pattern is that of Python's `re.search` on text without control characters.

Compiling is slow (ten thousand patterns take half a minute) and loading what was compiled is fast, so the two are apart:
`compile_all` makes `Automata`, which are bytes that another process, or the other member, can load.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256

import msgspec

from futago.intake.widen import IMPURE, is_unicode, widened
from futago.runtime.faults import BrokenInvariant, Corrupt, OperatorFault
from futago.runtime.unreadable import UNREADABLE

try:
    import hyperscan
except ImportError:  # no wheel for this machine
    hyperscan = None  # type: ignore[assignment]

_FORMAT = 1  # of `Automata.pack`
_HYPERSCAN_ERROR: type[Exception] = hyperscan.error if hyperscan is not None else ImportError

# Where the two languages differ in a way that could make hyperscan miss something.
_DIFFERENT = re.compile(r"\{,|\[:|\\[QEGKRXCh]|\(\?\(")


@dataclass(slots=True)
class _Sorted:
    """How the patterns go into one automaton: id -> text, and the ids that `re` alone decides."""

    exact: dict[int, str] = field(default_factory=dict)
    confirmed: dict[int, str] = field(default_factory=dict)  # found more often than the pattern
    prefiltered: dict[int, str] = field(default_factory=dict)  # with hyperscan's own approximation; confirmed, too
    slow: list[int] = field(default_factory=list)


class Part(msgspec.Struct, array_like=True):
    """Compiled patterns for one kind of text: hyperscan's databases, ids whose hits `re` must confirm, ids that `re`
    alone decides.
    """

    databases: list[bytes]
    confirm: list[int]
    slow: list[int]


class Automata(msgspec.Struct, array_like=True):
    """A compiled set of patterns, for text of ASCII and for all other text."""

    ascii: Part
    any: Part

    def pack(self) -> bytes:
        """Return it as it is stored."""
        return zlib.compress(msgspec.msgpack.encode(self), 1)

    @classmethod
    def unpack(cls, data: bytes) -> Automata:
        """Return what `pack` made. Raises Corrupt."""
        try:
            return msgspec.msgpack.decode(zlib.decompress(data), type=cls)
        except (zlib.error, *UNREADABLE) as e:
            raise Corrupt(f"compiled patterns cannot be read: {e}") from e


class _Automaton:
    """Loaded patterns for one kind of text."""

    def __init__(self, patterns: PatternSet, part: Part) -> None:
        self._re = patterns.compiled
        self._databases = [hyperscan.loadb(data, hyperscan.HS_MODE_BLOCK) for data in part.databases]
        for database in self._databases:
            database.scratch = hyperscan.Scratch(database)
        self.slow = part.slow
        self._confirm = frozenset(part.confirm)
        self._hits: list[int] = []

    def match(self, text: str) -> list[int]:
        """Return the ids of the patterns that are found in `text`, ascending."""
        hits: list[int] = []
        if self._databases:
            self._hits = hits
            data = text.encode("utf-8", "replace")
            for database in self._databases:
                database.scan(data, match_event_handler=self._hit)
            if hits and self._confirm:
                confirm = self._confirm
                hits = [i for i in hits if i not in confirm or self._re(i).search(text)]
        if self.slow:
            hits += [i for i in self.slow if self._re(i).search(text)]
        if len(hits) > 1:
            hits.sort()
        return hits

    def _hit(self, pattern_id: int, start: int, end: int, flags: int, context: object) -> None:
        self._hits.append(pattern_id)


class PatternSet:
    """Patterns, ready to be searched for; a pattern's id is its place in the sequence.

    Args:
        texts: the patterns.
        automata: what `compile_all` made of the same texts on a processor like this one; None: it is made here.

    Raises:
        OperatorFault: a pattern is not one.
        Corrupt: the automata are not for this machine.
    """

    def __init__(self, texts: Sequence[str], automata: Automata | None = None) -> None:
        self._texts = texts
        self._compiled: list[re.Pattern[str] | None] = [None] * len(texts)
        self._has_groups = ["(?P<" in text for text in texts]
        made = automata or compile_all(texts)
        try:
            self._ascii, self._any = _Automaton(self, made.ascii), _Automaton(self, made.any)
        except _HYPERSCAN_ERROR as e:
            raise Corrupt(f"the compiled patterns are not for this machine: {e}") from e
        self.slow = self._ascii.slow

    def __len__(self) -> int:
        return len(self._texts)

    def match(self, text: str) -> list[int]:
        """Return the ids of the patterns that are found in `text`, ascending."""
        return (self._ascii if text.isascii() else self._any).match(text)

    def groups(self, pattern_id: int, text: str) -> dict[str, str]:
        """Return the named groups of a pattern that is found in `text`."""
        if not self._has_groups[pattern_id]:
            return {}
        found = self.compiled(pattern_id).search(text)
        return {key: value or "" for key, value in found.groupdict().items()} if found else {}

    def compiled(self, pattern_id: int) -> re.Pattern[str]:
        """Return a pattern as `re` has it: made when it is first needed, as most of ten thousand never are."""
        made = self._compiled[pattern_id]
        if made is None:
            made = self._compiled[pattern_id] = _compile(self._texts[pattern_id])
        return made


def compile_all(texts: Sequence[str]) -> Automata:
    """Compile patterns. Raises OperatorFault if one is not a pattern."""
    for text in texts:
        _compile(text)
    return Automata(_part(texts, _for_ascii(texts)), _part(texts, _for_any(texts)))


def digest(texts: Sequence[str]) -> bytes:
    """Return what tells compiled sets apart: the patterns, hyperscan's version, the processor's features."""
    return sha256(msgspec.msgpack.encode([_FORMAT, _made_by(), list(texts)])).digest()


def _made_by() -> str:
    if hyperscan is None:
        return "re"
    database = _compiled_database({0: "a"}, {})
    return str(database.info())


def _part(texts: Sequence[str], wanted: _Sorted) -> Part:
    databases = _databases(wanted) if hyperscan is not None else []
    if not databases:
        return Part([], [], list(range(len(texts))))
    confirm = sorted([*wanted.confirmed, *wanted.prefiltered])
    return Part([hyperscan.dumpb(database) for database in databases], confirm, sorted(wanted.slow))


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


def _databases(wanted: _Sorted) -> list[hyperscan.Database]:
    """Return the automata; what hyperscan refuses is moved on: to be prefiltered, then to `re` alone. If it takes each
    part and not the whole, they are several.
    """
    while wanted.exact or wanted.confirmed or wanted.prefiltered:
        try:
            return [_built(wanted)]
        except hyperscan.error:
            if not _move_refused(wanted):
                return [_built(part) for part in _divided(wanted)]
    return []


def _divided(wanted: _Sorted) -> list[_Sorted]:
    """Return parts, each of which hyperscan takes."""
    parts = []
    for part in _halves(wanted):
        try:
            _built(part)
            parts.append(part)
        except hyperscan.error:
            parts += _divided(part)
    return parts


def _halves(wanted: _Sorted) -> list[_Sorted]:
    ids = sorted([*wanted.exact, *wanted.confirmed, *wanted.prefiltered])
    if len(ids) < 2:
        raise BrokenInvariant("hyperscan refuses a pattern that it took before")
    chosen = set(ids[: len(ids) // 2])

    def split(patterns: dict[int, str]) -> tuple[dict[int, str], dict[int, str]]:
        return {i: t for i, t in patterns.items() if i in chosen}, {
            i: t for i, t in patterns.items() if i not in chosen
        }

    kinds = [split(kind) for kind in (wanted.exact, wanted.confirmed, wanted.prefiltered)]
    return [_Sorted(kinds[0][half], kinds[1][half], kinds[2][half]) for half in (0, 1)]


def _move_refused(wanted: _Sorted) -> bool:
    """Move what hyperscan refuses by itself; return whether there was any."""
    count = len(wanted.exact) + 2 * len(wanted.prefiltered) + 3 * len(wanted.slow)
    for kind, following in ((wanted.exact, wanted.prefiltered), (wanted.confirmed, None), (wanted.prefiltered, None)):
        flags = hyperscan.HS_FLAG_PREFILTER if kind is wanted.prefiltered else 0
        for i in _refused(kind, flags):
            text = kind.pop(i)
            if following is not None:
                following[i] = text
            else:
                wanted.slow.append(i)
    return count != len(wanted.exact) + 2 * len(wanted.prefiltered) + 3 * len(wanted.slow)


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
