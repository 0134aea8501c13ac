"""ICMP echo as bytes (RFC 792, RFC 4443): pure encoding and decoding, no socket.

The payload carries a token of this process and a number, so that a reply is ours or not without trusting the 16-bit
identifier, which other programs on the machine use too.
"""

from __future__ import annotations

import struct

ECHO_V4, REPLY_V4 = 8, 0
ECHO_V6, REPLY_V6 = 128, 129
TOKEN_BYTES = 8
_HEAD = struct.Struct("!BBHHH")
_NUMBER = struct.Struct("!Q")


def echo(*, is_v6: bool, identifier: int, token: bytes, number: int) -> bytes:
    """Return an echo request. For IPv6 the kernel fills in the checksum."""
    payload = token + _NUMBER.pack(number)
    kind = ECHO_V6 if is_v6 else ECHO_V4
    bare = _HEAD.pack(kind, 0, 0, identifier, number & 0xFFFF) + payload
    return bare if is_v6 else bare[:2] + struct.pack("!H", checksum(bare)) + bare[4:]


def reply_number(packet: bytes, *, is_v6: bool, token: bytes) -> int | None:
    """Return the number in an echo reply of ours; None for anything else.

    Args:
        packet: as a raw socket gives it: IPv4 with the IP header, IPv6 without.
    """
    body = packet if is_v6 else packet[(packet[0] & 0x0F) * 4 :] if packet else b""
    if len(body) != _HEAD.size + TOKEN_BYTES + _NUMBER.size:
        return None
    if body[0] != (REPLY_V6 if is_v6 else REPLY_V4) or body[_HEAD.size : _HEAD.size + TOKEN_BYTES] != token:
        return None
    return int(_NUMBER.unpack(body[-_NUMBER.size :])[0])


def checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071) of an even number of bytes."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return int(~(total + (total >> 16)) & 0xFFFF)
