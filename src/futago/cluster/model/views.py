"""The names of things, views, and what a member has sworn on its own disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NewType

MemberName = NewType("MemberName", str)
Epoch = NewType("Epoch", int)
Lsn = NewType("Lsn", int)  # PostgreSQL write-ahead log position, bytes
At = NewType("At", int)  # nanoseconds, monotonic, local


@dataclass(frozen=True, slots=True)
class View:
    """Who serves, and whose disk must hold a write before it is acknowledged.

    `floor` is the primary's WAL position when the view was made: a member that restarts alone must reach it.
    """

    epoch: Epoch
    primary: MemberName
    insync: frozenset[MemberName]
    floor: Lsn = Lsn(0)

    @property
    def is_solo(self) -> bool:
        return len(self.insync) == 1


@dataclass(frozen=True, slots=True)
class Durable:
    """What this member has on its own system disk.

    `intent` is the epoch that was asked of W (0: none). `stopped_epoch` is the highest epoch for which the other
    member is known to have been stopped (fence said off), to have handed over, or to have learned the view: outward
    effects need no further proof in that epoch.
    """

    view: View | None = None
    intent: Epoch = Epoch(0)
    stopped_epoch: Epoch = Epoch(0)
    is_able: bool = True  # False: the last durable write failed or hangs
    # a view or an intent is being written, or such a write failed or hangs, so that either may be on the disk
    is_writing: bool = False
