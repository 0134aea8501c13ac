"""Which rung of the recovery ladder a member stands before, and how far it has come: the pure part of recover.py.

Lives here: comparing what a member has with what the primary has, choosing the rungs, reading progress. No clock, no
I/O. The idea: the mildest medicine that can work. Following costs what was missed, rewinding what differs, a copy
everything; the choice is made from the two logs, never from what a tool says of itself.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from futago.cluster import pgwire
from futago.cluster.walend import begin_of
from futago.runtime.faults import Refused

FOLLOW_RATE = 50 << 20  # bytes a second; 38 to 71 MB/s measured on two cores
COPY_RATE = 100 << 20  # a 1 Gbit/s network
BEGIN_S = 2.0  # what every rung takes: starting, and being taken into the stream
REWIND_RATE = 40 << 20  # pg_rewind fetches by queries of 1 MiB; 27 to 68 MB/s measured on two busy cores
QUICKER_S = 6.0  # by so much a whole copy must be quicker to be preferred to a rewind
SPARE_BYTES = 256 << 20  # WAL that is written while a copy is made
RUNNING_WORDS = ("in production", "in crash recovery", "shutting down")


class Rung(StrEnum):
    """The rungs, from the mildest on."""

    FOLLOW = "follow"
    REWIND = "rewind"
    BASE_BACKUP = "basebackup"
    EMPTY = "empty"


class Holds(StrEnum):
    """What lies in the data directory."""

    WHOLE = "whole"
    HALF = "half"  # a copy or a rewind was cut short
    NOTHING = "nothing"
    UNREADABLE = "unreadable"


class NeedsPerson(Refused):
    """Recovery cannot go on before somebody has repaired something.

    Args:
        what: what is wrong, a clause without a full stop.
        repair: what to do, one or two sentences.
    """

    def __init__(self, what: str, *, repair: str) -> None:
        super().__init__(what)
        self.repair = repair


class Source(msgspec.Struct, frozen=True):
    """What the primary tells about itself, after a checkpoint and with a slot for us.

    `wal_from` is where the WAL begins that it still has, `wal_bytes` how much its files hold; 0 when unknown.
    """

    system_id: str
    timeline: int
    history: str
    size_bytes: int
    wal_from: int = 0
    flush: int = 0
    version: int = 0  # of PostgreSQL, such as 15
    wal_bytes: int = 0


class Own(msgspec.Struct, frozen=True):
    """What the member that comes back has. `state` is the control file's word, such as ``shut down``.

    `redo` is where a recovery of it would begin, `free` the room on its volume in bytes; 0 when unknown.
    """

    holds: Holds
    system_id: str = ""
    state: str = ""
    timeline: int = 0
    end: int = 0
    suspect: str = ""
    redo: int = 0
    free: int = 0


class Choice(msgspec.Struct, frozen=True):
    """One rung that will be tried, why, and what it costs."""

    rung: Rung
    why: str
    bytes_max: int
    is_destructive: bool

    @property
    def seconds(self) -> float:
        """Roughly how long it takes."""
        return BEGIN_S + self.bytes_max / (FOLLOW_RATE if self.rung is Rung.FOLLOW else COPY_RATE)


@dataclass(frozen=True, slots=True)
class Fork:
    """Where a timeline ended and the next began."""

    timeline: int
    at: int


def forks(history: str) -> list[Fork]:
    """Return the forks of a timeline history file, oldest first. Source: PostgreSQL's timeline.c,
    readTimeLineHistory."""
    found = []
    for line in history.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0].isdigit():
            found.append(Fork(int(words[0]), pgwire.lsn(words[1])))
    return found


def is_beginning(own: Own, source: Source) -> bool:
    """Is what we have a beginning of what the source has?

    On the source's own timeline that is so if we only ever followed: two primaries never wrote on one timeline.
    """
    if own.system_id != source.system_id:
        return False
    if own.timeline == source.timeline:
        return own.state not in RUNNING_WORDS
    fork = next((f for f in forks(source.history) if f.timeline == own.timeline), None)
    return fork is not None and own.end <= fork.at


def choose(own: Own, source: Source) -> tuple[Choice, ...]:
    """Return the rungs to try, the mildest first; never empty. The last one needs nothing of what we have."""
    rung = Rung.EMPTY if own.holds is Holds.NOTHING else Rung.BASE_BACKUP

    def copy(why: str) -> Choice:
        return Choice(rung, why, source.size_bytes, is_destructive=own.holds is not Holds.NOTHING)

    if why := _why_copy(own, source):
        return (copy(why),)
    if not is_beginning(own, source):
        why = "the data have gone another way than the primary's"
        if is_copy_quicker(own, source):
            return (copy(f"{why}, and a whole copy is quicker than a rewind"),)
        rewind = Choice(Rung.REWIND, f"{why}: back to where the ways parted", source.size_bytes, is_destructive=True)
        return (rewind, copy("if that is not enough, a whole copy"))
    missed = max(0, source.flush - own.end)
    follow = Choice(Rung.FOLLOW, "the data are a beginning of the primary's", missed, is_destructive=False)
    return (follow, copy("if that is not enough, a whole copy"))


def _why_copy(own: Own, source: Source) -> str:
    """Return why nothing but a whole copy can do; empty if something milder may."""
    if own.suspect:
        return f"the disk failed ({own.suspect}): a whole copy, read back to prove it"
    if own.holds is not Holds.WHOLE:
        return _WHY_COPY[own.holds]
    if own.system_id != source.system_id:
        return "the data are another database's"
    if is_beginning(own, source) and source.wal_from and own.end < source.wal_from:
        return "the primary no longer has the log from where the data end"
    return ""


def rewind_s(own: Own, source: Source) -> float:
    """Return roughly how long a rewind takes, in seconds.

    Our log since the last checkpoint is replayed first, since pg_rewind wants a server that ended in order; then the
    source's, from the same place on. And pg_rewind copies every file of the source's log, needed or not. Source:
    PostgreSQL 15, src/bin/pg_rewind: ensureCleanShutdown, decide_file_action.
    """
    replayed = max(0, own.end - own.redo) + max(0, source.flush - own.redo)
    return BEGIN_S + replayed / FOLLOW_RATE + source.wal_bytes / REWIND_RATE


def is_copy_quicker(own: Own, source: Source) -> bool:
    """Is the database so small beside its logs that a copy of it is clearly quicker than a rewind, with room for it?"""
    if not own.redo or own.free <= source.size_bytes + SPARE_BYTES:
        return False
    return BEGIN_S + source.size_bytes / COPY_RATE + QUICKER_S < rewind_s(own, source)


_WHY_COPY = {
    Holds.HALF: "the data directory is half made: an earlier copy or rewind was cut short",
    Holds.NOTHING: "there are no data",
    Holds.UNREADABLE: "the data cannot be read",
}


def segments(names: Sequence[str]) -> list[str]:
    """Return those names that are of segments of WAL."""
    return [n for n in names if len(n) == 24 and set(n) <= set("0123456789ABCDEF")]


def oldest_wal(names: Sequence[str]) -> int:
    """Return the position at which the oldest segment of WAL begins; 0 if there is none."""
    return min((begin_of(n) for n in segments(names)), default=0)


# --- how far ----------------------------------------------------------------------------------------------------------


class Progress(msgspec.Struct, frozen=True):
    """How far the present rung is. `total` is 0 where the size is not known."""

    text: str = ""
    done: int = 0  # bytes
    total: int = 0

    @property
    def percent(self) -> int | None:
        """Return how much is done, 0 to 100; None when unknown."""
        return min(100, 100 * self.done // self.total) if self.total else None


_PROGRESS = re.compile(r"(\d+)/\s*(\d+) kB \((\d+)%\)")


def read_progress(line: str) -> Progress | None:
    """Return what a line of `pg_basebackup -P` or `pg_rewind --progress` says; None if it says something else."""
    found = _PROGRESS.search(line)
    if found is None:
        return None
    done, total = int(found[1]) << 10, int(found[2]) << 10
    return Progress(f"{megabytes(done)} of {megabytes(total)} copied ({found[3]} %)", done, total)


def megabytes(count: int) -> str:
    """Return a number of bytes for people."""
    return f"{count / (1 << 30):.1f} GiB" if count >= 10 << 30 else f"{count >> 20} MiB"


class Climb(msgspec.Struct, frozen=True):
    """How the last recovery of a member ended. `tried` are the rungs that were not enough, each with the reason."""

    member: str
    rung: str = ""
    ok: bool = False
    ended_utc: str = ""
    seconds: float = 0.0
    bytes_copied: int = 0
    mark: int = 0  # the position of the primary's mark that was replayed
    timeline: int = 0
    was_verified: bool = False  # the copy was read back and its checksums were right
    tried: tuple[tuple[str, str], ...] = ()
    error: str = ""
    repair: str = ""  # what a person must do first; empty: nothing
    failures: int = 0  # in a row
