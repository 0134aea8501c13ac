"""Copies that wait for their twin, as chunks of (hash, time). Pure.

A pool holds the waiting copies of one member, oldest first, in chunks of a few hundred; each chunk is one row in the
database. Only chunks that changed are written, so that the state of a long cut does not have to be rewritten with every
batch. A copy of which only the earliest and the latest instant are known has the latest as its time, and how far back it
reaches in that time's lowest bits: 63 ns are nothing here. In memory an entry costs about 100 bytes (an index from hash to chunk), in the database 16.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable
from itertools import islice

from futago.runtime.faults import Corrupt

CHUNK_ENTRIES_MAX = 512
SPANNING_CHUNKS_MAX = 8  # looked through for one copy, where thousands of the same content wait
EXPIRED_CHUNKS_MAX = 64  # at once: some 30,000 entries, so that the loop goes on
assert sys.byteorder == "little", "chunks are stored as they lie in memory"


_SPAN_BITS, _SPAN_SHIFT = 5, 20  # a power of two, from 1 ms to 26 days


def with_span(time_ns: int, span_ns: int) -> int:
    """Return a time, at most 63 ns earlier, that says how far back it reaches, rounded up to a power of two in nanoseconds."""
    exponent = max((span_ns - 1).bit_length() - _SPAN_SHIFT, 0)
    return (time_ns >> _SPAN_BITS) - 1 << _SPAN_BITS | min(exponent, (1 << _SPAN_BITS) - 1)


def reaches_back_to(time_ns: int) -> int:
    """Return the earliest instant of a time made by `with_span`."""
    return time_ns - (1 << (time_ns & ((1 << _SPAN_BITS) - 1)) + _SPAN_SHIFT)


class Chunk:
    """Some waiting copies, oldest first."""

    __slots__ = ("hashes", "multiple", "times")

    def __init__(self) -> None:
        self.hashes: array[int] = array("Q")
        self.times: array[int] = array("q")
        self.multiple: dict[int, int] = {}  # hash -> count, of those that are here more than once

    def __len__(self) -> int:
        return len(self.hashes)

    def add(self, key: int, time_ns: int, *, is_known: bool) -> None:
        """Append one; `is_known` if the same hash may be here already."""
        if is_known and key in self.hashes:
            self.multiple[key] = self.multiple.get(key, 1) + 1
        self.hashes.append(key)
        self.times.append(time_ns)

    def find(self, key: int, low_ns: int, high_ns: int) -> int:
        """Return the place of the oldest copy within the times, or -1."""
        at = self.hashes.index(key)
        while self.times[at] < low_ns:
            try:
                at = self.hashes.index(key, at + 1)
            except ValueError:
                return -1
        return at if self.times[at] <= high_ns else -1

    def find_spanning(self, key: int, low_ns: int, high_ns: int) -> int:
        """Return the place of the oldest copy of which any possible instant is within the times, or -1."""
        at = -1
        while True:
            try:
                at = self.hashes.index(key, at + 1)
            except ValueError:
                return -1
            if self.times[at] >= low_ns and reaches_back_to(self.times[at]) <= high_ns:
                return at

    def remove(self, at: int) -> bool:
        """Remove one; return whether the same hash is still here."""
        key = self.hashes.pop(at)
        self.times.pop(at)
        count = self.multiple.pop(key, 1) - 1
        if count > 1:
            self.multiple[key] = count
        return count > 0

    def pack(self) -> bytes:
        """Return it as it is stored."""
        return self.hashes.tobytes() + self.times.tobytes()

    @classmethod
    def unpack(cls, data: bytes) -> Chunk:
        """Return what `pack` stored. Raises Corrupt."""
        half, odd = divmod(len(data), 2)
        if odd or half % 8:
            raise Corrupt(f"a chunk of unmatched copies has {len(data)} bytes")
        chunk = cls()
        chunk.hashes.frombytes(data[:half])
        chunk.times.frombytes(data[half:])
        seen: set[int] = set()
        for key in chunk.hashes:
            if key in seen:
                chunk.multiple[key] = chunk.multiple.get(key, 1) + 1
            seen.add(key)
        return chunk


class Pool:
    """The waiting copies of one member.

    Args:
        new_id: gives ids for chunks; ids grow, so their order is the order in time.
        entries_max: the bound; beyond it whole chunks are dropped and counted.
    """

    def __init__(self, new_id: Callable[[], int], *, entries_max: int) -> None:
        self._new_id = new_id
        self._max = entries_max
        self._index: dict[int, int | list[int]] = {}
        self._open = 0  # id of the chunk that takes new entries
        self.chunks: dict[int, Chunk] = {}
        self.changed: set[int] = set()
        self.deleted: set[int] = set()
        self.count = 0
        self.dropped = 0

    def load(self, chunk_id: int, chunk: Chunk) -> None:
        """Take a stored chunk; in the order of ids."""
        self.chunks[chunk_id] = chunk
        self._open = chunk_id
        self.count += len(chunk)
        for key in chunk.hashes:
            self._refer(key, chunk_id)

    def add(self, key: int, time_ns: int) -> None:
        """Let a copy wait."""
        chunk = self.chunks.get(self._open)
        if chunk is None or len(chunk) >= CHUNK_ENTRIES_MAX:
            self._open = self._new_id()
            chunk = self.chunks[self._open] = Chunk()
        chunk.add(key, time_ns, is_known=key in self._index)
        self._refer(key, self._open)
        self.changed.add(self._open)
        self.count += 1

    def take(self, key: int, low_ns: int, high_ns: int) -> bool:
        """Remove the oldest waiting copy within the times; return whether there was one."""
        known = self._index.get(key)
        if known is None:
            return False
        for chunk_id in (known,) if isinstance(known, int) else tuple(known):
            at = self.chunks[chunk_id].find(key, low_ns, high_ns)
            if at >= 0:
                self._remove(chunk_id, at, key)
                return True
        return False

    def take_spanning(self, key: int, low_ns: int, high_ns: int) -> bool:
        """As `take`, for copies whose times have spans: any possible instant may be within the times."""
        known = self._index.get(key)
        if known is None:
            return False
        young = (i for i in ((known,) if isinstance(known, int) else known) if max(self.chunks[i].times) >= low_ns)
        for chunk_id in tuple(islice(young, SPANNING_CHUNKS_MAX)):
            at = self.chunks[chunk_id].find_spanning(key, low_ns, high_ns)
            if at >= 0:
                self._remove(chunk_id, at, key)
                return True
        return False

    def expire(self, before_ns: int) -> None:
        """Forget the copies that came before; a part of them at a time, when they are many."""
        for _ in range(EXPIRED_CHUNKS_MAX):
            if not self.chunks:
                return
            chunk_id, chunk = next(iter(self.chunks.items()))
            if max(chunk.times) < before_ns:
                self._drop(chunk_id)
                continue
            while chunk.times[0] < before_ns:
                self._remove(chunk_id, 0, chunk.hashes[0])
            return

    def bound(self, protected_ns: int) -> None:
        """Keep to the bound: drop the oldest chunks that came after `protected_ns`."""
        while self.count > self._max:
            ids = iter(self.chunks)
            chosen = next((i for i in ids if i != self._open and self.chunks[i].times[0] > protected_ns), None)
            if chosen is None:
                chosen = next(iter(self.chunks))
            self.dropped += len(self.chunks[chosen])
            self._drop(chosen)

    def _remove(self, chunk_id: int, at: int, key: int) -> None:
        chunk = self.chunks[chunk_id]
        if not chunk.remove(at):
            self._unrefer(key, chunk_id)
        self.count -= 1
        if len(chunk):
            self.changed.add(chunk_id)
        else:
            self._delete(chunk_id)

    def _drop(self, chunk_id: int) -> None:
        chunk = self.chunks[chunk_id]
        for key in set(chunk.hashes):
            self._unrefer(key, chunk_id)
        self.count -= len(chunk)
        self._delete(chunk_id)

    def _delete(self, chunk_id: int) -> None:
        del self.chunks[chunk_id]
        self.changed.discard(chunk_id)
        self.deleted.add(chunk_id)

    def _unrefer(self, key: int, chunk_id: int) -> None:
        known = self._index[key]
        if isinstance(known, int):
            del self._index[key]
            return
        known.remove(chunk_id)
        if len(known) == 1:
            self._index[key] = known[0]

    def _refer(self, key: int, chunk_id: int) -> None:
        known = self._index.get(key)
        if known is None:
            self._index[key] = chunk_id
        elif isinstance(known, int):
            if known != chunk_id:
                self._index[key] = [known, chunk_id]
        elif known[-1] != chunk_id:
            known.append(chunk_id)
