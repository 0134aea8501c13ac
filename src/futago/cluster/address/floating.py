"""The floating IP: addresses that the serving member adds to its service interface, and tells everybody about.

Lives here: holding them, giving them up, announcing them, noticing that one vanished or that somebody else answers for
it. Must not live here: when they may be held. The idea: a hat that says "I am the one to talk to". Putting it on takes
a millisecond; what takes effort is that everyone who remembers the old wearer looks again, hence the announcements,
repeated for as long as it is worn. If someone takes the hat off our head, we put it on again; if it does not stay on,
we say so (`trouble`), and the other head may be the better one.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import ipaddress
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence

from futago.cluster.address import netlink
from futago.cluster.address.farewell import Farewell
from futago.cluster.address.neighbours import Neighbours
from futago.cluster.address.sockets import reset_connections
from futago.cluster.address.voice import Voice
from futago.runtime.clock import MS, S, now_at
from futago.runtime.faults import Refused
from futago.runtime.log import Log

ANNOUNCE_AT_S = (0.0, 0.1, 0.5, 1.0, 2.0, 5.0)
ANNOUNCE_EVERY_S = 15.0  # a split that heals leaves stale neighbours, whom nobody else would tell
CONFLICT_AGE_MAX = 5 * S
ASK_EVERY = 400 * MS
ANSWER_AGE_MAX = 1300 * MS  # three questions without an answer
REFUSED_MAX = 1 * S  # refused by our own kernel for longer than this: it is not coming back here
LOSSES_MAX = 5  # taken away so often ...
LOSSES_WITHIN = 10 * S  # ... within this: somebody here insists
TROUBLE_AGE_MAX = 60 * S  # how long a member that could not keep the address is thought of as one that cannot
SIOCGIFFLAGS, IFF_UP, IFF_RUNNING = 0x8913, 0x1, 0x40


class FloatingAddress:
    """Addresses on one interface, held together or not at all.

    Args:
        interface: its name.
        addresses: without prefix length, IPv4 or IPv6; may be empty.
        on_change: called when `is_held` or `has_carrier` changed.
        is_announced: False where the network is told otherwise, as in a cloud.
    """

    def __init__(
        self,
        *,
        interface: str,
        addresses: Sequence[str],
        on_change: Callable[[], None],
        log: Log,
        is_announced: bool = True,
    ) -> None:
        self.interface = interface
        self.addresses = tuple(str(ipaddress.ip_address(a)) for a in addresses)
        self._on_change, self._log, self._is_announced = on_change, log, is_announced
        self._is_wanted = False
        self._conflict: tuple[str, bytes, int] | None = None
        self._claimed_at: int | None = None
        self._asked_at: int | None = None
        self._asking_since: int | None = None
        self._losses: deque[int] = deque(maxlen=LOSSES_MAX)
        self._refused: tuple[int, str] | None = None
        self._trouble: tuple[str, int] | None = None
        self._announcing: asyncio.Task[None] | None = None
        self._neighbours = Neighbours(interface, but=self.addresses)
        self._voice = Voice(
            interface=interface,
            addresses=self.addresses,
            on_claim=self._claimed,
            on_neighbour=lambda address, is_answer: self._neighbours.heard(address, now_at(), is_answer=is_answer),
            log=log,
        )
        self._farewell = Farewell(interface=interface, addresses=self.addresses)
        self._watch = netlink.watch()
        asyncio.get_running_loop().add_reader(self._watch.fileno(), self._changed)
        self.is_held: bool | None
        self.has_carrier: bool
        self.is_held, self.has_carrier = self._ask()
        if self.is_held:
            self._is_wanted = True  # a predecessor held it; whoever decides says otherwise soon
            self._announce()

    # --- what is true -----------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Find out whether the addresses are ours, and whether the interface has a carrier."""
        before = (self.is_held, self.has_carrier)
        self.is_held, self.has_carrier = self._ask()
        if before == (self.is_held, self.has_carrier):
            return
        if before[0] and not self.is_held and self._is_wanted:
            self._losses.append(now_at())
            self._log.warning("address.taken-away", addresses=self.addresses, interface=self.interface)
        if self.has_carrier and not before[1] and self.is_held:
            self._announce()  # whoever is behind this cable may have looked elsewhere meanwhile
        self._on_change()

    def _ask(self) -> tuple[bool | None, bool]:
        carrier = _has_carrier(self.interface)
        if not self.addresses:
            return self._is_wanted, carrier
        try:
            found = {f.address for f in netlink.find(self.interface) if f.is_usable}
        except Refused:
            return False, carrier  # no interface, no address
        count = len(found.intersection(self.addresses))
        return (None if 0 < count < len(self.addresses) else count > 0), carrier

    def conflict(self) -> str:
        """Return the hardware address of another machine that answers for our addresses now; empty if none does."""
        if self._conflict is None or now_at() - self._conflict[2] > CONFLICT_AGE_MAX:
            return ""
        return self._conflict[1].hex(":")

    def trouble(self) -> str:
        """Return why this member cannot keep the addresses, or could not a while ago; empty if all is well."""
        now = now_at()
        if self._refused is not None and now - self._refused[0] > REFUSED_MAX:
            self._trouble = (f"{self.interface} does not take the floating IP: {self._refused[1]}", now)
        elif len(self._losses) == LOSSES_MAX and now - self._losses[0] < LOSSES_WITHIN:
            why = f"something on this machine took the floating IP off {self.interface} {LOSSES_MAX} times in a row"
            self._trouble = (why, now)
        if self._trouble is None or now - self._trouble[1] > TROUBLE_AGE_MAX:
            return ""
        return self._trouble[0]

    def answers(self) -> bool | None:
        """Ask whether anybody answers for the addresses while they are not ours; to be called again and again.

        Returns:
            True: another machine has them. False: nobody has answered for a while, though a neighbour has. None: not
            known; so also where nobody at all answers, since it may be we who are cut off, with the carrier up.
        """
        now = now_at()
        if self.is_held is not False or not self.addresses or not self._is_announced or not self.has_carrier:
            self._asking_since = self._asked_at = None
            return None
        if self._asked_at is None or now - self._asked_at >= ASK_EVERY:
            self._voice.ask()
            if self._claimed_at is None or now - self._claimed_at >= 2 * ASK_EVERY:
                self._voice.ask_neighbours(self._neighbours.known())
            self._asked_at = now
            self._asking_since = self._asking_since or now
        if self._claimed_at is not None and now - self._claimed_at < ANSWER_AGE_MAX:
            return True
        is_long = now - (self._asking_since or now) >= ANSWER_AGE_MAX
        return False if is_long and self._neighbours.do_answer(now, within=ANSWER_AGE_MAX) else None

    def _changed(self) -> None:
        with contextlib.suppress(OSError):
            netlink.drain(self._watch)
        self.look()

    def _claimed(self, address: str, other: bytes) -> None:
        self._claimed_at = now_at()
        if not self.is_held:
            return
        if not self.conflict():
            self._log.warning("address.conflict", address=address, other=other.hex(":"))
        self._conflict = (address, other, now_at())

    # --- what is done -----------------------------------------------------------------------------------------------

    def hold(self) -> None:
        """Take the addresses and announce them, now and again. Raises Refused."""
        self._is_wanted = True
        self._farewell.end()
        if self._is_announced:
            self._voice.ask()  # an answer does not stop us, since the vote is ours; it is shown to people
        try:
            for address in self.addresses:
                netlink.add(self.interface, address)
        except Refused as e:
            self._refused = (now_at() if self._refused is None else self._refused[0], str(e))
            raise
        finally:
            self.look()
        if self._refused is not None:
            self._refused = self._trouble = None
        self._announce()
        self._log.event("address.held", addresses=self.addresses, interface=self.interface)

    def drop(self) -> None:
        """Give the addresses up. Raises Refused."""
        self._is_wanted, self._refused = False, None
        if self._announcing is not None:
            self._announcing.cancel()
            self._announcing = None
        if self.is_held is not False:
            self._reset_connections()
            self._farewell.begin()
        try:
            for address in self.addresses:
                netlink.remove(self.interface, address)
        finally:
            self.look()
        self._log.event("address.dropped", addresses=self.addresses)

    def _reset_connections(self) -> None:
        for address in self.addresses:
            try:
                reset_connections(address)
            except Refused as e:
                self._log.warning("address.reset-failed", error=str(e))  # clients then wait for their own patience

    def close(self) -> None:
        """End watching and announcing; the addresses stay as they are."""
        if self._announcing is not None:
            self._announcing.cancel()
        asyncio.get_running_loop().remove_reader(self._watch.fileno())
        self._watch.close()
        self._voice.close()
        self._farewell.end()

    def _announce(self) -> None:
        if self._announcing is not None:
            self._announcing.cancel()
            self._announcing = None
        if self._is_announced and self.addresses:
            self._announcing = asyncio.create_task(self._keep_announcing())

    async def _keep_announcing(self) -> None:
        loop = asyncio.get_running_loop()
        began, turn = loop.time(), 0
        while True:
            self._voice.announce()
            turn += 1
            due = ANNOUNCE_AT_S[turn] if turn < len(ANNOUNCE_AT_S) else None
            await asyncio.sleep(max(0.0, began + due - loop.time()) if due is not None else ANNOUNCE_EVERY_S)


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
