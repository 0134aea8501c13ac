"""The nouns of the intake: records, incarnations, positions, marks.

Pure data, light imports (the receiver uses it). A *record* is one datagram or frame as it came, with when and
from where. An *incarnation* is one life of one member's receiver: its records are numbered 1, 2, 3, ... A
*position* is (incarnation, sequence). Receive times are nanoseconds of the receiver's steady clock: wall time
when the machine's boot was first seen, counting evenly from then on, whatever is done to the wall clock later.
"""

from __future__ import annotations

import enum
from typing import NewType

import msgspec

IncarnationId = NewType("IncarnationId", str)  # 16 hexadecimal digits
Sequence = NewType("Sequence", int)
Ns = NewType("Ns", int)  # nanoseconds of a steady clock (see above)

DATA_BYTES_MAX = 64 << 10  # one message; longer TCP frames are cut, UDP cannot be longer
NO_SOURCE = bytes(16)


def segment_table(segment: int) -> str:
    """Return the name of the table that holds a segment of the kept messages (kept.py)."""
    return f"message_{segment}"


def event_text_table(segment: int) -> str:
    """Return the name of a table with the texts of a closed range of events (event_text.py)."""
    return f"event_text_{segment}"


class Protocol(enum.IntEnum):
    """How a record came. The numbers are stored in journals: never reuse one."""

    CONTROL = 0  # written by the receiver itself: a Mark
    SYSLOG_UDP = 1
    SYSLOG_TCP = 2
    SNMP_UDP = 3
    SYSLOG_TLS = 4
    SYSLOG_RELP = 5
    CUSTOM_TRAP = 6  # by HTTP: a Trap (custom_traps.py)
    NOTICE = 7  # written by the receiver itself: a Notice (notices.py)


class Flag(enum.IntFlag):
    """Bits of a record. Stored: never reuse one."""

    CUT = 1  # the frame was longer than DATA_BYTES_MAX: only its beginning was kept
    WAITED = 0b1111_1100  # for how long at most it waited to be read: see `waited_flags`


_WAITED_SHIFT = 2
_WAITED_UNIT_NS = 1_000_000_000


def waited_flags(length_ns: int) -> int:
    """Return the bits of a frame that came over a connection which was not read for so long, so that nobody knows when it
    came: the next power of two in seconds.
    """
    exponent = max(-(-length_ns // _WAITED_UNIT_NS) - 1, 0).bit_length()
    return min(exponent + 1, int(Flag.WAITED) >> _WAITED_SHIFT) << _WAITED_SHIFT


def waited_ns(flags: int) -> int:
    """Return for how long at most a record waited to be read; 0 if its time is that of its arrival."""
    exponent = (flags & int(Flag.WAITED)) >> _WAITED_SHIFT
    return _WAITED_UNIT_NS << (exponent - 1) if exponent else 0


class Record(msgspec.Struct, frozen=True, gc=False):
    """One message as received. `source` is 16 bytes, IPv4 mapped into IPv6; `data` is what came, without the
    framing."""

    sequence: int
    time_ns: int
    protocol: int
    flags: int
    source: bytes
    port: int
    data: bytes

    @property
    def stored_bytes(self) -> int:
        """Return its size in a journal."""
        return 48 + len(self.data)


class Incarnation(msgspec.Struct, frozen=True):
    """One life of a receiver.

    `zero_ns` is the wall time that its steady clock gave to the machine's boot; incarnations with the same
    `zero_ns` and `boot` share one timeline.
    `boot` is 16 bytes, a digest of the boot id.
    """

    id: IncarnationId
    zero_ns: int
    boot: bytes


class Position(msgspec.Struct, frozen=True, order=True):
    """A place in a member's stream: everything up to and including `sequence` of that incarnation."""

    incarnation: str
    sequence: int


class Mark(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a receiver notes about itself, each second, as a record of its own journal (Protocol.CONTROL, msgpack).

    It shows that the receiver was receiving up to then, and that no record with an older time follows; while messages
    of a time when it could not read (a frozen machine, a full disk) may still wait in the kernel: none that came before
    `open_since_ns`; while single senders cannot reach it (silences.py), or could not a moment ago: none that they sent
    before `unheard_since_ns`. `wall_ahead_ns`: wall clock minus steady clock.
    `peer_ahead_ns`: the other receiver's steady clock minus ours, as measured over the journal sync against its
    timeline `peer_zero_ns`; None while the two do not speak.
    """

    wall_ahead_ns: int = 0
    peer_zero_ns: int | None = None
    peer_ahead_ns: int | None = None
    open_since_ns: int | None = None
    unheard_since_ns: int | None = None


Positions = dict[str, dict[str, int]]  # member name -> incarnation -> sequence: what has had its effect
