"""Reads a journal in order, across segments and incarnations, while another program appends to it.

The one rule that matters: what cannot be read yet and what will never be readable look alike at the end of a file. So
bad bytes are passed over only where something newer exists after them (a sound record, a later segment, a later
incarnation, an end mark); at the very end of the journal the reader waits.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from futago.intake.journal import Folder, SegmentFile, end_of, folders, segments, sibling_incarnation
from futago.intake.model import Incarnation, Position, Record
from futago.intake.segment import RECORD_BYTES_MAX, SEGMENT_HEAD_BYTES, resume, scan, unpack_head, walk
from futago.runtime.faults import Corrupt

READ_BYTES = 1 << 20
BOOKMARK_BYTES = 1 << 20
BOOKMARKED_MAX = 8  # segments


class Read(msgspec.Struct, frozen=True, gc=False):
    """Records that follow each other in one incarnation, from sequence `first` to `last`. `raw` holds exactly their
    bytes; a reader of raw bytes leaves `records` empty. `passed`: damaged places that were passed over since the last.
    """

    incarnation: Incarnation
    records: list[Record]
    raw: bytes
    first: int
    last: int
    passed: int = 0


class Bookmarks:
    """Where sequences stand in segments, as readers noted on their way. So the next reader of the same journal in this
    process finds its place without walking a segment from its head, which costs a quarter of a second of the loop's time:
    under load, conversations ended by that, and began again with it.
    """

    def __init__(self) -> None:
        self._of: dict[tuple[str, int], tuple[list[int], list[int]]] = {}

    def note(self, segment: tuple[str, int], sequence: int, offset: int) -> None:
        """Note that the record of `sequence` ends at `offset`."""
        sequences, offsets = self._of.setdefault(segment, ([], []))
        if not offsets or offset >= offsets[-1] + BOOKMARK_BYTES:
            sequences.append(sequence)
            offsets.append(offset)
        while len(self._of) > BOOKMARKED_MAX:
            del self._of[next(iter(self._of))]

    def before(self, segment: tuple[str, int], sequence: int) -> tuple[int, int] | None:
        """Return the newest noted sequence that is not after `sequence`, and the offset behind it."""
        sequences, offsets = self._of.get(segment, ([], []))
        place = bisect_right(sequences, sequence)
        return (sequences[place - 1], offsets[place - 1]) if place else None


@dataclass(slots=True)
class _Open:
    """The segment being read."""

    folder: Folder
    file: SegmentFile
    fd: int
    offset: int
    incarnation: Incarnation
    until: int | None = None  # first sequence of the segment after it, once there is one
    is_final: bool = False  # it will not grow any more


class JournalReader:
    """Reads a journal from given positions on.

    Args:
        root: the journal; it need not exist yet.
        after: incarnation -> sequence: what was read before; incarnations that are missing are read from their start.
        is_raw: check records, but do not build them.
        bookmarks: what earlier readers of this journal noted.
    """

    def __init__(
        self, root: Path, after: Mapping[str, int], *, is_raw: bool = False, bookmarks: Bookmarks | None = None
    ) -> None:
        self._is_raw = is_raw
        self._bookmarks = bookmarks
        self._root = root
        self._after = dict(after)
        self._done: set[str] = set()
        self._open: _Open | None = None
        self.damaged = 0  # places that were passed over because they did not pass their check
        self._damage_told = 0

    @property
    def positions(self) -> dict[str, int]:
        """What was read, as `after`."""
        return dict(self._after)

    def read(
        self, *, bytes_max: int = READ_BYTES, through: Position | None = None, is_looking: bool = True
    ) -> Read | None:
        """Return the next records, or None if there are none now.

        Args:
            bytes_max: how much to read at once; more than one record's bound.
            through: of that incarnation, nothing after that sequence.
            is_looking: at the end of a file, look for newer files; costs a few system calls.
        """
        while True:
            if self._open is None and not (is_looking and self._advance()):
                return None
            found = self._read_open(bytes_max, through)
            if found is not None:
                return found
            if not is_looking or not self._leave():
                return None

    def close(self) -> None:
        """Give the file back."""
        if self._open is not None:
            os.close(self._open.fd)
            self._open = None

    def _read_open(self, bytes_max: int, through: Position | None) -> Read | None:
        at = self._open
        assert at is not None
        data = os.pread(at.fd, bytes_max, at.offset)
        after = self._after.get(at.folder.id, 0)
        limit = through.sequence if through is not None and through.incarnation == at.folder.id else None
        if at.until is not None:
            limit = at.until - 1 if limit is None else min(limit, at.until - 1)
        after = max(after, at.file.first_sequence - 1)
        if self._is_raw:
            walked = walk(data, after=after, through=limit)
            records, first, last, end = list[Record](), walked.first, walked.last, walked.end
        else:
            scanned = scan(data, after=after, through=limit)
            records, end = scanned.records, scanned.end
            first, last = (records[0].sequence, records[-1].sequence) if records else (0, 0)
        if not end:
            return None
        at.offset += end
        self._after[at.folder.id] = last
        if self._bookmarks is not None:
            self._bookmarks.note((at.folder.id, at.file.first_sequence), last, at.offset)
        passed, self._damage_told = self.damaged - self._damage_told, self.damaged
        return Read(at.incarnation, records, data[:end], first, last, passed)

    def _leave(self) -> bool:
        """At the end of what can be read in this segment: go on behind it if something newer exists."""
        at = self._open
        assert at is not None
        if not at.is_final:
            later = [f for f in segments(at.folder.path) if f.first_sequence > at.file.first_sequence]
            at.until = later[0].first_sequence if later else None
            at.is_final = bool(later) or self._has_ended(at.folder)
            return at.is_final or self._pass_damage(at)  # if it is: once more, for what was appended before that
        if self._pass_damage(at):
            return True
        if at.until is None:
            self._done.add(at.folder.id)
        else:
            self._after[at.folder.id] = max(self._after.get(at.folder.id, 0), at.until - 1)
        self.close()
        return True

    def _has_ended(self, folder: Folder) -> bool:
        if end_of(folder.path) is not None:
            return True
        return any(one.ordinal > folder.ordinal and segments(one.path) for one in folders(self._root))

    def _pass_damage(self, at: _Open) -> bool:
        """Go to the next sound record of the segment, if there is one behind bytes that will never be readable: in a
        segment that grows, those that are whole and wrong, for a writer only appends.
        """
        rest = os.pread(at.fd, os.fstat(at.fd).st_size, at.offset)
        after = max(self._after.get(at.folder.id, 0), at.file.first_sequence - 1)
        found = scan(rest, after=after)
        if not rest or found.records or not (at.is_final or found.is_damaged):
            return False  # nothing more, or only what the next segment repeats
        again = resume(rest, 0, after=after)
        self.damaged += again is not None or at.is_final
        if again is None:
            return False
        at.offset += again
        return True

    def _advance(self) -> bool:
        """Open the next segment that may hold something new."""
        for folder in folders(self._root):
            if folder.id in self._done:
                continue
            file = self._segment_after(folder)
            if file is not None:
                return self._enter(folder, file)
            if not self._has_ended(folder):
                return False
            self._done.add(folder.id)
        return False

    def _segment_after(self, folder: Folder) -> SegmentFile | None:
        """Return the segment that holds what follows the position, or the last one before it."""
        after, end = self._after.get(folder.id, 0), end_of(folder.path)
        if end is not None and after >= end:
            return None
        files = segments(folder.path)
        best = None
        for file in files:
            if best is None or file.first_sequence <= after + 1:
                best = file
        return best

    def _enter(self, folder: Folder, file: SegmentFile) -> bool:
        fd = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            head = unpack_head(os.pread(fd, SEGMENT_HEAD_BYTES, 0))
        except Corrupt:
            incarnation = sibling_incarnation(folder.path, file)
            if incarnation is None:
                os.close(fd)
                return self._enter_damaged(folder, file)
            self.damaged += 1
        else:
            incarnation = head.incarnation
        self._open = _Open(folder, file, fd, SEGMENT_HEAD_BYTES, incarnation)
        self._skip_known()
        return True

    def _enter_damaged(self, folder: Folder, file: SegmentFile) -> bool:
        """A segment without a sound head, or records, or others that tell of it: go on behind it once it cannot become whole."""
        later = [f for f in segments(folder.path) if f.first_sequence > file.first_sequence]
        if later:
            self.damaged += 1
            self._after[folder.id] = max(self._after.get(folder.id, 0), later[0].first_sequence - 1)
            return self._advance()
        if self._has_ended(folder):
            self.damaged += 1
            self._done.add(folder.id)
            return self._advance()
        return False

    def _skip_known(self) -> None:
        """Go to the position inside the segment just opened."""
        at = self._open
        assert at is not None
        known, after = self._after.get(at.folder.id, 0), at.file.first_sequence - 1
        if self._bookmarks is not None:
            near = self._bookmarks.before((at.folder.id, at.file.first_sequence), known)
            if near is not None:
                after, at.offset = near
        while after < known:
            data = os.pread(at.fd, READ_BYTES, at.offset)
            found = walk(data, after=after, through=known)
            if found.first:
                at.offset += found.end
                after = found.last
                continue
            # Damage before the position was told of when it was passed.
            again = resume(data, 0, after=after) if found.is_damaged else None
            if again is None or scan(data[again : again + RECORD_BYTES_MAX], after=after).records[0].sequence > known:
                return
            at.offset += again
