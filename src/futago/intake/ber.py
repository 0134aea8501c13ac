"""BER as SNMP uses it: definite lengths, one-byte tags. Reading with strict bounds, and the little writing that answers
need. Pure.

A reader goes over one `bytes` with offsets, so that nothing is copied before it is wanted. Whatever the bytes, nothing
but Corrupt is raised.
"""

from __future__ import annotations

from futago.runtime.faults import Corrupt

OID_PARTS_MAX = 128
_OIDS_REMEMBERED = 20_000

INTEGER, STRING, NULL, OID, SEQUENCE = 0x02, 0x04, 0x05, 0x06, 0x30


def header(data: bytes, at: int, end: int) -> tuple[int, int, int]:
    """Return (tag, start, end) of the value whose header is at `at`, all within `end`."""
    if at + 2 > end:
        raise Corrupt("SNMP: a value begins beyond its container")
    tag, size = data[at], data[at + 1]
    at += 2
    if size >= 0x80:
        width = size & 0x7F
        if not 1 <= width <= 4 or at + width > end:
            raise Corrupt("SNMP: a length that is indefinite, too wide or cut off")
        size = int.from_bytes(data[at : at + width], "big")
        at += width
    if tag & 0x1F == 0x1F or at + size > end:
        raise Corrupt("SNMP: a value is longer than its container")
    return tag, at, at + size


def expect(data: bytes, at: int, end: int, tag: int) -> tuple[int, int]:
    """Return (start, end) of the value at `at`, which must have this tag."""
    start = at + 2
    if start <= end and data[at] == tag:  # most lengths have one byte: the hot path of everything
        stop = start + data[at + 1]
        if stop <= end and data[at + 1] < 0x80:
            return start, stop
        if data[at + 1] == 0x82 and at + 4 <= end:  # and of the others most have two
            start += 2
            stop = start + (data[at + 2] << 8 | data[at + 3])
            if stop <= end:
                return start, stop
    found, start, stop = header(data, at, end)
    if found != tag:
        raise Corrupt(f"SNMP: expected tag {tag:#x}, found {found:#x}")
    return start, stop


def integer(data: bytes, start: int, end: int, *, is_signed: bool = True) -> int:
    """Return an integer. Some senders encode large unsigned values without the leading zero: an unsigned type is read as
    what it is.
    """
    if not 1 <= end - start <= 9:
        raise Corrupt(f"SNMP: an integer of {end - start} bytes")
    return int.from_bytes(data[start:end], "big", signed=is_signed)


_oids: dict[bytes, str] = {}


def oid_text(data: bytes) -> str:
    """Return an object identifier in dotted form. Raises Corrupt."""
    known = _oids.get(data)
    if known is None:
        if len(_oids) >= _OIDS_REMEMBERED:
            _oids.clear()
        known = _oids[data] = _oid(data)
    return known


def _oid(data: bytes) -> str:
    if not data:
        return "0.0"
    parts: list[int] = []
    value, width = 0, 0
    for byte in data:
        value = value << 7 | byte & 0x7F
        width += 1
        if width > 5:
            raise Corrupt("SNMP: a part of an object identifier is too large")
        if not byte & 0x80:
            parts.append(value)
            value, width = 0, 0
    if width or len(parts) > OID_PARTS_MAX:
        raise Corrupt("SNMP: an object identifier is cut off or too long")
    first = min(parts[0] // 40, 2)
    return ".".join(map(str, [first, parts[0] - 40 * first, *parts[1:]]))


def value(tag: int, content: bytes) -> bytes:
    """Return one encoded value."""
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    width = (size.bit_length() + 7) // 8
    return bytes((tag, 0x80 | width)) + size.to_bytes(width, "big") + content


def integer_value(number: int, *, tag: int = INTEGER) -> bytes:
    """Return an encoded integer, in as few bytes as it needs."""
    return value(tag, number.to_bytes(number.bit_length() // 8 + 1, "big", signed=True))
