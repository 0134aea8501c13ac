"""Where the write-ahead log of a stopped server ends, to the byte.

The control file only says where the last checkpoint was. What was written after it is what decides: whether this
member reaches the floor of its view (or is an old copy of itself), and whether it has gone another way than the
primary. pg_waldump reads from the last checkpoint on, and stops at the first record that is not valid; that place is
the end, exactly as recovery will find it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from futago.cluster.model import Lsn
from futago.cluster.pgwire import lsn, lsn_text
from futago.runtime import process
from futago.runtime.faults import Refused

SEGMENT_BYTES = 16 << 20
DUMP_S_MAX = 60.0  # 1 GB of WAL, the bound of a checkpoint's distance, takes 5 to 10 s
ALIGN = 8
_SEGMENT = re.compile(r"([0-9A-F]{8})([0-9A-F]{8})([0-9A-F]{8})\Z")
_LAST = re.compile(r"error in WAL record at ([0-9A-F]+/[0-9A-F]+)")
_NEXT = re.compile(r"(?:invalid|incorrect|unexpected|record with|out-of-sequence)[^:]* at ([0-9A-F]+/[0-9A-F]+)")
_MISSING = re.compile(r"could not (?:find|open) file \"(?:[^\"]*/)?([0-9A-F]{24})\"")
_RECORD = re.compile(r"len \(rec/tot\):\s*\d+/\s*(\d+),.*lsn: ([0-9A-F]+/[0-9A-F]+)")


@dataclass(frozen=True, slots=True)
class End:
    """The end of the log, and the timeline that it is on."""

    timeline: int
    at: Lsn


def begin_of(name: str) -> int:
    """Return the position where a segment file begins."""
    return (int(name[8:16], 16) << 32) + int(name[16:24], 16) * SEGMENT_BYTES


def newest_timeline(names: list[str], redo: int) -> tuple[int, int]:
    """Return the newest timeline with segments at or after the one that holds `redo`, and where its first one begins.

    Returns:
        (0, redo) when there is no such segment.
    """
    best: dict[int, int] = {}
    for name in names:
        found = _SEGMENT.match(name)
        if found is None:
            continue
        timeline, begins = int(found[1], 16), begin_of(name)
        if begins + SEGMENT_BYTES > redo:
            best[timeline] = min(begins, best.get(timeline, begins))
    if not best:
        return 0, redo
    timeline = max(best)
    return timeline, max(redo, best[timeline])


async def find_end(bin_dir: Path, data: Path, *, names: list[str], redo: int) -> End:
    """Return where the log ends.

    Args:
        names: of the files in pg_wal; redo: the last checkpoint's redo position.

    Raises:
        Refused: it cannot be told. Unknown: it took too long.
    """
    timeline, start = newest_timeline(names, redo)
    if not timeline:
        raise Refused("there is no log after the last checkpoint")
    common = [*process.AS_POSTGRES, str(bin_dir / "pg_waldump"), "-p", str(data / "pg_wal"), "-t", str(timeline)]
    dumped = await process.run([*common, "-q", "-s", lsn_text(start)], deadline_s=DUMP_S_MAX)
    following = _NEXT.search(dumped.err)
    if following is not None:
        return End(timeline, Lsn(lsn(following[1])))
    missing = _MISSING.search(dumped.err)
    if missing is not None:  # everything up to a segment that was never begun
        return End(timeline, Lsn(begin_of(missing[1])))
    last = _LAST.search(dumped.err)
    if last is None:
        raise Refused(f"pg_waldump: {dumped.last_words}")
    shown = await process.run([*common, "-s", last[1], "-n", "1"], deadline_s=DUMP_S_MAX)
    record = _RECORD.search(shown.out)
    length = int(record[1]) if record is not None and record[2] == last[1] else 0
    return End(timeline, Lsn(lsn(last[1]) + -(-length // ALIGN) * ALIGN))
