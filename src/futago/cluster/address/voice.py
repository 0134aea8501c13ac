"""What is said to the neighbours of an interface about addresses, and what is heard from them.

Lives here: the sockets for that, opened when first needed and again after a failure. Must not live here: the frames
themselves (announce.py), or when to speak. The idea: a mouth and two ears, one for each kind of address.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import struct
from collections.abc import Callable, Sequence

from futago.cluster.address.announce import (
    ADVERTISEMENT,
    ETH_P_ARP,
    ETH_P_IPV6,
    HOPS,
    advertiser,
    claimant,
    frames,
    question,
    sender,
)
from futago.runtime.log import Log

DRAIN_MAX = 64
_ICMPV6_FILTER = 1  # linux/icmpv6.h; a bit that is set keeps messages of that type out
_READ_BYTES = 1500
_MAC_BYTES = 6


class Voice:
    """Speaks and listens on one interface.

    Args:
        interface: its name; it need not exist yet.
        addresses: what to speak of.
        on_claim: called with an address and the hardware address of another machine that says it has it.
        on_neighbour: called with the IPv4 address (four bytes) of any other machine that is heard, and whether it
            answers a question of ours.
    """

    def __init__(
        self,
        *,
        interface: str,
        addresses: Sequence[str],
        on_claim: Callable[[str, bytes], None],
        on_neighbour: Callable[[bytes, bool], None] = lambda _address, _is_answer: None,
        log: Log,
    ) -> None:
        self._interface, self._on_claim, self._on_neighbour, self._log = interface, on_claim, on_neighbour, log
        self._raw = {a: ipaddress.ip_address(a).packed for a in addresses}
        self._link: socket.socket | None = None
        self._ear6: socket.socket | None = None

    def announce(self) -> None:
        """Tell everybody that the addresses are here."""
        self._send(frames)

    def ask(self) -> None:
        """Ask whether anybody else has the addresses; answers come through `on_claim`."""
        self._send(lambda mac, raw: [question(mac, raw)])

    def ask_neighbours(self, addresses: Sequence[bytes]) -> None:
        """Ask for machines that have nothing to do with it, to learn whether anybody hears us; see `on_neighbour`."""
        self._send(lambda mac, raw: [question(mac, raw)], addresses)

    def close(self) -> None:
        """Fall silent; the next word opens everything anew."""
        for s in (self._link, self._ear6):
            if s is not None:
                asyncio.get_running_loop().remove_reader(s.fileno())
                s.close()
        self._link = self._ear6 = None

    def _send(self, make: Callable[[bytes, bytes], Sequence[bytes]], addresses: Sequence[bytes] | None = None) -> None:
        asked = tuple(self._raw.values()) if addresses is None else addresses
        if not asked:
            return
        try:
            if self._link is None:
                self._open()
            assert self._link is not None
            mac = self._link.getsockname()[4]
            if len(mac) != _MAC_BYTES:  # an interface without hardware addresses has nobody to tell
                return
            for raw in asked:
                protocol = ETH_P_ARP if len(raw) == 4 else ETH_P_IPV6
                for frame in make(mac, raw):
                    self._link.sendto(frame, (self._interface, protocol))
        except OSError as e:
            self._log.warning("address.announce-failed", error=str(e))
            self.close()

    def _open(self) -> None:
        loop = asyncio.get_running_loop()
        kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        link = socket.socket(socket.AF_PACKET, kind, 0)
        try:
            link.bind((self._interface, ETH_P_ARP))
        except OSError:
            link.close()
            raise
        self._link = link
        loop.add_reader(link.fileno(), self._heard_arp)
        if any(len(raw) != 4 for raw in self._raw.values()):
            with contextlib.suppress(OSError):  # a kernel without IPv6 has nobody to hear
                self._ear6 = self._open_ear6(kind)
                loop.add_reader(self._ear6.fileno(), self._heard_icmp)

    def _open_ear6(self, kind: int) -> socket.socket:
        s = socket.socket(socket.AF_INET6, kind, socket.IPPROTO_ICMPV6)
        try:
            kept_out = bytearray(b"\xff" * 32)
            word, bit = divmod(ADVERTISEMENT, 32)
            struct.pack_into("=I", kept_out, word * 4, 0xFFFFFFFF & ~(1 << bit))
            s.setsockopt(socket.IPPROTO_ICMPV6, _ICMPV6_FILTER, bytes(kept_out))
            s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self._interface.encode())
        except OSError:
            s.close()
            raise
        return s

    def _heard_arp(self) -> None:
        for _ in range(DRAIN_MAX):
            if self._link is None:
                return
            try:
                frame = self._link.recv(_READ_BYTES)
                own = self._link.getsockname()[4]
            except BlockingIOError:
                return
            except OSError:
                self.close()
                return
            neighbour = sender(frame, own=own)
            if neighbour is not None:
                self._on_neighbour(*neighbour)
            self._tell(lambda raw, frame=frame, own=own: claimant(frame, raw, own=own))  # type: ignore[misc]

    def _heard_icmp(self) -> None:
        for _ in range(DRAIN_MAX):
            if self._ear6 is None or self._link is None:
                return
            try:
                said, extra, _flags, _from = self._ear6.recvmsg(_READ_BYTES, 64)
                own = self._link.getsockname()[4]
            except BlockingIOError:
                return
            except OSError:
                self.close()
                return
            if _hops(extra) == HOPS:
                self._tell(lambda raw, said=said, own=own: advertiser(said, raw, own=own))  # type: ignore[misc]

    def _tell(self, read: Callable[[bytes], bytes | None]) -> None:
        for address, raw in self._raw.items():
            other = read(raw)
            if other is not None:
                self._on_claim(address, other)


def _hops(extra: Sequence[tuple[int, int, bytes]]) -> int:
    for level, kind, data in extra:
        if level == socket.IPPROTO_IPV6 and kind == socket.IPV6_HOPLIMIT:
            return int(struct.unpack_from("=i", data)[0])
    return 0
