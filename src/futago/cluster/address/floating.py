"""The floating IP: an address that the serving member adds to its service interface, and tells everybody about.

Lives here: holding it, giving it up, announcing it, noticing that it vanished or that somebody else answers for it.
Must not live here: when it may be held. The idea: a hat that says "I am the one to talk to". Putting it on takes a
millisecond; what takes effort is that everyone who remembers the old wearer looks again, hence the announcements,
repeated for as long as it is worn.

Announcements are gratuitous ARP in both forms, since some devices learn from requests and some from replies.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import socket
import struct
from collections.abc import Callable
from functools import partial

from futago.cluster.address import netlink
from futago.cluster.address.sockets import reset_connections
from futago.runtime.clock import S, now_at
from futago.runtime.faults import Refused
from futago.runtime.log import Log

ANNOUNCE_AT_S = (0.0, 0.1, 0.5, 1.0, 2.0, 5.0)
ANNOUNCE_EVERY_S = 15.0  # a split that heals leaves stale neighbours, whom nobody else would tell
CONFLICT_AGE_MAX = 5 * S
DRAIN_MAX = 64
ETH_P_ARP = 0x0806
SIOCGIFFLAGS, IFF_UP, IFF_RUNNING = 0x8913, 0x1, 0x40
BROADCAST = b"\xff" * 6
_ARP = struct.Struct("!HHBBH6s4s6s4s")


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


def claimant(frame: bytes, address: bytes, *, own: bytes) -> bytes | None:
    """Return the hardware address of another machine that says in this frame that it has `address`."""
    if len(frame) < 14 + _ARP.size or frame[12:14] != struct.pack("!H", ETH_P_ARP):
        return None
    _hw, _proto, _hlen, _plen, _op, sender, sender_ip, _target, _target_ip = _ARP.unpack_from(frame, 14)
    return bytes(sender) if sender_ip == address and sender != own else None


class FloatingAddress:
    """The address on one interface.

    Args:
        on_change: called when `is_held` or `has_carrier` changed.
    """

    def __init__(self, *, interface: str, address: str, on_change: Callable[[], None], log: Log) -> None:
        self.interface, self.address = interface, address
        self._raw = socket.inet_aton(address)
        self._on_change, self._log = on_change, log
        self.is_held: bool | None = None
        self.has_carrier = True
        self._conflict: tuple[bytes, int] | None = None
        self._announcing: asyncio.Task[None] | None = None
        self._socket: socket.socket | None = None
        self._watch = netlink.watch()
        asyncio.get_running_loop().add_reader(self._watch.fileno(), self._changed)
        self.is_held, self.has_carrier = self._ask()
        if self.is_held:
            self._announce()

    # --- what is true -----------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Find out whether the address is ours, and whether the interface has a carrier."""
        before = (self.is_held, self.has_carrier)
        self.is_held, self.has_carrier = self._ask()
        if before != (self.is_held, self.has_carrier):
            self._on_change()

    def _ask(self) -> tuple[bool, bool]:
        try:
            is_held = netlink.holds(self.interface, self.address)
        except Refused:
            is_held = False  # no interface, no address
        return is_held, _has_carrier(self.interface)

    def conflict(self) -> str:
        """Return the hardware address of another machine that answers for our address now; empty if none does."""
        if self._conflict is None or now_at() - self._conflict[1] > CONFLICT_AGE_MAX:
            return ""
        return self._conflict[0].hex(":")

    def _changed(self) -> None:
        with contextlib.suppress(OSError):
            netlink.drain(self._watch)
        self.look()

    # --- what is done -----------------------------------------------------------------------------------------------

    def hold(self) -> None:
        """Take the address and announce it, now and again. Raises Refused."""
        self._send(probe)  # an answer does not stop us, since the vote is ours; it is shown to people
        netlink.add(self.interface, self.address)
        self.look()
        self._announce()
        self._log.event("address.held", address=self.address, interface=self.interface)

    def drop(self) -> None:
        """Give the address up. Raises Refused."""
        if self._announcing is not None:
            self._announcing.cancel()
            self._announcing = None
        if self.is_held is not False:
            self._reset_connections()
        netlink.remove(self.interface, self.address)
        self.look()
        self._log.event("address.dropped", address=self.address)

    def _reset_connections(self) -> None:
        try:
            reset_connections(self.address)
        except Refused as e:
            self._log.warning("address.reset-failed", error=str(e))  # clients then wait for their own patience

    def close(self) -> None:
        """End watching and announcing; the address stays as it is."""
        if self._announcing is not None:
            self._announcing.cancel()
        loop = asyncio.get_running_loop()
        for s in (self._watch, self._socket):
            if s is not None:
                loop.remove_reader(s.fileno())
                s.close()
        self._socket = None

    def _announce(self) -> None:
        if self._announcing is not None:
            self._announcing.cancel()
        self._announcing = asyncio.create_task(self._keep_announcing())

    async def _keep_announcing(self) -> None:
        loop = asyncio.get_running_loop()
        began, turn = loop.time(), 0
        while True:
            for operation in (1, 2):
                self._send(partial(announcement, operation=operation))
            turn += 1
            due = ANNOUNCE_AT_S[turn] if turn < len(ANNOUNCE_AT_S) else None
            await asyncio.sleep(max(0.0, began + due - loop.time()) if due is not None else ANNOUNCE_EVERY_S)

    def _send(self, frame: Callable[[bytes, bytes], bytes]) -> None:
        try:
            if self._socket is None:
                self._socket = self._open()
            mac = self._socket.getsockname()[4]
            if len(mac) == 6:  # an interface without hardware addresses has nobody to tell
                self._socket.send(frame(mac, self._raw))
        except OSError as e:
            self._log.warning("address.announce-failed", error=str(e))
            self._close_socket()

    def _open(self) -> socket.socket:
        s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0)
        try:
            s.bind((self.interface, ETH_P_ARP))
        except OSError:
            s.close()
            raise
        asyncio.get_running_loop().add_reader(s.fileno(), self._heard)
        return s

    def _close_socket(self) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _heard(self) -> None:
        for _ in range(DRAIN_MAX):
            if self._socket is None:
                return
            try:
                frame = self._socket.recv(128)
                own = self._socket.getsockname()[4]
            except BlockingIOError:
                return
            except OSError:
                self._close_socket()
                return
            other = claimant(frame, self._raw, own=own)
            if other is not None and self.is_held:
                if not self.conflict():
                    self._log.warning("address.conflict", address=self.address, other=other.hex(":"))
                self._conflict = (other, now_at())


def _has_carrier(interface: str) -> bool:
    """Is the interface up, with a carrier? Source: netdevice(7), SIOCGIFFLAGS; IFF_RUNNING is the operational
    state."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            answer = fcntl.ioctl(s, SIOCGIFFLAGS, struct.pack("16sh14x", interface.encode()[:15], 0))
    except OSError:
        return False
    (flags,) = struct.unpack_from("H", answer, 16)
    return bool(flags & IFF_UP and flags & IFF_RUNNING)
