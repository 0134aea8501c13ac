"""What this member remembers of each voter: the highest rank that it was ever shown, so that a voter that was restored
from an old copy of its disk is noticed.

A juror never goes back: what it promised is on its disk before it answers. One that shows a lower rank than it showed
before has forgotten votes; it counts as silent until it is seated anew (under a new roster version it begins afresh).
This is a help, not a proof: a voter that went back while nobody looked, and was asked for something newer before anybody
looked again, is not noticed.

The note lies on the disk, so that it survives our own restart; losing it costs nothing but the help.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import msgspec

from futago.register.model import NO_BALLOT, Ballot
from futago.runtime.unreadable import UNREADABLE
from futago.setup import files

ENTRIES_MAX = 64  # seats of this and some earlier rosters


class Entry(msgspec.Struct, frozen=True):
    """One seat: an acceptor, or a cell, under one roster version."""

    highest: Ballot = NO_BALLOT
    went_back: bool = False


class Memory:
    """The notes.

    Args:
        path: where they are kept; None: nowhere.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._entries: dict[str, Entry] = {}
        self._saving: asyncio.Task[None] | None = None
        self._is_dirty = False
        if path is not None:
            with contextlib.suppress(OSError, *UNREADABLE):
                self._entries = msgspec.json.decode(path.read_bytes(), type=dict[str, Entry])

    def highest(self, seat: str) -> Ballot:
        """Return the highest rank that this seat has shown."""
        return self._entries.get(seat, Entry()).highest

    def note(self, seat: str, rank: Ballot) -> bool:
        """Note what a seat shows; return whether it may be believed."""
        known = self._entries.get(seat, Entry())
        if known.went_back:
            return False
        if rank == known.highest:
            return True
        self._entries.pop(seat, None)  # the newest stands last
        self._entries[seat] = Entry(max(rank, known.highest), went_back=rank < known.highest)
        while len(self._entries) > ENTRIES_MAX:
            del self._entries[next(iter(self._entries))]
        self._save()
        return rank > known.highest

    def _save(self) -> None:
        self._is_dirty = True
        if self._path is not None and (self._saving is None or self._saving.done()):
            self._saving = asyncio.get_running_loop().create_task(self._write(self._path))

    async def _write(self, path: Path) -> None:
        while self._is_dirty:
            self._is_dirty = False
            content = msgspec.json.encode(self._entries)
            with contextlib.suppress(OSError):
                await asyncio.to_thread(files.write, path, content, mode=0o600)
