"""Tells whoever still knocks at an address that has been given up that nobody lives here any more.

Lives here: for a few seconds after an address was given up, an answer to each TCP segment that still comes for it. Must
not live here: when that is. The idea: the former tenant who opens the door once more to say "no longer here". Without
it the kernel drops such segments in silence; a client's first packet is then repeated after a second at the earliest,
although the new holder has been there for most of that time. Refused at once, the client tries again at once.

Only frames that were sent to our own hardware address are answered, so nobody is turned away who knows better already.

Source: RFC 9293 section 3.10.7.1 (a segment for a closed connection is answered by a reset); packet(7); the kernel's
Documentation/networking/filter.rst (classic BPF).
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import ipaddress
import socket
import struct
from collections.abc import Sequence

from futago.cluster.address.announce import ETH_P_IPV6

FAREWELL_S = 5.0  # the new holder has announced itself five times by then
DRAIN_MAX = 64
ETH_P_IP = 0x0800
SO_ATTACH_FILTER = 26
PACKET_HOST = 0
FIN, SYN, RST, ACK = 0x01, 0x02, 0x04, 0x10
_TCP = struct.Struct("!HHIIBBHHH")
_TCP_NUMBER = 6
_READ_BYTES = 2048
_ETHERNET, _IPV4_MIN, _IPV6 = 14, 20, 40
_LOAD_BYTE, _LOAD_WORD, _JUMP_EQUAL, _RETURN = 0x30, 0x20, 0x15, 0x06


def reset_for(frame: bytes, address: bytes) -> bytes | None:
    """Return the frame that answers a TCP segment sent to `address` with a reset; None if there is nothing to answer.

    Args:
        frame: Ethernet frame as received.
        address: ours until a moment ago, 4 or 16 bytes.
    """
    found = _segment(frame, address)
    if found is None:
        return None
    sender, segment = found
    if len(segment) < _TCP.size:
        return None
    source, target, seq, ack, offset, flags, *_ = _TCP.unpack_from(segment)
    if flags & RST:
        return None
    if flags & ACK:
        said = _TCP.pack(target, source, ack, 0, 5 << 4, RST, 0, 0, 0)
    else:
        length = len(segment) - (offset >> 4) * 4 + bool(flags & SYN) + bool(flags & FIN)
        said = _TCP.pack(target, source, 0, (seq + length) & 0xFFFFFFFF, 5 << 4, RST | ACK, 0, 0, 0)
    return frame[6:12] + frame[:6] + frame[12:14] + _packet(address, sender, said)


def _segment(frame: bytes, address: bytes) -> tuple[bytes, bytes] | None:
    """Return the sender's address and the TCP segment, if the frame carries a whole one for `address`."""
    kind, packet = frame[12:_ETHERNET], frame[_ETHERNET:]
    if len(address) == 4 and kind == struct.pack("!H", ETH_P_IP) and len(packet) >= _IPV4_MIN:
        header, total = (packet[0] & 0xF) * 4, struct.unpack_from("!H", packet, 2)[0]
        is_part = struct.unpack_from("!H", packet, 6)[0] & 0x3FFF  # more fragments, or not the first
        if packet[9] == _TCP_NUMBER and not is_part and packet[16:20] == address:
            return packet[12:16], packet[header:total]
    if len(address) == 16 and kind == struct.pack("!H", ETH_P_IPV6) and len(packet) >= _IPV6:
        length = struct.unpack_from("!H", packet, 4)[0]
        if packet[6] == _TCP_NUMBER and packet[24:40] == address:
            return packet[8:24], packet[_IPV6 : _IPV6 + length]
    return None


def _packet(source: bytes, target: bytes, segment: bytes) -> bytes:
    pseudo = source + target + struct.pack("!II", len(segment), _TCP_NUMBER)  # the same sum for both kinds
    segment = segment[:16] + struct.pack("!H", _checksum(pseudo + segment)) + segment[18:]
    if len(source) == 16:
        return struct.pack("!IHBB", 6 << 28, len(segment), _TCP_NUMBER, 64) + source + target + segment
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(segment), 0, 0x4000, 64, _TCP_NUMBER, 0) + source + target
    return header[:10] + struct.pack("!H", _checksum(header)) + header[12:] + segment


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total


class Farewell:
    """Answers for some addresses on one interface, from `begin` on, for a while."""

    def __init__(self, *, interface: str, addresses: Sequence[str]) -> None:
        self._interface = interface
        self._raw = [ipaddress.ip_address(a).packed for a in addresses]
        self._sockets: list[socket.socket] = []
        self._ends: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Answer from now on. Where the kernel does not let us, nobody is answered, as without us."""
        self.end()
        with contextlib.suppress(OSError):
            for raw in self._raw:
                s = _listen(self._interface, raw)
                self._sockets.append(s)
                asyncio.get_running_loop().add_reader(s.fileno(), self._answer, s, raw)
        self._ends = asyncio.get_running_loop().call_later(FAREWELL_S, self.end)

    def end(self) -> None:
        """Answer no more."""
        if self._ends is not None:
            self._ends.cancel()
            self._ends = None
        while self._sockets:
            s = self._sockets.pop()
            asyncio.get_running_loop().remove_reader(s.fileno())
            s.close()

    @staticmethod
    def _answer(s: socket.socket, raw: bytes) -> None:
        with contextlib.suppress(OSError):
            for _ in range(DRAIN_MAX):
                frame, (_name, _protocol, kind, *_more) = s.recvfrom(_READ_BYTES)
                answer = reset_for(frame, raw) if kind == PACKET_HOST else None
                if answer is not None:
                    s.send(answer)


def _listen(interface: str, raw: bytes) -> socket.socket:
    """Return a socket that hears only TCP to this address: everything else would have to be read here, too."""
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0)
    try:
        code = ctypes.create_string_buffer(_filter(raw))
        program = struct.pack("HP", (len(code) - 1) // 8, ctypes.addressof(code))
        s.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
        s.bind((interface, ETH_P_IP if len(raw) == 4 else ETH_P_IPV6))
    except OSError:
        s.close()
        raise
    return s


def _filter(raw: bytes) -> bytes:
    """Return a classic BPF program that keeps frames whose packet is TCP for this address."""
    protocol_at, target_at = (23, 30) if len(raw) == 4 else (20, 38)
    tests = [(_LOAD_BYTE, protocol_at, _TCP_NUMBER)]
    tests += [(_LOAD_WORD, target_at + at, struct.unpack_from("!I", raw, at)[0]) for at in range(0, len(raw), 4)]
    steps: list[tuple[int, int, int, int]] = []
    for number, (load, at, wanted) in enumerate(tests):
        left = 2 * (len(tests) - number - 1)
        steps += [(load, 0, 0, at), (_JUMP_EQUAL, 0, left + 1, wanted)]
    steps += [(_RETURN, 0, 0, 0x40000), (_RETURN, 0, 0, 0)]
    return b"".join(struct.pack("=HBBI", *step) for step in steps)
