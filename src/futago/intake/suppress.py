"""Repeats of an event that make no event: which, how many, and what is said about them in the end. Pure.

An event of a pattern with `suppress` opens a window in the time of receipt, on the merge's common axis. What is the same
and was received within it is counted instead. The window ends with the next message after it, or when a stream's mark
has passed it; if anything was suppressed, one more event then says how many. Nothing here looks at a clock: the same
streams give the same events, on whichever member, and the state is stored with the positions.

A message of before the window that comes late (from the other member's journal, after a cut) belongs to the same burst
if it is as near; an older one is an event of its own and leaves the window as it is.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import blake2b

import msgspec

ENTRIES_MAX = 100_000  # open windows; beyond it those that end first are ended early
KEY_BYTES = 16


class Said(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What an event would have said: kept of the newest repeat. `occurred_ns` is wall time."""

    occurred_ns: int
    priority: str
    monitor: str
    host: str
    message: str


class Window(msgspec.Struct, gc=False):
    """One event whose repeats are counted."""

    since_ns: int
    until_ns: int
    suppressed: int
    last: Said


@dataclass(frozen=True, slots=True)
class Summary:
    """A window that ended with something in it: `count` repeats in `length_ns`, the newest of them `last`."""

    count: int
    length_ns: int
    last: Said


@dataclass(frozen=True, slots=True)
class RepeatChanges:
    """What must be stored so that the state can be read back as it is now."""

    windows: list[tuple[bytes, Window]] = field(default_factory=list)
    deleted: list[bytes] = field(default_factory=list)


def repeat_key(*parts: str) -> bytes:
    """Return what tells one repeat from another: monitor, pattern, and what the pattern's `by` names."""
    hashed = blake2b(digest_size=KEY_BYTES)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        hashed.update(len(data).to_bytes(4, "big") + data)
    return hashed.digest()


class Repeats:
    """The open windows.

    Args:
        stored: as they were stored.
        entries_max: the bound; for tests.
    """

    def __init__(self, stored: Iterable[tuple[bytes, Window]] = (), *, entries_max: int = ENTRIES_MAX) -> None:
        self._windows = dict(stored)
        self._max = entries_max
        self._ends = [(window.until_ns, key) for key, window in self._windows.items()]
        heapq.heapify(self._ends)
        self._changed: set[bytes] = set()
        self._deleted: set[bytes] = set()
        self.ended: list[Summary] = []  # to be said; whoever says it empties it

    def __len__(self) -> int:
        return len(self._windows)

    def is_repeat(self, key: bytes, time_ns: int, length_ns: int, said: Said) -> bool:
        """Take what would be an event; return whether it is a repeat, and counted.

        Args:
            key: of `repeat_key`.
            time_ns: of receipt, on the common axis.
            length_ns: of the window that it opens if it is none.
            said: what the event would say.
        """
        window = self._windows.get(key)
        if window is not None:
            if window.since_ns - length_ns < time_ns < window.until_ns:
                window.suppressed += 1
                window.last = said
                self._changed.add(key)
                return True
            if time_ns < window.until_ns:
                return False
            self._end(key)
        self._windows[key] = Window(time_ns, time_ns + length_ns, 0, said)
        heapq.heappush(self._ends, (time_ns + length_ns, key))
        self._changed.add(key)
        self._deleted.discard(key)
        while len(self._windows) > self._max:
            self._end_first()
        return False

    def pass_time(self, time_ns: int) -> None:
        """Note that a stream has come so far: windows that ended before are over."""
        while self._ends and self._ends[0][0] <= time_ns:
            self._end_first()

    def changes(self) -> RepeatChanges:
        """Return what changed since the last call."""
        made = RepeatChanges([(key, self._windows[key]) for key in sorted(self._changed)], sorted(self._deleted))
        self._changed.clear()
        self._deleted.clear()
        return made

    def _end_first(self) -> None:
        until_ns, key = heapq.heappop(self._ends)
        window = self._windows.get(key)
        if window is not None and window.until_ns == until_ns:  # else it ended by a message, and this is a trace of it
            self._end(key)

    def _end(self, key: bytes) -> None:
        window = self._windows.pop(key)
        if window.suppressed:
            self.ended.append(Summary(window.suppressed, window.until_ns - window.since_ns, window.last))
        self._changed.discard(key)
        self._deleted.add(key)
