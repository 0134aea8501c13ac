"""A small value that survives power loss: one file with two slots, written in turn, each with a number and a checksum.

A torn write spoils only the slot being written; the other still holds the last value that was acknowledged. Used for
the highest epoch and for the juror's state.
"""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

from futago.runtime.faults import Corrupt, Refused

SLOT_BYTES = 4096  # one page: a value is far smaller, and two slots never share a sector
_HEAD = struct.Struct("!4sQII")  # magic, number, length, crc32 of number, length and value
_MAGIC = b"FSL1"
VALUE_BYTES_MAX = SLOT_BYTES - _HEAD.size


class SlotFile:
    """The file. `read` first, then `write` as often as needed. Blocking: call it in a thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._number = 0

    def read(self) -> bytes | None:
        """Return the newest value; None if the file does not exist.

        Raises:
            Corrupt: the file is there and neither slot passes its check.
            Refused: it cannot be read.
        """
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as e:
            raise Refused(f"{self._path} cannot be read: {e}") from e
        found = [s for s in (_decode(content[:SLOT_BYTES]), _decode(content[SLOT_BYTES:])) if s is not None]
        if not found:
            raise Corrupt(f"{self._path}: neither of its two copies passes its check")
        self._number, value = max(found)
        return value

    def write(self, value: bytes) -> None:
        """Make the value durable.

        Raises:
            Refused: it is not on disk, or not surely.
        """
        if len(value) > VALUE_BYTES_MAX:
            raise Refused(f"{len(value)} bytes do not fit into {self._path}")
        number = self._number + 1
        try:
            if not self._path.exists():
                self._create(number, value)
            else:
                self._overwrite(number, value)
        except OSError as e:
            raise Refused(f"{self._path} cannot be written: {e}") from e
        self._number = number

    def _overwrite(self, number: int, value: bytes) -> None:
        fd = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.pwrite(fd, _encode(number, value), (number % 2) * SLOT_BYTES)
            os.fsync(fd)
        finally:
            os.close(fd)

    def _create(self, number: int, value: bytes) -> None:
        temporary = self._path.with_name(self._path.name + ".new")
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(fd, _encode(number, value), 0)
            os.pwrite(fd, _encode(number, value), SLOT_BYTES)
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, self._path)
        sync_directory(self._path.parent)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _encode(number: int, value: bytes) -> bytes:
    crc = zlib.crc32(struct.pack("!QI", number, len(value)) + value)
    return (_HEAD.pack(_MAGIC, number, len(value), crc) + value).ljust(SLOT_BYTES, b"\0")


def _decode(slot: bytes) -> tuple[int, bytes] | None:
    if len(slot) < _HEAD.size:
        return None
    magic, number, length, crc = _HEAD.unpack_from(slot)
    value = slot[_HEAD.size : _HEAD.size + length]
    if magic != _MAGIC or len(value) != length or zlib.crc32(struct.pack("!QI", number, length) + value) != crc:
        return None
    return number, value
