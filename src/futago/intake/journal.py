"""A journal on disk: where its files are, how they are repaired after a crash, and how they are pruned.

Appending is writer.py, reading is reader.py, the format of the bytes is segment.py. A journal is a folder per
incarnation, named by ordinal (the order in which this machine met them) and id, with segments named by their first
sequence. A folder that will not grow any more has a file `end` with its last sequence, which also stays as a tombstone
when every segment was pruned. The own journal and the copy of the other member's look the same.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

from futago.intake.model import Incarnation, IncarnationId, Record
from futago.intake.segment import SEGMENT_HEAD_BYTES, SegmentHead, resume, scan, unpack_head
from futago.runtime import clock
from futago.runtime.faults import Corrupt

KEEP_S = 3600.0  # consumed segments stay this long ...
KEEP_BYTES = 1 << 30  # ... unless they are more than this
FREE_BYTES_MIN = 512 << 20  # left to the others on the disk ...
FREE_SHARE_MIN = 0.05  # ... or this share of it, whichever is less
TOMBSTONES_MAX = 64  # emptied incarnations that are still remembered
_FOLDER = re.compile(r"(\d{6,})-([0-9a-f]{16})\Z")
_SEGMENT = re.compile(r"(\d{20})\.seg\Z")


@dataclass(frozen=True, slots=True)
class Folder:
    """One incarnation's files."""

    ordinal: int
    id: IncarnationId
    path: Path


@dataclass(frozen=True, slots=True)
class SegmentFile:
    """One segment's file."""

    first_sequence: int
    path: Path


@dataclass(slots=True)
class Repaired:
    """What `repair` found.

    Attributes:
        last: last sequence that is on disk, of each incarnation.
        cut_bytes: torn tails that were removed.
        damaged: places inside segments that do not pass their check; they are passed over in reading.
        newest: the head of the newest segment; None in an empty journal.
    """

    last: dict[str, int] = field(default_factory=dict)
    cut_bytes: int = 0
    damaged: int = 0
    newest: SegmentHead | None = None


def folders(root: Path) -> list[Folder]:
    """Return the incarnations of a journal, oldest first; empty if it does not exist."""
    try:
        names = os.listdir(root)
    except FileNotFoundError:
        return []
    found = [(m, name) for name in names if (m := _FOLDER.match(name))]
    return sorted((Folder(int(m[1]), IncarnationId(m[2]), root / name) for m, name in found), key=lambda f: f.ordinal)


def segments(folder: Path) -> list[SegmentFile]:
    """Return the segments of an incarnation, oldest first; empty if it was pruned away."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    found = [(m, name) for name in names if (m := _SEGMENT.match(name))]
    return sorted((SegmentFile(int(m[1]), folder / name) for m, name in found), key=lambda s: s.first_sequence)


def segment_name(first_sequence: int) -> str:
    """Return the file name of a segment."""
    return f"{first_sequence:020d}.seg"


def folder_for(root: Path, incarnation: str) -> Path:
    """Return the folder of an incarnation, made (and synced) if it is new."""
    known = folders(root)
    for one in known:
        if one.id == incarnation:
            return one.path
    path = root / f"{known[-1].ordinal + 1 if known else 1:06d}-{incarnation}"
    path.mkdir(parents=True)
    sync_folder(root)
    return path


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def end_of(folder: Path) -> int | None:
    """Return the last sequence of an incarnation that has ended; None if it may still grow."""
    try:
        return int((folder / "end").read_text(encoding="ascii"))
    except (FileNotFoundError, ValueError):
        return None


def mark_end(folder: Path, last: int) -> None:
    """Note durably that the incarnation will not grow any more."""
    new = folder / "end.new"
    with new.open("w", encoding="ascii") as f:
        f.write(str(last))
        f.flush()
        os.fsync(f.fileno())
    new.rename(folder / "end")
    sync_folder(folder)


def new_incarnation(newest: SegmentHead | None) -> Incarnation:
    """Return a new life of this machine's receiver.

    Within one boot of the machine the steady clock goes on as `newest` began it, so that a wall clock that was set
    meanwhile does not move the receive times.
    """
    boot = blake2b(clock.boot_id().encode(), digest_size=16).digest()
    is_same_boot = newest is not None and newest.incarnation.boot == boot
    zero_ns = newest.incarnation.zero_ns if newest and is_same_boot else time.time_ns() - clock.now_at()
    return Incarnation(IncarnationId(secrets.token_hex(8)), zero_ns, boot)


def repair(root: Path, *, are_all_ended: bool) -> Repaired:
    """Look over a journal after a start: cut torn tails, make durable what is there, find the last sequences.

    Args:
        root: the journal.
        are_all_ended: nothing will be appended to what is there (the own journal: a new incarnation begins).
    """
    result = Repaired()
    known = folders(root)
    for one in known:
        last = end_of(one.path)
        if last is None:
            last = _repair_folder(one.path, result)
            if are_all_ended or one is not known[-1]:
                mark_end(one.path, last)
        result.last[one.id] = last
    result.newest = _newest_head(known)
    return result


def last_sequence(folder: Path) -> int:
    """Return the last sequence in an incarnation's files, by reading the newest segment."""
    for newest in reversed(segments(folder)):
        data = newest.path.read_bytes()
        if len(data) >= SEGMENT_HEAD_BYTES:
            return _walk(data, newest.first_sequence - 1)[0]
    return end_of(folder) or 0


def _newest_head(known: list[Folder]) -> SegmentHead | None:
    for one in reversed(known):
        for segment in reversed(segments(one.path)):
            with contextlib.suppress(Corrupt):
                return read_head(segment.path)
    return None


def read_head(path: Path) -> SegmentHead:
    """Return the head of a segment's file. Raises Corrupt; OSError if it cannot be read."""
    with path.open("rb") as f:
        return unpack_head(f.read(SEGMENT_HEAD_BYTES))


def _repair_folder(folder: Path, result: Repaired) -> int:
    files = segments(folder)
    while files:
        newest = files.pop()
        data = newest.path.read_bytes()
        try:
            unpack_head(data)
        except Corrupt:
            if has_sound_records(data, newest.first_sequence):  # damaged later: what is in it was accepted
                result.damaged += 1
                return _repair_segment(newest, data, result)
            result.cut_bytes += len(data)
            newest.path.unlink()  # the crash came while it was made: nothing in it was ever said to be durable
            sync_folder(folder)
            continue
        return _repair_segment(newest, data, result)
    return 0


def _repair_segment(segment: SegmentFile, data: bytes, result: Repaired) -> int:
    """Cut a torn tail; return the last sequence."""
    last, end, damaged = _walk(data, segment.first_sequence - 1)
    result.damaged += damaged
    _cut(segment.path, end, len(data))
    result.cut_bytes += len(data) - end
    return last


def has_sound_records(data: bytes, first_sequence: int) -> bool:
    """Return whether anything behind a segment's head passes its check."""
    found = scan(data, SEGMENT_HEAD_BYTES, after=first_sequence - 1)
    return bool(found.records) or resume(data, SEGMENT_HEAD_BYTES, after=first_sequence - 1) is not None


def sibling_incarnation(folder: Path, damaged: SegmentFile) -> Incarnation | None:
    """Return what the heads of an incarnation's other segments say of it, for one whose own head is damaged though
    records in it are sound; None if it holds none, or there is no other.
    """
    if not has_sound_records(damaged.path.read_bytes(), damaged.first_sequence):
        return None
    for other in segments(folder):
        with contextlib.suppress(Corrupt, OSError):
            return read_head(other.path).incarnation
    return None


def _walk(data: bytes, after: int) -> tuple[int, int, int]:
    """Return (last sequence, offset after the last sound record, damaged places before that)."""
    offset, damaged = SEGMENT_HEAD_BYTES, 0
    while True:
        found = scan(data, offset, after=after)
        after = found.records[-1].sequence if found.records else after
        offset = found.end
        again = resume(data, offset, after=after) if offset < len(data) else None
        if again is None:
            return after, offset, damaged
        damaged += 1
        offset = again


def _cut(path: Path, end: int, size: int) -> None:
    with path.open("r+b") as f:
        if end < size:
            f.truncate(end)
        os.fsync(f.fileno())


def prune(
    root: Path,
    consumed: Mapping[str, int],
    *,
    keep_s: float = KEEP_S,
    keep_bytes: int = KEEP_BYTES,
    is_short: bool = False,
) -> int:
    """Delete segments whose records have all had their effect; return the bytes that the journal still has.

    Args:
        root: the journal.
        consumed: incarnation -> sequence up to which the effects are committed.
        keep_s: consumed segments stay at least this long, a margin for whoever lost its database ...
        keep_bytes: ... as long as they are not more than this together.
        is_short: the disk is short: no margin.
    """
    total, kept = 0, 0
    known = folders(root)
    for one in reversed(known):
        files, end = segments(one.path), end_of(one.path)
        is_newest = one is known[-1]
        for i in range(len(files) - 1, -1, -1):
            stat = files[i].path.stat()
            is_last = i == len(files) - 1
            last = (end if is_last else files[i + 1].first_sequence - 1) if not (is_newest and is_last) else None
            if last is None or last > consumed.get(one.id, 0):
                total += stat.st_size
                continue
            age_s = time.time() - stat.st_mtime
            if not is_short and age_s < keep_s and kept + stat.st_size <= keep_bytes:
                kept += stat.st_size
                total += stat.st_size
                continue
            files[i].path.unlink(missing_ok=True)
    _drop_tombstones(known)
    return total


def _drop_tombstones(known: list[Folder]) -> None:
    empty = [one for one in known[:-1] if end_of(one.path) is not None and not segments(one.path)]
    for one in empty[: max(0, len(empty) - TOMBSTONES_MAX)]:
        shutil.rmtree(one.path, ignore_errors=True)


def tail(root: Path, *, bytes_max: int) -> tuple[str, list[Record]]:
    """Return the last records of the newest incarnation, and its id; ("", []) of a journal that is not there."""
    known = folders(root)
    files = segments(known[-1].path) if known else []
    if not files:
        return "", []
    with files[-1].path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(max(SEGMENT_HEAD_BYTES, size - bytes_max))
        data = file.read(bytes_max)
    start = 0 if size - bytes_max <= SEGMENT_HEAD_BYTES else resume(data, 0, after=0)
    return known[-1].id, scan(data, start).records if start is not None else []


def is_disk_short(root: Path) -> bool:
    """Return whether the disk of a journal has so little left that others need it."""
    while not root.exists():
        root = root.parent
    disk = os.statvfs(root)
    free, size = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
    return free < min(FREE_BYTES_MIN, FREE_SHARE_MIN * size)
