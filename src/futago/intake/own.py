"""The own journal as the receiving thread sees it: numbers and stamps what comes, and hands it to the writer.

`add` is the hot path: one call for each datagram or frame; `hand` once after each drain of a socket.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

import msgspec

from futago.intake.model import NO_SOURCE, Incarnation, Mark, Protocol
from futago.intake.segment import pack_record, pack_records
from futago.intake.writer import Batch, JournalWriter
from futago.runtime import clock

PENDING_BYTES_MAX = 64 << 20  # several seconds of a flood; beyond it, sockets are not read


class SteadyClock:
    """Wall time as of the machine's boot, counting evenly, whatever is done to the wall clock."""

    __slots__ = ("_zero_ns",)

    def __init__(self, zero_ns: int) -> None:
        self._zero_ns = zero_ns

    def now_ns(self) -> int:
        """Return the present receive time."""
        return self._zero_ns + clock.now_at()

    def wall_ahead_ns(self) -> int:
        """Return what must be added to a receive time to get the wall clock's."""
        return time.time_ns() - self.now_ns()


class OwnJournal:
    """Appends this receiver's records.

    Args:
        writer: the writer of the own journal.
        incarnation: this life.
    """

    def __init__(self, writer: JournalWriter, incarnation: Incarnation) -> None:
        self.writer = writer
        self.incarnation = incarnation
        self.clock = SteadyClock(incarnation.zero_ns)
        self.sequence = 0  # of the last record that was added
        self.is_disk_short = False
        self._batch: list[bytes] = []
        self._batch_bytes = 0
        self._handed = 0  # the last sequence that the writer was given

    @property
    def is_congested(self) -> bool:
        """Sockets must not be read now: the disk does not keep up, or is full."""
        return self.is_disk_short or self.writer.pending_bytes > PENDING_BYTES_MAX

    @property
    def synced_sequence(self) -> int:
        """The last sequence that is on this disk."""
        synced = self.writer.synced
        return synced.sequence if synced is not None else 0

    def add(self, data: bytes, *, protocol: int, source: bytes, port: int, time_ns: int, flags: int = 0) -> None:
        """Append one record; it becomes durable some milliseconds after `hand`."""
        self.sequence += 1
        packed = pack_record(
            sequence=self.sequence,
            time_ns=time_ns,
            protocol=protocol,
            flags=flags,
            source=source,
            port=port,
            data=data,
        )
        self._batch.append(packed)
        self._batch_bytes += len(packed)

    def add_many(self, messages: Iterable[tuple[bytes, bytes, int]], *, protocol: int, time_ns: int) -> None:
        """Append (data, source, port) of messages that were received together."""
        pieces, self.sequence, size = pack_records(
            messages, first=self.sequence + 1, time_ns=time_ns, protocol=protocol
        )
        self._batch += pieces
        self._batch_bytes += size

    def hand(self) -> None:
        """Give what was added to the writer."""
        if self._batch:
            first, self._handed = self._handed + 1, self.sequence
            self.writer.append(Batch(self.incarnation, first, self.sequence, self._batch_bytes, self._batch))
            self._batch = []
            self._batch_bytes = 0

    def mark(self, mark: Mark, time_ns: int) -> None:
        """Append a note about the receiver itself, as of `time_ns`."""
        self.add(
            msgspec.msgpack.encode(mark),
            protocol=Protocol.CONTROL,
            source=NO_SOURCE,
            port=0,
            time_ns=time_ns,
        )
        self.hand()
