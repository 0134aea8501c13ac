"""What a member has sworn: its view, its intent and whom it knows to be stopped, on the system disk.

Lives here: two preallocated slots in one file, and the writing of them with a deadline. Must not live here: what is
worth writing. The idea: a ledger with two pages. Each entry goes onto the page that holds the older one, with a
number and a checksum, so that a torn entry never costs the one before it.

A write that is late makes the member "unable" until it lands; it may land after we stopped waiting, which is why a
late write is never reported as one that did not happen. What is found at the start is written once more before it is
relied upon: it may have been read from the page cache of a predecessor whose write never reached the disk.
"""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import msgspec

from futago.cluster.model import Durable, Epoch, View
from futago.runtime.faults import Corrupt, Refused, Unknown
from futago.runtime.unreadable import UNREADABLE
from futago.runtime.worker import Worker
from futago.setup import paths

SLOT_BYTES = 4096
MAGIC = b"FTGOVIEW"
_HEAD = struct.Struct("!8sIQI")  # magic, length of body, sequence, CRC-32 of sequence and body
WRITE_S_MAX = 0.5  # a slot takes 0.2 ms, 50 ms on a busy disk
RECHECK_S = 2.0  # how often an idle disk is asked whether it still writes


class Record(msgspec.Struct, frozen=True):
    """One entry."""

    view: View | None = None
    intent: int = 0
    stopped_epoch: int = 0


def pack(record: Record, seq: int) -> bytes:
    """Return the slot that holds `record`."""
    body = msgspec.msgpack.encode(record)
    crc = zlib.crc32(body, zlib.crc32(struct.pack("!Q", seq)))
    slot = _HEAD.pack(MAGIC, len(body), seq, crc) + body
    assert len(slot) <= SLOT_BYTES
    return slot.ljust(SLOT_BYTES, b"\0")


def unpack(slot: bytes) -> tuple[Record, int]:
    """Return the record and its sequence.

    Raises:
        Corrupt: the slot is empty, torn or damaged.
    """
    if len(slot) < _HEAD.size:
        raise Corrupt("slot is short")
    magic, length, seq, crc = _HEAD.unpack_from(slot)
    body = slot[_HEAD.size : _HEAD.size + length]
    if magic != MAGIC or len(body) != length or zlib.crc32(body, zlib.crc32(struct.pack("!Q", seq))) != crc:
        raise Corrupt("slot does not pass its check")
    try:
        return msgspec.msgpack.decode(body, type=Record), seq
    except UNREADABLE as e:
        raise Corrupt(f"slot cannot be read: {e}") from e


def newest(content: bytes) -> tuple[Record, int]:
    """Return the newest valid record of a slot file and its sequence.

    Raises:
        Corrupt: no slot is valid.
    """
    found = []
    for at in (0, SLOT_BYTES):
        with contextlib.suppress(Corrupt):
            found.append(unpack(content[at : at + SLOT_BYTES]))
    if not found:
        raise Corrupt("neither slot is valid")
    return max(found, key=lambda pair: pair[1])


def create(path: Path, record: Record | None = None) -> None:
    """Make the slot file with `record` in its first slot, durable under its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    fd = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, pack(record or Record(), 0) + bytes(SLOT_BYTES))
        os.fsync(fd)
    finally:
        os.close(fd)
    fresh.rename(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class Keeper:
    """Holds the newest durable record and writes the next.

    Args:
        path: the slot file; made if absent.
        on_change: called in the loop when `durable` has changed.

    Raises:
        Corrupt: there is a file, but no entry in it can be read.
    """

    def __init__(self, path: Path = paths.VIEW_SLOTS, *, on_change: Callable[[], None]) -> None:
        if not path.exists():
            create(path)
        self._fd = os.open(path, os.O_RDWR | os.O_DSYNC | os.O_CLOEXEC)
        self._record, self._seq = newest(path.read_bytes())
        self._worker = Worker("slots")
        self._on_change = on_change
        self._is_confirmed = False
        with contextlib.suppress(OSError):  # then unable, and taken for unsettled, until a write has landed
            self._confirm()
        self.is_able = self._is_confirmed
        self._is_writing = not self._is_confirmed
        self._is_under_way = False  # a write was handed to the thread, and its end has not reached the loop

    @property
    def durable(self) -> Durable:
        r = self._record
        return Durable(
            view=r.view,
            intent=Epoch(r.intent),
            stopped_epoch=Epoch(r.stopped_epoch),
            is_able=self.is_able,
            is_writing=self._is_writing,
        )

    async def put_view(self, view: View, *, stopped: bool = False) -> None:
        """Make `view` durable; an intent that it fulfils or overtakes is cleared in the same write.

        Args:
            stopped: the other member is known to be stopped in this epoch; goes into the same write.

        Raises:
            As `_put`.
        """
        held = self._record.view
        if held is not None and view.epoch < held.epoch:
            raise Refused(f"epoch {view.epoch} is older than the durable epoch {held.epoch}")
        intent = 0 if self._record.intent <= view.epoch else self._record.intent
        epoch = max(self._record.stopped_epoch, view.epoch) if stopped else self._record.stopped_epoch
        await self._put(msgspec.structs.replace(self._record, view=view, intent=intent, stopped_epoch=epoch))

    async def put_intent(self, epoch: Epoch) -> None:
        """Make the intent durable (0: none). Raises as `_put`."""
        await self._put(msgspec.structs.replace(self._record, intent=epoch))

    async def put_stopped(self, epoch: Epoch) -> None:
        """Make durable that the other member is stopped in `epoch`. Raises as `_put`."""
        await self._put(msgspec.structs.replace(self._record, stopped_epoch=epoch))

    async def recheck(self) -> None:
        """Write the present record again: does the disk still take it? Sets `is_able`; never raises.

        A success also overwrites whatever a failed write may have left, since it goes onto the same page. Beside a write
        that is under way nothing is written: the present record would come after the new one, and win.
        """
        if self._is_under_way:
            return
        with contextlib.suppress(Refused, Unknown):
            await self._put(self._record)

    def _confirm(self) -> None:
        """Write the record that was found once more, onto its own page, and sync it. Raises OSError.

        It was read from the page cache, and a predecessor that was killed, or whose sync failed, may have left it only
        there: after a failed sync the kernel counts the page as clean, so that a sync alone does nothing and succeeds.
        We would promise what a power cut takes back. On its own page, because the other one may be all that the disk
        has; where the disk has it already, even a torn write changes nothing.
        """
        if not self._is_confirmed:
            self._write_page(self._record, self._seq)
            self._is_confirmed = True

    def _write_page(self, record: Record, seq: int) -> None:
        if os.pwrite(self._fd, pack(record, seq), (seq % 2) * SLOT_BYTES) != SLOT_BYTES:
            raise OSError("short write")
        os.fdatasync(self._fd)

    async def _put(self, record: Record) -> None:
        """Write `record`.

        Raises:
            Unknown: late; it may still land, and then `durable` changes.
            Refused: the disk refused it.
        """
        if self._is_under_way:
            self._set_able(False)
            raise Unknown("an earlier write has not ended")
        self._is_under_way = True
        if (record.view, record.intent) != (self._record.view, self._record.intent):
            self._is_writing = True
        try:
            await self._worker.do(lambda: self._write(record), deadline_s=WRITE_S_MAX)
        except OSError as e:
            self._set_able(False)
            raise Refused(f"view slot: {e}") from e
        except Unknown:
            self._set_able(False)
            raise
        self._set_able(True)

    def _write(self, record: Record) -> None:
        """In the worker's thread, one at a time: write and sync the next slot; only then is the record ours."""
        seq = self._seq + 1
        try:
            self._confirm()
            self._write_page(record, seq)
        except BaseException:
            self._worker.call_in_loop(self._failed)
            raise
        self._worker.call_in_loop(self._landed, record, seq)

    def _failed(self) -> None:
        self._is_under_way = False

    def _landed(self, record: Record, seq: int) -> None:
        self._is_under_way = False
        self._record, self._seq, self._is_writing = record, seq, False
        self._on_change()

    def _set_able(self, is_able: bool) -> None:
        if self.is_able != is_able:
            self.is_able = is_able
            self._on_change()
