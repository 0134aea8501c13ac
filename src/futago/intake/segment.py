"""The format of a journal on disk: segments of records. Pure: bytes in, records out.

    <journal>/<ordinal>-<incarnation>/<first sequence>.seg
    segment = head (64 bytes) record record record ...
    record  = magic, crc32, length, protocol, flags, port, sequence, receive time, source address (48 bytes
    together), data

The crc covers everything after itself. Sequences grow within a segment; a gap is allowed (a copy that began
later). A record that does not pass its check ends the walk: whether that is a torn tail or damage is for the
caller to say, who knows whether more may come. `resume` finds the next sound record after damage.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Set
from dataclasses import dataclass
from typing import NamedTuple
from zlib import crc32

from futago.intake.model import DATA_BYTES_MAX, Incarnation, IncarnationId, Record
from futago.runtime.faults import Corrupt

VERSION = 1
_SEGMENT_MAGIC = b"FUTAGOJ1"
_SEGMENT = struct.Struct("<8sHHQQqq16sI")
SEGMENT_HEAD_BYTES = _SEGMENT.size
_RECORD = struct.Struct("<HHIIBBHQq16s")
_RECORD_NUMBERS = struct.Struct("<IIIBxxxQ")  # magic and the zero behind it, crc, length, protocol, sequence
_RECORD_START = struct.Struct("<HHI")
_RECORD_REST = struct.Struct("<IBBHQq16s")
RECORD_HEAD_BYTES = _RECORD.size
_CRC_FROM = _RECORD_START.size
RECORD_MAGIC = 0x7AF7
_MAGIC_BYTES = struct.pack("<HH", RECORD_MAGIC, 0)
RECORD_BYTES_MAX = RECORD_HEAD_BYTES + DATA_BYTES_MAX

assert SEGMENT_HEAD_BYTES == 64
assert RECORD_HEAD_BYTES == 48


@dataclass(frozen=True, slots=True)
class SegmentHead:
    """What stands at the beginning of a segment."""

    incarnation: Incarnation
    first_sequence: int
    created_ns: int


@dataclass(frozen=True, slots=True)
class Scan:
    """A walk over records.

    Attributes:
        records: the sound ones, in order.
        end: offset after the last sound record.
        is_damaged: the bytes at `end` are not a sound record, and not just the beginning of one.
    """

    records: list[Record]
    end: int
    is_damaged: bool


def pack_head(head: SegmentHead) -> bytes:
    """Return the 64 bytes that begin a segment."""
    inc = head.incarnation
    body = _SEGMENT.pack(
        _SEGMENT_MAGIC,
        VERSION,
        SEGMENT_HEAD_BYTES,
        int(inc.id, 16),
        head.first_sequence,
        head.created_ns,
        inc.zero_ns,
        inc.boot,
        0,
    )
    return body[:-4] + crc32(body[:-4]).to_bytes(4, "little")


def unpack_head(data: bytes) -> SegmentHead:
    """Return the head of a segment.

    Raises:
        Corrupt: too short, another format, a later version, or damaged.
    """
    if len(data) < SEGMENT_HEAD_BYTES:
        raise Corrupt(f"a segment's head has {len(data)} bytes of {SEGMENT_HEAD_BYTES}")
    magic, version, size, number, first, created_ns, zero_ns, boot, crc = _SEGMENT.unpack_from(data)
    if magic != _SEGMENT_MAGIC or crc != crc32(data[: SEGMENT_HEAD_BYTES - 4]):
        raise Corrupt("not the head of a journal segment, or damaged")
    if version != VERSION or size != SEGMENT_HEAD_BYTES:
        raise Corrupt(f"journal format version {version} is not known here")
    return SegmentHead(Incarnation(IncarnationId(f"{number:016x}"), zero_ns, boot), first, created_ns)


def pack_record(
    *, sequence: int, time_ns: int, protocol: int, flags: int, source: bytes, port: int, data: bytes
) -> bytes:
    """Return a record as it is stored and sent. `source` has 16 bytes, `data` at most DATA_BYTES_MAX."""
    rest = _RECORD_REST.pack(len(data), protocol, flags, port, sequence, time_ns, source) + data
    return _RECORD_START.pack(RECORD_MAGIC, 0, crc32(rest)) + rest


def pack_records(
    messages: Iterable[tuple[bytes, bytes, int]], *, first: int, time_ns: int, protocol: int
) -> tuple[list[bytes], int, int]:
    """Return records of messages that were received together, numbered from `first`; as pieces to be joined, with the
    last sequence and their size.

    Args:
        messages: data, source and port of each.
    """
    pack_start, pack_rest, check = _RECORD_START.pack, _RECORD_REST.pack, crc32
    pieces: list[bytes] = []
    add = pieces.append
    sequence, size = first - 1, 0
    for data, source, port in messages:
        sequence += 1
        rest = pack_rest(len(data), protocol, 0, port, sequence, time_ns, source) + data
        add(pack_start(RECORD_MAGIC, 0, check(rest)))
        add(rest)
        size += len(rest)
    return pieces, sequence, size + _CRC_FROM * (sequence - first + 1)


class Walk(NamedTuple):
    """A walk over records that builds only the chosen ones; else as Scan. `first` is 0 if there is none."""

    first: int
    last: int
    end: int
    is_damaged: bool
    chosen: list[Record]


def walk(buffer: bytes, *, after: int = 0, through: int | None = None, choose: Set[int] = frozenset()) -> Walk:
    """Check the records of `buffer` as `scan` does, for a third of its cost. `choose`: build those of these protocols."""
    unpack, check = _RECORD_NUMBERS.unpack_from, crc32
    chosen: list[Record] = []
    offset, size, first = 0, len(buffer), 0
    while size - offset >= RECORD_HEAD_BYTES:
        magic, crc, length, protocol, sequence = unpack(buffer, offset)
        if magic != RECORD_MAGIC or length > DATA_BYTES_MAX:
            return Walk(first, after, offset, True, chosen)
        end = offset + RECORD_HEAD_BYTES + length
        if end > size:
            break
        if sequence <= after or check(buffer[offset + _CRC_FROM : end]) != crc:
            return Walk(first, after, offset, True, chosen)
        if through is not None and sequence > through:
            break
        if protocol in choose:
            chosen += scan(buffer[offset:end]).records
        first = first or sequence
        after, offset = sequence, end
    return Walk(first, after, offset, False, chosen)


def scan(buffer: bytes, start: int = 0, *, after: int = 0, through: int | None = None) -> Scan:
    """Walk the records of `buffer` from offset `start`.

    Args:
        buffer: bytes of a segment.
        after: only sequences above this are sound.
        through: stop before the first record with a higher sequence.
    """
    records: list[Record] = []
    offset, size, unpack = start, len(buffer), _RECORD.unpack_from
    while size - offset >= RECORD_HEAD_BYTES:
        magic, zero, crc, length, protocol, flags, port, sequence, time_ns, source = unpack(buffer, offset)
        if magic != RECORD_MAGIC or zero or length > DATA_BYTES_MAX:
            return Scan(records, offset, True)
        end = offset + RECORD_HEAD_BYTES + length
        if end > size:
            break
        if sequence <= after or crc32(buffer[offset + _CRC_FROM : end]) != crc:
            return Scan(records, offset, True)
        if through is not None and sequence > through:
            break
        records.append(
            Record(sequence, time_ns, protocol, flags, source, port, buffer[offset + RECORD_HEAD_BYTES : end])
        )
        after, offset = sequence, end
    return Scan(records, offset, False)


def resume(buffer: bytes, start: int, *, after: int) -> int | None:
    """Return the offset of the next sound record after damage at `start`; None if there is none in `buffer`."""
    offset = buffer.find(_MAGIC_BYTES, start + 1)
    while offset >= 0:
        if scan(buffer[offset : offset + RECORD_BYTES_MAX], after=after).records:
            return offset
        offset = buffer.find(_MAGIC_BYTES, offset + 1)
    return None
