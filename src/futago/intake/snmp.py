"""SNMP traps and informs: a small BER decoder with strict bounds, the normalised content, and the text that
patterns see.

Pure. v1 and v2c; what v3 protects is opened in usm.py and then read here. Nothing but Corrupt is raised, whatever the
bytes.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import NamedTuple

from futago.intake.ber import (
    INTEGER,
    NULL,
    OID,
    SEQUENCE,
    STRING,
    expect,
    header,
    integer,
    integer_value,
    oid_text,
    value,
)
from futago.runtime.faults import Corrupt

VARBINDS_MAX = 1024
_SYS_UP_TIME = bytes.fromhex("2b060102010103 00".replace(" ", ""))  # 1.3.6.1.2.1.1.3.0
_TRAP_OID = bytes.fromhex("2b06010603010104 0100".replace(" ", ""))  # 1.3.6.1.6.3.1.1.4.1.0
_TRAP_ADDRESS = "1.3.6.1.6.3.18.1.3.0"
_TRAP_ENTERPRISE = "1.3.6.1.6.3.1.1.4.3.0"
_STANDARD_TRAPS = "1.3.6.1.6.3.1.1.5"
_ENTERPRISE_SPECIFIC = 6

_IP_ADDRESS, _COUNTER32, _GAUGE32, _TIME_TICKS, _COUNTER64 = 0x40, 0x41, 0x42, 0x43, 0x46
RESPONSE, V1_TRAP, INFORM, V2_TRAP = 0xA2, 0xA4, 0xA6, 0xA7
_VERSION_3_VALUE = b"\x02\x01\x03"
_V2_HEAD = b"\x02\x01\x01\x04"  # version 1, and the community begins
_UP_TIME_NAME = b"\x06\x08" + _SYS_UP_TIME
_NO_ERROR = b"\x02\x01\x00\x02\x01\x00"
NOTIFICATIONS = (V1_TRAP, INFORM, V2_TRAP)
VERSION_1, VERSION_2C, VERSION_3 = 0, 1, 3


class TrapKind(enum.Enum):
    """What was sent."""

    TRAP_V1 = "v1 trap"
    TRAP = "trap"
    INFORM = "inform"


class Varbind(NamedTuple):
    """One variable: dotted name, BER tag of the value, the value as text, and its bytes."""

    oid: str
    tag: int
    text: str
    data: bytes = b""


class Trap(NamedTuple):
    """One notification. `varbinds` without sysUpTime.0 and snmpTrapOID.0. `agent` only from v1, `user` only from v3."""

    kind: TrapKind
    community: bytes
    trap_oid: str
    up_time: int | None
    varbinds: tuple[Varbind, ...]
    agent: str | None = None
    user: str | None = None

    @property
    def text(self) -> str:
        """Return the line that patterns are matched against: trapOID=... name=value ..."""
        return " ".join([f"trapOID={self.trap_oid}", *(f"{v.oid}={v.text}" for v in self.varbinds)])


class Opened(NamedTuple):
    """A notification whose envelope was read: the PDU is `tag` with its content at `start` to `end` of `data`.

    `sender` is the community (v1, v2c), or user and context (v3): what it says of itself beside the PDU.
    """

    data: bytes
    version: int
    tag: int
    start: int
    end: int
    sender: bytes
    user: str | None = None


def open_plain(data: bytes) -> Opened:
    """Return a v1 or v2c notification with its envelope read.

    Raises:
        Corrupt: it is not one, or of another version.
    """
    at, end = expect(data, 0, len(data), SEQUENCE)
    if data[at : at + 4] == _V2_HEAD and at + 5 <= end and data[at + 4] < 0x80:  # nearly every one
        start = at + 5
        stop = start + data[at + 4]
        community = data[start:stop]
        tag, start, stop = header(data, stop, end)
        if tag not in (INFORM, V2_TRAP):
            raise Corrupt(f"SNMP: PDU {tag:#x} is not a notification of its version")
        return Opened(data, VERSION_2C, tag, start, stop, community)
    start, at = expect(data, at, end, INTEGER)
    version = integer(data, start, at)
    if version not in (VERSION_1, VERSION_2C):
        raise Corrupt(f"SNMP: version {version} is not v1 or v2c")
    start, at = expect(data, at, end, STRING)
    community = data[start:at]
    tag, start, stop = header(data, at, end)
    if (tag == V1_TRAP) != (version == VERSION_1) or tag not in NOTIFICATIONS:
        raise Corrupt(f"SNMP: PDU {tag:#x} is not a notification of its version")
    return Opened(data, version, tag, start, stop, community)


def decode(data: bytes) -> Trap:
    """Return the v1 or v2c notification in a datagram. Raises Corrupt: it is not one."""
    return decode_opened(open_plain(data))


def decode_opened(opened: Opened) -> Trap:
    """Return a notification whose envelope was read. Raises Corrupt."""
    data, _, tag, start, end, sender, user = opened
    if tag == V1_TRAP:
        return _v1(data, sender, start, end)
    kind = TrapKind.INFORM if tag == INFORM else TrapKind.TRAP
    up_time: int | None = None
    trap_oid = ""
    varbinds: list[Varbind] = []
    for name, value_tag, value_start, value_end, _, _ in _varbinds(data, *_v2_list(data, start, end)):
        if name == _SYS_UP_TIME and value_tag == _TIME_TICKS:
            up_time = integer(data, value_start, value_end, is_signed=False)
        elif name == _TRAP_OID and value_tag == OID:
            trap_oid = oid_text(data[value_start:value_end])
        else:
            varbinds.append(_varbind(data, name, value_tag, value_start, value_end))
    return Trap(kind, b"" if user is not None else sender, trap_oid, up_time, tuple(varbinds), user=user)


def text_opened(opened: Opened) -> str:
    """Return what `decode_opened(opened).text` is, without what stands between. Raises Corrupt."""
    data, _, tag, start, end, _, _ = opened
    if tag == V1_TRAP:
        return decode_opened(opened).text
    trap_oid = ""
    parts: list[str] = []
    for name, value_tag, value_start, value_end, _, _ in _varbinds(data, *_v2_list(data, start, end)):
        if value_tag == STRING:
            parts.append(f"{oid_text(name)}={string_text(data[value_start:value_end])}")
        elif name == _SYS_UP_TIME and value_tag == _TIME_TICKS:
            integer(data, value_start, value_end, is_signed=False)
        elif name == _TRAP_OID and value_tag == OID:
            trap_oid = oid_text(data[value_start:value_end])
        else:
            parts.append(f"{oid_text(name)}={_value(data, value_tag, value_start, value_end)}")
    return " ".join([f"trapOID={trap_oid}", *parts])


def normalised(data: bytes) -> bytes:
    """Return what is the same in two copies of one v1 or v2c notification sent to two receivers; see `content`. Of what
    cannot be decoded, all is kept.
    """
    try:
        return content(open_plain(data))
    except Corrupt:
        return data


def content(opened: Opened) -> bytes:
    """Return what is the same in two copies of one notification sent to two receivers.

    Two senders' processes give two request ids and two up-times, and v3 two message ids and two salts; everything else
    is kept as it came.

    Raises:
        Corrupt: the PDU cannot be read.
    """
    data, _, tag, start, end, sender, user = opened
    parts = [bytes([tag]), sender, b"\0" if user is None else b"\3"]
    if tag == V1_TRAP:
        _, time_at, time_end, list_start, list_end = _v1_places(data, start, end)
        parts += [data[start:time_at], data[time_end:list_start]]
    else:
        list_start, list_end = _v2_list(data, start, end)
        list_start = _behind_up_time(data, list_start, list_end)
    parts.append(data[list_start:list_end])
    return b"".join(parts)


def _behind_up_time(data: bytes, at: int, end: int) -> int:
    """Return where the varbinds begin without sysUpTime.0, which comes first (RFC 3416, section 4.2.6)."""
    if at == end:
        return at
    if data[at + 2 : at + 12] == _UP_TIME_NAME and data[at] == SEQUENCE and data[at + 1] < 0x80:
        stop = at + 2 + data[at + 1]
        if at + 12 <= stop <= end:
            return stop
    start, stop = expect(data, at, end, SEQUENCE)
    name_start, name_end = expect(data, start, stop, OID)
    return stop if data[name_start:name_end] == _SYS_UP_TIME else at


def response_pdu(opened: Opened) -> bytes:
    """Return the Response PDU that acknowledges an INFORM: its request id and its varbinds, no error.

    Raises:
        Corrupt: the PDU cannot be read.
    """
    data, _, _, start, end, _, _ = opened
    _, id_end = expect(data, start, end, INTEGER)
    list_start, list_end = _v2_list(data, start, end)
    _varbinds(data, list_start, list_end)  # what we acknowledge we can read
    no_error = integer_value(0)
    return value(RESPONSE, data[start:id_end] + no_error + no_error + value(SEQUENCE, data[list_start:list_end]))


def response(opened: Opened) -> bytes:
    """Return the whole answer to a v2c INFORM. Raises Corrupt."""
    head = integer_value(opened.version) + value(STRING, opened.sender)
    return value(SEQUENCE, head + response_pdu(opened))


def is_v3(data: bytes) -> bool:
    """Return whether a datagram says that it is of version 3; nothing else of it is looked at."""
    at = 2 + (data[1] & 0x7F if len(data) > 2 and data[1] & 0x80 else 0)
    return data[at : at + 3] == _VERSION_3_VALUE


def _v2_list(data: bytes, at: int, end: int) -> tuple[int, int]:
    """Return the bounds of the varbinds of a v2c PDU."""
    _, at = expect(data, at, end, INTEGER)  # request id
    if data[at : at + 6] == _NO_ERROR and at + 6 <= end:
        at += 6
    else:
        for _ in range(2):  # error status, error index
            _, at = expect(data, at, end, INTEGER)
    return expect(data, at, end, SEQUENCE)


def _varbinds(data: bytes, at: int, end: int) -> list[tuple[bytes, int, int, int, int, int]]:
    """Return (name, tag, start and end of the value, start and end of the whole) of each varbind."""
    found: list[tuple[bytes, int, int, int, int, int]] = []
    while at < end:
        if len(found) >= VARBINDS_MAX:
            raise Corrupt(f"SNMP: more than {VARBINDS_MAX} varbinds")
        if at + 6 <= end and data[at] == SEQUENCE and data[at + 1] < 0x80 and data[at + 2] == OID:
            # All lengths of one byte: nearly every varbind.
            stop = at + 2 + data[at + 1]
            name_end = at + 4 + data[at + 3]
            value_start = name_end + 2
            if data[at + 3] < 0x80 and value_start <= stop <= end and data[name_end + 1] < 0x80:
                tag = data[name_end]
                if value_start + data[name_end + 1] == stop and tag & 0x1F != 0x1F:
                    found.append((data[at + 4 : name_end], tag, value_start, stop, at, stop))
                    at = stop
                    continue
        start, stop = expect(data, at, end, SEQUENCE)
        name_start, name_end = expect(data, start, stop, OID)
        tag, value_start, value_end = header(data, name_end, stop)
        if value_end != stop:
            raise Corrupt("SNMP: a varbind holds more than a name and a value")
        found.append((data[name_start:name_end], tag, value_start, value_end, at, stop))
        at = stop
    return found


def _v1_places(data: bytes, at: int, end: int) -> tuple[int, int, int, int, int]:
    """Return where in a v1 trap the enterprise ends, the time stands (start, end), and its varbinds (start, end)."""
    _, enterprise_end = expect(data, at, end, OID)
    at = enterprise_end
    for tag in (_IP_ADDRESS, INTEGER, INTEGER):
        _, at = expect(data, at, end, tag)
    time_at = at
    _, time_end = expect(data, at, end, _TIME_TICKS)
    start, stop = expect(data, time_end, end, SEQUENCE)
    return enterprise_end, time_at, time_end, start, stop


def _v1(data: bytes, community: bytes, at: int, end: int) -> Trap:
    """Map a v1 trap as RFC 3584, section 3.1, says; without snmpTrapCommunity, which is a secret."""
    start, at = expect(data, at, end, OID)
    enterprise = oid_text(data[start:at])
    start, at = expect(data, at, end, _IP_ADDRESS)
    agent = _value(data, _IP_ADDRESS, start, at)
    start, at = expect(data, at, end, INTEGER)
    generic = integer(data, start, at)
    start, at = expect(data, at, end, INTEGER)
    specific = integer(data, start, at)
    start, at = expect(data, at, end, _TIME_TICKS)
    up_time = integer(data, start, at, is_signed=False)
    start, stop = expect(data, at, end, SEQUENCE)
    varbinds = [_varbind(data, name, tag, first, last) for name, tag, first, last, _, _ in _varbinds(data, start, stop)]
    if all(v.oid != _TRAP_ADDRESS for v in varbinds):
        varbinds.append(Varbind(_TRAP_ADDRESS, _IP_ADDRESS, agent))
    if all(v.oid != _TRAP_ENTERPRISE for v in varbinds):
        varbinds.append(Varbind(_TRAP_ENTERPRISE, OID, enterprise))
    is_own = generic == _ENTERPRISE_SPECIFIC
    trap_oid = f"{enterprise}.0.{specific}" if is_own else f"{_STANDARD_TRAPS}.{generic + 1}"
    return Trap(TrapKind.TRAP_V1, community, trap_oid, up_time, tuple(varbinds), agent)


def _varbind(data: bytes, name: bytes, tag: int, start: int, end: int) -> Varbind:
    return Varbind(oid_text(name), tag, _value(data, tag, start, end), data[start:end])


def _value(data: bytes, tag: int, start: int, end: int) -> str:
    show = _SHOWN.get(tag)
    return show(data, start, end) if show is not None else "0x" + data[start:end].hex()


def _signed(data: bytes, start: int, end: int) -> str:
    return str(integer(data, start, end))


def _unsigned(data: bytes, start: int, end: int) -> str:
    return str(integer(data, start, end, is_signed=False))


def _address(data: bytes, start: int, end: int) -> str:
    if end - start != 4:
        raise Corrupt("SNMP: an IP address that has not four bytes")
    return ".".join(map(str, data[start:end]))


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


_SHOWN: dict[int, Callable[[bytes, int, int], str]] = {
    INTEGER: _signed,
    STRING: lambda data, start, end: string_text(data[start:end]),
    NULL: lambda data, start, end: "",
    OID: lambda data, start, end: oid_text(data[start:end]),
    _IP_ADDRESS: _address,
    **dict.fromkeys((_COUNTER32, _GAUGE32, _TIME_TICKS, _COUNTER64), _unsigned),
    0x80: lambda data, start, end: "noSuchObject",
    0x81: lambda data, start, end: "noSuchInstance",
    0x82: lambda data, start, end: "endOfMibView",
}
