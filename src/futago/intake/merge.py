"""The merge: two ordered streams of received copies become one stream of messages. Pure.

The n-th copy of a content on one member is matched with the n-th on the other: the first to be seen takes effect at
once and waits for its twin, the twin is suppressed. So of each content there are as many effects as the member that
received more of it received: max(count on A, count on B).

Two ways to wait, because there are two kinds of content. A *dated* message (syslog that carries its own time) cannot
mean a later event with the same bytes, so its twin may come any time later: a sender that queued for a member which was
away delivers minutes or hours after. An *undated* one (SNMP traps, bare lines) can: its twin must have been received
within WINDOW_NS of it. A waiting undated copy is forgotten only when the other member's stream has passed its time by
the window, which a mark in that stream says: never by our own stream or clock, so a journal that arrives late still
matches, after a long cut as well as before the other stream was ever seen. Of a copy that waited in a connection which
was not read (a frozen member, a full disk) only the earliest and the latest instant at which it can have come are known:
its twin may be of any time between them.

What is kept is bounded (ENTRIES_MAX of each kind and member); what the bounds cost is in docs/internals/intake.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from futago.intake.timelines import Timeline, Timelines
from futago.intake.unmatched import Chunk, Pool, with_span
from futago.runtime.clock import S
from futago.runtime.faults import Corrupt
from futago.runtime.unreadable import UNREADABLE

WINDOW_NS = 10 * S
LATE_NS = 7 * 86_400 * S  # a dated copy waits so long, as the other member's stream counts
WAITED_NS_MAX = 86_400 * S  # a copy that waited longer to be read is taken for another message
GUARD_NS = 30 * S  # around the end of the other's stream nothing is dropped for the bound's sake
RECENT, LATE = "recent", "late"
ENTRIES_MAX = {RECENT: 500_000, LATE: 1_000_000}
STATE_VERSION = 1


class Copies(msgspec.Struct, gc=False):
    """Copies of one member's stream, in order, as parallel lists: hash of content and source, time on the common axis,
    whether the content carries its own time, and for how long each waited at most before it was read (empty: none did).
    """

    hashes: list[int]
    times: list[int]
    dated: list[bool]
    waited: list[int] = []


class _Head(msgspec.Struct):
    version: int = STATE_VERSION
    next_chunk: int = 1
    progress: dict[str, int] = {}
    timelines: list[Timeline] = []


@dataclass(frozen=True, slots=True)
class StoredChunk:
    """One row of waiting copies."""

    chunk_id: int
    member: str
    pool: str
    entries: bytes


@dataclass(frozen=True, slots=True)
class Changes:
    """What must be stored so that the state can be read back as it is now."""

    head: bytes
    chunks: list[StoredChunk] = field(default_factory=list)
    deleted: list[int] = field(default_factory=list)


class _Side:
    """What is kept of one member."""

    def __init__(self, merger: Merger) -> None:
        self.pools = {kind: Pool(merger.new_chunk, entries_max=limit) for kind, limit in merger.limits.items()}


class Merger:
    """The matching state and the rule.

    Args:
        members: the two names; the second is "" while no peer is known (it may have begun to receive all the same).
        head, chunks: what was stored; empty for the beginning.
        limits: bounds; for tests.

    Raises:
        Corrupt: the stored state cannot be read.
    """

    def __init__(
        self,
        members: tuple[str, str],
        head: bytes = b"",
        chunks: Sequence[StoredChunk] = (),
        *,
        limits: dict[str, int] | None = None,
    ) -> None:
        self.limits = limits or ENTRIES_MAX
        try:
            self._head = msgspec.msgpack.decode(head, type=_Head) if head else _Head()
        except UNREADABLE as e:
            raise Corrupt(f"the state of the merge cannot be read: {e}") from e
        if self._head.version != STATE_VERSION:
            raise Corrupt(f"the state of the merge has version {self._head.version}, which is not known here")
        self.timelines = Timelines(self._head.timelines)
        self._others = {members[0]: members[1], members[1]: members[0]}
        self._sides = {member: _Side(self) for member in members}
        self._stale: list[int] = []  # chunks of a member that is no longer there
        for one in sorted(chunks, key=lambda c: c.chunk_id):
            if one.member in self._sides:
                self._sides[one.member].pools[one.pool].load(one.chunk_id, Chunk.unpack(one.entries))
            elif members[1]:
                self._stale.append(one.chunk_id)

    def new_chunk(self) -> int:
        """Return the next chunk's id."""
        self._head.next_chunk += 1
        return self._head.next_chunk - 1

    def other(self, member: str) -> str:
        """Return the name of the other member."""
        return self._others[member]

    def progress(self, member: str) -> int | None:
        """Return the time up to which a member's stream was seen whole; None if it never had a mark."""
        return self._head.progress.get(member)

    def waiting(self, member: str) -> int:
        """Return how many copies of a member wait for their twin."""
        return sum(pool.count for pool in self._sides[member].pools.values())

    @property
    def dropped(self) -> int:
        """Copies that were forgotten for the bound's sake: their twins would take effect again."""
        return sum(pool.dropped for side in self._sides.values() for pool in side.pools.values())

    def feed(self, member: str, copies: Copies) -> list[int]:
        """Take copies of one member's stream and return the places of those that take effect."""
        mine, theirs = self._sides[member].pools, self._sides[self._others[member]].pools
        my_late, my_recent, late, recent = mine[LATE], mine[RECENT], theirs[LATE], theirs[RECENT]
        effects: list[int] = []
        waited = copies.waited or [0] * len(copies.hashes)
        for place, key in enumerate(copies.hashes):
            time_ns = copies.times[place]
            if copies.dated[place]:
                if late.take(key, -FOREVER, FOREVER):
                    continue
                my_late.add(key, time_ns)
            else:
                span_ns = min(waited[place], WAITED_NS_MAX)
                low_ns, high_ns = time_ns - WINDOW_NS - span_ns, time_ns + WINDOW_NS
                # a twin that waited is among the late ones: it came in any instant of its wait
                if recent.take(key, low_ns, high_ns) or late.take_spanning(key, low_ns, high_ns):
                    continue
                if span_ns:
                    my_late.add(key, with_span(time_ns, span_ns))
                else:
                    my_recent.add(key, time_ns)
            effects.append(place)
        self._bound()
        return effects

    def pass_time(self, member: str, time_ns: int) -> None:
        """Note that nothing older than this will follow in a member's stream, and forget what can no longer get a
        twin from it.
        """
        self._head.progress[member] = time_ns
        pools = self._sides[self._others[member]].pools
        pools[RECENT].expire(time_ns - WINDOW_NS)
        pools[LATE].expire(time_ns - LATE_NS)

    def _bound(self) -> None:
        for member, side in self._sides.items():
            end = self._head.progress.get(self._others[member])
            for pool in side.pools.values():
                pool.bound(-FOREVER if end is None else end + GUARD_NS)

    def changes(self) -> Changes:
        """Return what changed since the last call."""
        chunks: list[StoredChunk] = []
        deleted, self._stale = self._stale, []
        for member, side in self._sides.items():
            for kind, pool in side.pools.items():
                chunks += [StoredChunk(i, member, kind, pool.chunks[i].pack()) for i in sorted(pool.changed)]
                deleted += pool.deleted
                pool.changed.clear()
                pool.deleted.clear()
        self._head.timelines = self.timelines.known
        return Changes(msgspec.msgpack.encode(self._head), chunks, deleted)


FOREVER = 1 << 62
