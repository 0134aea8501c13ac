"""Who else is on the network of an interface, and whether any of them is heard now.

Lives here: a short list of addresses, from the kernel's tables and from what is heard. Must not live here: sending, and
what follows from it. The idea: a diver who gets no answer from his partner asks anybody at all. Only if somebody
answers is the silence of the partner worth anything; else it may be the own radio that is dead.

IPv4 only. A neighbour answers by an ARP reply to us, when it is asked for its own address.
Source: proc(5), net/arp and net/route; linux/if_arp.h, linux/route.h for the flags.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Sequence
from pathlib import Path

KNOWN_MAX = 16  # so many are asked, every 0.4 s, while nobody answers for the floating IP
_COMPLETE, _GATEWAY = 0x2, 0x2


class Neighbours:
    """The neighbours on one interface.

    Args:
        interface: its name. but: addresses that are none of a neighbour's: the floating ones.
        tables: the folder of the kernel's tables.
    """

    def __init__(self, interface: str, *, but: Sequence[str], tables: Path = Path("/proc/thread-self/net")) -> None:
        self._interface, self._tables = interface, tables
        self._but = {ipaddress.ip_address(a).packed for a in but}
        self._known: dict[bytes, None] = {}  # the one heard last comes last
        self._answered_at: int | None = None

    def heard(self, address: bytes, now: int, *, is_answer: bool) -> None:
        """Note that this machine was heard at `now`, in nanoseconds; `is_answer`: because we had asked."""
        if address in self._but:
            return
        if is_answer:
            self._answered_at = now
        self._known.pop(address, None)
        self._known[address] = None
        while len(self._known) > KNOWN_MAX:
            del self._known[next(iter(self._known))]

    def do_answer(self, now: int, *, within: int) -> bool:
        """Has any of them answered us within so many nanoseconds?"""
        return self._answered_at is not None and now - self._answered_at < within

    def known(self) -> list[bytes]:
        """Return whom to ask, at most KNOWN_MAX, four bytes each: routers, who was heard, whom the kernel knows."""
        table = _neighbours(self._lines("arp"), self._interface)
        found = dict.fromkeys((*self._gateways(), *reversed(self._known), *table))
        return [a for a in found if a not in self._but][:KNOWN_MAX]

    def _gateways(self) -> list[bytes]:
        return _gateways(self._lines("route"), self._interface)

    def _lines(self, table: str) -> list[list[str]]:
        try:
            return [x.split() for x in (self._tables / table).read_text(encoding="ascii").splitlines()[1:]]
        except (OSError, UnicodeDecodeError):
            return []


def _neighbours(lines: list[list[str]], interface: str) -> list[bytes]:
    """Whose hardware address the kernel knows: address, kind, flags, hardware address, mask, interface."""
    return [socket.inet_aton(x[0]) for x in lines if len(x) == 6 and x[5] == interface and int(x[2], 16) & _COMPLETE]


def _gateways(lines: list[list[str]], interface: str) -> list[bytes]:
    """Routers: interface, destination, gateway, flags, ...; addresses are numbers of this machine's byte order."""
    return [
        struct.pack("=I", int(x[2], 16)) for x in lines if len(x) > 3 and x[0] == interface and int(x[3], 16) & _GATEWAY
    ]
