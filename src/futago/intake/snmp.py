"""SNMP traps and informs: a small BER decoder with strict bounds, the normalised content, and the text that
patterns see.

Pure. v1 and v2c; v3 is told as not decoded. Nothing but Corrupt is raised, whatever the bytes.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address

from futago.runtime.faults import Corrupt

OID_PARTS_MAX = 128
VARBINDS_MAX = 1024
_OIDS_REMEMBERED = 20_000
_SYS_UP_TIME = bytes.fromhex("2b060102010103 00".replace(" ", ""))  # 1.3.6.1.2.1.1.3.0
_TRAP_OID = bytes.fromhex("2b06010603010104 0100".replace(" ", ""))  # 1.3.6.1.6.3.1.1.4.1.0
_TRAP_ADDRESS = "1.3.6.1.6.3.18.1.3.0"
_STANDARD_TRAPS = "1.3.6.1.6.3.1.1.5"
_ENTERPRISE_SPECIFIC = 6

_INTEGER, _STRING, _NULL, _OID, _SEQUENCE = 0x02, 0x04, 0x05, 0x06, 0x30
_IP_ADDRESS, _COUNTER32, _GAUGE32, _TIME_TICKS, _COUNTER64 = 0x40, 0x41, 0x42, 0x43, 0x46
_V1_TRAP, _INFORM, _V2_TRAP = 0xA4, 0xA6, 0xA7


class TrapKind(enum.Enum):
    """What was sent."""

    TRAP_V1 = "v1 trap"
    TRAP = "trap"
    INFORM = "inform"


@dataclass(frozen=True, slots=True)
class Varbind:
    """One variable: dotted name, BER tag of the value, the value as text."""

    oid: str
    tag: int
    text: str


@dataclass(frozen=True, slots=True)
class Trap:
    """One notification. `varbinds` without sysUpTime.0 and snmpTrapOID.0. `agent` only from v1."""

    kind: TrapKind
    community: bytes
    trap_oid: str
    up_time: int | None
    varbinds: tuple[Varbind, ...]
    agent: str | None = None

    @property
    def text(self) -> str:
        """Return the line that patterns are matched against: trapOID=... name=value ..."""
        return " ".join([f"trapOID={self.trap_oid}", *(f"{v.oid}={v.text}" for v in self.varbinds)])


def decode(data: bytes) -> Trap:
    """Return the notification in a datagram.

    Raises:
        Corrupt: it is not one, or it is of a version that is not decoded here.
    """
    community, tag, start, end = _envelope(data)
    if tag == _V1_TRAP:
        return _v1(data, community, start, end)
    kind = TrapKind.INFORM if tag == _INFORM else TrapKind.TRAP
    up_time: int | None = None
    trap_oid = ""
    varbinds: list[Varbind] = []
    for name, value_tag, value_start, value_end, _, _ in _varbinds(data, *_v2_list(data, start, end)):
        if name == _SYS_UP_TIME and value_tag == _TIME_TICKS:
            up_time = _integer(data, value_start, value_end, is_signed=False)
        elif name == _TRAP_OID and value_tag == _OID:
            trap_oid = oid_text(data[value_start:value_end])
        else:
            varbinds.append(_varbind(data, name, value_tag, value_start, value_end))
    return Trap(kind, community, trap_oid, up_time, tuple(varbinds))


def normalised(data: bytes) -> bytes:
    """Return what is the same in two copies of one notification sent to two receivers.

    Two senders' processes give two request ids and two up-times; everything else is kept as it came. Of what cannot be
    decoded, all is kept.
    """
    try:
        community, tag, start, end = _envelope(data)
        parts = [bytes([tag]), community, b"\0"]
        if tag == _V1_TRAP:
            _, time_at, time_end, list_start, list_end = _v1_places(data, start, end)
            parts += [data[start:time_at], data[time_end:list_start]]
        else:
            list_start, list_end = _v2_list(data, start, end)
        for name, tag, _, _, whole, whole_end in _varbinds(data, list_start, list_end):
            if name != _SYS_UP_TIME or tag != _TIME_TICKS:
                parts.append(data[whole:whole_end])
        return b"".join(parts)
    except Corrupt:
        return data


def _header(data: bytes, at: int, end: int) -> tuple[int, int, int]:
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


def _expect(data: bytes, at: int, end: int, tag: int) -> tuple[int, int]:
    found, start, stop = _header(data, at, end)
    if found != tag:
        raise Corrupt(f"SNMP: expected tag {tag:#x}, found {found:#x}")
    return start, stop


def _envelope(data: bytes) -> tuple[bytes, int, int, int]:
    """Return (community, tag of the PDU, its start, its end)."""
    at, end = _expect(data, 0, len(data), _SEQUENCE)
    start, at = _expect(data, at, end, _INTEGER)
    version = _integer(data, start, at, is_signed=True)
    if version not in (0, 1):
        raise Corrupt(f"SNMP: version {'3' if version == 3 else version} is not decoded here")
    start, at = _expect(data, at, end, _STRING)
    community = data[start:at]
    tag, start, stop = _header(data, at, end)
    if (tag == _V1_TRAP) != (version == 0) or tag not in (_V1_TRAP, _INFORM, _V2_TRAP):
        raise Corrupt(f"SNMP: PDU {tag:#x} is not a notification of its version")
    return community, tag, start, stop


def _v2_list(data: bytes, at: int, end: int) -> tuple[int, int]:
    """Return the bounds of the varbinds of a v2c PDU."""
    for _ in range(3):  # request id, error status, error index
        _, at = _expect(data, at, end, _INTEGER)
    return _expect(data, at, end, _SEQUENCE)


def _varbinds(data: bytes, at: int, end: int) -> list[tuple[bytes, int, int, int, int, int]]:
    """Return (name, tag, start and end of the value, start and end of the whole) of each varbind."""
    found: list[tuple[bytes, int, int, int, int, int]] = []
    while at < end:
        if len(found) >= VARBINDS_MAX:
            raise Corrupt(f"SNMP: more than {VARBINDS_MAX} varbinds")
        start, stop = _expect(data, at, end, _SEQUENCE)
        name_start, name_end = _expect(data, start, stop, _OID)
        tag, value_start, value_end = _header(data, name_end, stop)
        if value_end != stop:
            raise Corrupt("SNMP: a varbind holds more than a name and a value")
        found.append((data[name_start:name_end], tag, value_start, value_end, at, stop))
        at = stop
    return found


def _v1_places(data: bytes, at: int, end: int) -> tuple[int, int, int, int, int]:
    """Return where in a v1 trap the enterprise ends, the time stands (start, end), and its varbinds (start, end)."""
    _, enterprise_end = _expect(data, at, end, _OID)
    at = enterprise_end
    for tag in (_IP_ADDRESS, _INTEGER, _INTEGER):
        _, at = _expect(data, at, end, tag)
    time_at = at
    _, time_end = _expect(data, at, end, _TIME_TICKS)
    start, stop = _expect(data, time_end, end, _SEQUENCE)
    return enterprise_end, time_at, time_end, start, stop


def _v1(data: bytes, community: bytes, at: int, end: int) -> Trap:
    """Map a v1 trap as RFC 3584, section 3.1, says."""
    start, at = _expect(data, at, end, _OID)
    enterprise = oid_text(data[start:at])
    start, at = _expect(data, at, end, _IP_ADDRESS)
    agent = _value(data, _IP_ADDRESS, start, at)
    start, at = _expect(data, at, end, _INTEGER)
    generic = _integer(data, start, at, is_signed=True)
    start, at = _expect(data, at, end, _INTEGER)
    specific = _integer(data, start, at, is_signed=True)
    start, at = _expect(data, at, end, _TIME_TICKS)
    up_time = _integer(data, start, at, is_signed=False)
    start, stop = _expect(data, at, end, _SEQUENCE)
    varbinds = [_varbind(data, name, tag, first, last) for name, tag, first, last, _, _ in _varbinds(data, start, stop)]
    if all(v.oid != _TRAP_ADDRESS for v in varbinds):
        varbinds.append(Varbind(_TRAP_ADDRESS, _IP_ADDRESS, agent))
    is_own = generic == _ENTERPRISE_SPECIFIC
    trap_oid = f"{enterprise}.0.{specific}" if is_own else f"{_STANDARD_TRAPS}.{generic + 1}"
    return Trap(TrapKind.TRAP_V1, community, trap_oid, up_time, tuple(varbinds), agent)


def _varbind(data: bytes, name: bytes, tag: int, start: int, end: int) -> Varbind:
    return Varbind(oid_text(name), tag, _value(data, tag, start, end))


def _value(data: bytes, tag: int, start: int, end: int) -> str:
    show = _SHOWN.get(tag)
    return show(data, start, end) if show is not None else "0x" + data[start:end].hex()


def _signed(data: bytes, start: int, end: int) -> str:
    return str(_integer(data, start, end, is_signed=True))


def _unsigned(data: bytes, start: int, end: int) -> str:
    return str(_integer(data, start, end, is_signed=False))


def _address(data: bytes, start: int, end: int) -> str:
    if end - start != 4:
        raise Corrupt("SNMP: an IP address that has not four bytes")
    return str(IPv4Address(data[start:end]))


def _integer(data: bytes, start: int, end: int, *, is_signed: bool) -> int:
    if not 1 <= end - start <= 9:
        raise Corrupt(f"SNMP: an integer of {end - start} bytes")
    # Some senders encode large unsigned values without the leading zero: an unsigned type is read as what it is.
    return int.from_bytes(data[start:end], "big", signed=is_signed)


def string_text(data: bytes) -> str:
    """Return an octet string as text if it is printable, else as 0x and hexadecimal digits."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return "0x" + data.hex()
    return text if text.isprintable() else _spaced(text, data)


def _spaced(text: str, data: bytes) -> str:
    plain = text.replace("\r", " ").replace("\n", " ").replace("\t", " ").rstrip("\0")
    return plain if plain.isprintable() else "0x" + data.hex()


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


_SHOWN: dict[int, Callable[[bytes, int, int], str]] = {
    _INTEGER: _signed,
    _STRING: lambda data, start, end: string_text(data[start:end]),
    _NULL: lambda data, start, end: "",
    _OID: lambda data, start, end: oid_text(data[start:end]),
    _IP_ADDRESS: _address,
    **dict.fromkeys((_COUNTER32, _GAUGE32, _TIME_TICKS, _COUNTER64), _unsigned),
    0x80: lambda data, start, end: "noSuchObject",
    0x81: lambda data, start, end: "noSuchInstance",
    0x82: lambda data, start, end: "endOfMibView",
}
