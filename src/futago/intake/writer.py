"""Appends to a journal: one thread that writes and syncs many messages at once (group commit).

Batches are handed over whole through a queue by one other thread; nothing is shared (a list swapped between threads
loses records). What was synced is published as `synced`. A write or sync that fails is tried again, into a new segment,
until it succeeds: what was handed over is never dropped here, so whoever hands over must look at `pending_bytes`.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue

import msgspec

from futago.intake.journal import end_of, folder_for, folders, last_sequence, mark_end, segment_name, sync_folder
from futago.intake.model import Incarnation, Position
from futago.intake.segment import SEGMENT_HEAD_BYTES, SegmentHead, pack_head
from futago.runtime import clock

SEGMENT_BYTES = 64 << 20
INTERVAL_S = 0.005  # at most one sync in this time: it bounds the latency of a message and the number of syncs
GROUP_BYTES_MAX = 8 << 20
RETRY_S = 0.2
STOP_S_MAX = 5.0


class Batch(msgspec.Struct, frozen=True, gc=False):
    """Records to append, as bytes, with the first and last sequence."""

    incarnation: Incarnation
    first: int
    last: int
    size: int
    data: list[bytes]


class JournalWriter:
    """The one that appends to a journal. `append` from one thread only.

    Args:
        root: the journal.
        on_synced: called from the writing thread after each sync.
        segment_bytes: a segment that is longer is followed by a new one.
        interval_s: see INTERVAL_S.
    """

    def __init__(
        self,
        root: Path,
        *,
        on_synced: Callable[[], None] = lambda: None,
        segment_bytes: int = SEGMENT_BYTES,
        interval_s: float = INTERVAL_S,
    ) -> None:
        self._root = root
        self._on_synced = on_synced
        self._segment_bytes = segment_bytes
        self._interval_s = interval_s
        self._queue: SimpleQueue[Batch | None] = SimpleQueue()
        self._handed_bytes = 0  # written by the appending thread only
        self._written_bytes = 0  # written by the writing thread only
        self._fd = -1
        self._size = 0
        self._incarnation: Incarnation | None = None
        self._folder = root
        self._is_stopping = False
        self.synced: Position | None = None  # replaced whole, so it may be read from any thread
        self.fault = ""  # why the last write failed; empty while it goes well
        self.syncs = 0
        self.worst_sync_s = 0.0
        self._thread = threading.Thread(target=self._run, name=f"journal:{root.name}", daemon=True)
        self._thread.start()

    @property
    def pending_bytes(self) -> int:
        """Bytes that were handed over and are not yet durable."""
        return self._handed_bytes - self._written_bytes

    def append(self, batch: Batch) -> None:
        """Hand over records that follow the ones handed over before."""
        self._handed_bytes += batch.size
        self._queue.put(batch)

    def close(self) -> None:
        """Write what was handed over and end; gives up after a few seconds if the disk does not take it."""
        self._is_stopping = True
        self._queue.put(None)
        self._thread.join(STOP_S_MAX)

    def _run(self) -> None:
        while (batch := self._queue.get()) is not None:
            began = time.monotonic()
            group, is_end = self._gather(batch)
            for part in group:
                self._commit(part)
            self.worst_sync_s = max(self.worst_sync_s, time.monotonic() - began)
            self._on_synced()
            if is_end:
                break
            time.sleep(max(0.0, self._interval_s - (time.monotonic() - began)))
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _gather(self, batch: Batch) -> tuple[list[Batch], bool]:
        """Return what is waiting, one batch for each incarnation."""
        parts, data, first, last, size = [], list(batch.data), batch.first, batch.last, batch.size
        incarnation, is_end = batch.incarnation, False
        while size < GROUP_BYTES_MAX:
            try:
                more = self._queue.get_nowait()
            except Empty:
                break
            if more is None:
                is_end = True
                break
            if more.incarnation != incarnation:
                parts.append(Batch(incarnation, first, last, size, data))
                incarnation, data, first, size = more.incarnation, [], more.first, 0
            data += more.data
            last = more.last
            size += more.size
        parts.append(Batch(incarnation, first, last, size, data))
        return parts, is_end

    def _commit(self, batch: Batch) -> None:
        blob = b"".join(batch.data)
        give_up_at = 0.0
        while True:
            try:
                self._write(batch, blob)
                break
            except OSError as e:
                self.fault = f"{type(e).__name__}: {e}"
                self._abandon_segment()
                if self._is_stopping:
                    give_up_at = give_up_at or time.monotonic() + STOP_S_MAX / 2
                    if time.monotonic() > give_up_at:
                        return
                time.sleep(RETRY_S)
        self.fault = ""
        self.syncs += 1
        self._written_bytes += batch.size
        self.synced = Position(batch.incarnation.id, batch.last)

    def _write(self, batch: Batch, blob: bytes) -> None:
        if self._fd < 0 or self._size >= self._segment_bytes or self._incarnation != batch.incarnation:
            self._open_segment(batch)
        view = memoryview(blob)
        while view:
            view = view[os.write(self._fd, view) :]
        os.fdatasync(self._fd)
        self._size += len(blob)

    def _open_segment(self, batch: Batch) -> None:
        self._close_segment()
        if self._incarnation != batch.incarnation:
            self._end_older(batch)
            self._folder = folder_for(self._root, batch.incarnation.id)
            self._incarnation = batch.incarnation
        head = SegmentHead(batch.incarnation, batch.first, batch.incarnation.zero_ns + clock.now_at())
        # A file of that name can only be left from a crash or a failure before anything in it was durable.
        path = self._folder / segment_name(batch.first)
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o640)
        os.write(self._fd, pack_head(head))
        self._size = SEGMENT_HEAD_BYTES
        sync_folder(self._folder)

    def _end_older(self, batch: Batch) -> None:
        """Before a new incarnation begins, note that the one before it has ended (a copy learns it this way)."""
        known = folders(self._root)
        if not known or any(one.id == batch.incarnation.id for one in known):
            return
        newest = known[-1]
        if end_of(newest.path) is None:
            is_mine = self.synced is not None and self.synced.incarnation == newest.id
            mark_end(newest.path, self.synced.sequence if is_mine and self.synced else last_sequence(newest.path))

    def _close_segment(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _abandon_segment(self) -> None:
        """After a failure nothing after the last sync may be trusted: cut it off and go on in a new segment."""
        if self._fd < 0:
            return
        with contextlib.suppress(OSError):  # the reader stops at the first sequence of the next segment anyway
            os.ftruncate(self._fd, self._size)
        self._close_segment()
