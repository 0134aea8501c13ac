"""The frames by which neighbours learn who has an address: gratuitous ARP, and its counterpart in IPv6.

Lives here: building and reading the frames. Pure. Must not live here: sockets, or when to send. The idea: a notice
on a door, in two languages. In IPv4 it is a gratuitous ARP in both forms, since some devices learn from requests and
some from replies. In IPv6 it is a neighbour advertisement that nobody asked for, to all nodes, with the override flag:
without it a neighbour would keep what it remembers.

Source: RFC 826, RFC 5227 (ARP); RFC 4861 sections 4.3, 4.4, 7.2.6 (neighbour discovery), RFC 4443 section 2.3 (its
checksum), RFC 2464 section 7 (multicast addresses on Ethernet).
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Sequence

ETH_P_ARP, ETH_P_IPV6 = 0x0806, 0x86DD
ARP_REPLY = 2
BROADCAST = b"\xff" * 6
ALL_NODES = ipaddress.IPv6Address("ff02::1").packed
SOLICITATION, ADVERTISEMENT = 135, 136
SOURCE_LINK, TARGET_LINK = 1, 2
OVERRIDE = 0x20000000
HOPS = 255  # a packet with fewer has passed a router, and is none of a neighbour's: RFC 4861, section 7.1
_ICMPV6 = 58
_ARP = struct.Struct("!HHBBH6s4s6s4s")
_NEIGHBOUR = struct.Struct("!BBHI16s")  # type, code, checksum, flags, target


def announcement(mac: bytes, address: bytes, *, operation: int) -> bytes:
    """Return an Ethernet frame of gratuitous ARP: operation 1 (request) or 2 (reply)."""
    target = bytes(6) if operation == 1 else BROADCAST
    return (
        BROADCAST
        + mac
        + struct.pack("!H", ETH_P_ARP)
        + _ARP.pack(1, 0x0800, 6, 4, operation, mac, address, target, address)
    )


def probe(mac: bytes, address: bytes) -> bytes:
    """Return an ARP probe: who has this address? Source: RFC 5227, section 2.1.1 (sender address zero)."""
    return (
        BROADCAST + mac + struct.pack("!H", ETH_P_ARP) + _ARP.pack(1, 0x0800, 6, 4, 1, mac, bytes(4), bytes(6), address)
    )


def advertisement(mac: bytes, address: bytes) -> bytes:
    """Return an Ethernet frame of an unsolicited neighbour advertisement with the override flag, to all nodes."""
    said = _NEIGHBOUR.pack(ADVERTISEMENT, 0, 0, OVERRIDE, address) + bytes((TARGET_LINK, 1)) + mac
    return _ipv6_frame(mac, source=address, target=ALL_NODES, icmp=said)


def solicitation(mac: bytes, address: bytes) -> bytes:
    """Return a probe: who has this address? As in duplicate address detection: from nobody, RFC 4862 section 5.4.2."""
    group = ipaddress.IPv6Address("ff02::1:ff00:0").packed[:13] + address[13:]
    return _ipv6_frame(mac, source=bytes(16), target=group, icmp=_NEIGHBOUR.pack(SOLICITATION, 0, 0, 0, address))


def frames(mac: bytes, address: bytes) -> Sequence[bytes]:
    """Return everything to be sent so that neighbours learn that `mac` has the address, of either kind."""
    if len(address) == 4:
        return [announcement(mac, address, operation=n) for n in (1, 2)]
    return [advertisement(mac, address)]


def question(mac: bytes, address: bytes) -> bytes:
    """Return the frame that asks whether anybody has the address, of either kind."""
    return probe(mac, address) if len(address) == 4 else solicitation(mac, address)


def claimant(frame: bytes, address: bytes, *, own: bytes) -> bytes | None:
    """Return the hardware address of another machine that says in this ARP frame that it has `address`."""
    if len(frame) < 14 + _ARP.size or frame[12:14] != struct.pack("!H", ETH_P_ARP):
        return None
    _hw, _proto, _hlen, _plen, _op, sender, sender_ip, _target, _target_ip = _ARP.unpack_from(frame, 14)
    return bytes(sender) if sender_ip == address and sender != own else None


def sender(frame: bytes, *, own: bytes) -> tuple[bytes, bool] | None:
    """Return the address of the other machine that sent this ARP frame, and whether it answers us; None if it names no
    address (a probe) or is ours.
    """
    if len(frame) < 14 + _ARP.size or frame[12:14] != struct.pack("!H", ETH_P_ARP):
        return None
    _hw, _proto, _hlen, _plen, op, mac, address, target, _target_ip = _ARP.unpack_from(frame, 14)
    is_answer = op == ARP_REPLY and target == own
    return (bytes(address), is_answer) if mac != own and any(address) else None


def advertiser(icmp: bytes, address: bytes, *, own: bytes) -> bytes | None:
    """Return the hardware address of another machine that advertises `address` in this ICMPv6 message."""
    if len(icmp) < _NEIGHBOUR.size or icmp[0] != ADVERTISEMENT or icmp[8:24] != address:
        return None
    at = _NEIGHBOUR.size
    while at + 8 <= len(icmp) and icmp[at + 1]:
        if icmp[at] == TARGET_LINK:
            mac = bytes(icmp[at + 2 : at + 8])
            return mac if mac != own else None
        at += 8 * icmp[at + 1]
    return None


def _ipv6_frame(mac: bytes, *, source: bytes, target: bytes, icmp: bytes) -> bytes:
    icmp = icmp[:2] + struct.pack("!H", _checksum(source, target, icmp)) + icmp[4:]
    header = struct.pack("!IHBB", 6 << 28, len(icmp), _ICMPV6, HOPS) + source + target
    return b"\x33\x33" + target[12:] + mac + struct.pack("!H", ETH_P_IPV6) + header + icmp


def _checksum(source: bytes, target: bytes, icmp: bytes) -> int:
    """Return the internet checksum over the pseudo header and the message, whose own checksum field is zero."""
    data = source + target + struct.pack("!II", len(icmp), _ICMPV6) + icmp
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))  # every message here has an even length
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total
