"""The socket for SNMP: like any other for traps, and for INFORMs the one that answers.

An answer leaves from the address that was asked, also where that is the floating IP: with each datagram the kernel
tells it (IP_PKTINFO), and is told it again. An address that is gone meanwhile sends nothing.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from futago.intake.informs import Informs, Place, answered_inform, engine_named, key_of, v2_key, wants_answer_v3
from futago.intake.listen import DRAIN_MAX, Addresses, Counters, UdpPort, stamp_of
from futago.intake.model import Position, Protocol, Record
from futago.intake.options import OptionsWatch
from futago.intake.own import OwnJournal
from futago.intake.usm_desk import Answer, UsmDesk

_IP_PKTINFO = 8
_ANCILLARY_BYTES = 128
_V4_INTERFACE_BYTES = 4  # struct in_pktinfo: interface, our address, header's address
_V6_ADDRESS_BYTES = 16  # struct in6_pktinfo: address, interface


class To(NamedTuple):
    """Where an answer goes, from where, through which socket."""

    sock: socket.socket
    address: Any
    ancillary: list[tuple[int, int, bytes]]


class Datagram(NamedTuple):
    """What came to the SNMP port."""

    data: bytes
    source: bytes
    port: int
    to: To


class InformDesk:
    """Takes INFORMs into the journal and answers them when they are safe.

    Args:
        journal: the own journal.
        watch: the options: who may send.
        usm: asked about v3.
        has_copy: whether the copy of the other's journal has a position durably.
        durable: returns our sequence up to which everything is where it must be before it is acknowledged.
    """

    def __init__(
        self,
        *,
        journal: OwnJournal,
        watch: OptionsWatch,
        usm: UsmDesk,
        counters: Counters,
        has_copy: Callable[[Position], bool],
        durable: Callable[[], int],
    ) -> None:
        self.informs: Informs[To] = Informs()
        self.usm = usm
        self._journal = journal
        self._watch = watch
        self._counters = counters
        self._has_copy = has_copy
        self._durable = durable

    def take(self, came: Datagram, time_ns: int) -> None:
        """Take one datagram of the SNMP port."""
        inform = answered_inform(came.data)
        if inform is not None:
            opened, reply = inform
            communities = self._watch.current.snmp.communities
            if communities is None or opened.sender.decode("utf-8", "replace") in communities:
                self._inform(came, came.data, reply, time_ns)
                return
        elif self.usm.is_wanted and wants_answer_v3(came.data):
            self.usm.ask(came.data, partial(self._answered, came))
            return
        self._record(came, time_ns)

    def _answered(self, came: Datagram, answer: Answer | None) -> None:
        now_ns = self._journal.clock.now_ns()
        if answer is None:
            # An INFORM is for our engine, and its sender repeats it. What names another is a trap, or no INFORM for us.
            answer = Answer(0, is_foreign=engine_named(came.data) not in (b"", self.usm.engine_id))
        if answer.identity:
            self._inform(came, answer.identity, answer.reply, now_ns)
        elif answer.reply:
            self._counters.snmp_reports += 1
            _send(came.to, answer.reply)
        if answer.is_foreign:
            self._record(came, now_ns)
        self._journal.hand()

    def _record(self, came: Datagram, time_ns: int) -> None:
        self._journal.add(came.data, protocol=Protocol.SNMP_UDP, source=came.source, port=came.port, time_ns=time_ns)

    def _inform(self, came: Datagram, identity: bytes, reply: bytes, time_ns: int) -> None:
        key = key_of(came.source, came.port, identity)
        place = self.informs.place(key)
        if place is not None and not place.is_own and self._has_copy(place.position):
            self._counters.informs_repeated += 1
            _send(came.to, reply)  # the other has it, and we have its copy
            return
        if place is not None and place.is_own:
            self._counters.informs_repeated += 1
            position = place.position
        else:
            self._counters.informs += 1
            self._record(came, time_ns)
            position = Position(self._journal.incarnation.id, self._journal.sequence)
            self.informs.note(key, Place(True, position))
        is_of_now = position.incarnation == self._journal.incarnation.id
        # One of an earlier life of this receiver: the other gets older lives first, so what holds for any record of
        # this life holds for it.
        if not self.informs.wait(key, position.sequence if is_of_now else 1, reply, came.to):
            self._counters.informs_unanswered += 1

    def release(self) -> None:
        """Answer what has become safe."""
        if not self.informs.waiting:
            return
        for waiting in self.informs.due(self._durable()):
            self._counters.informs_answered += 1
            _send(waiting.to, waiting.reply)

    def note(self, records: list[Record], *, incarnation: str, is_own: bool) -> None:
        """Remember the INFORMs among records of a journal."""
        for record in records:
            if record.protocol != Protocol.SNMP_UDP:
                continue
            place = Place(is_own, Position(incarnation, record.sequence))
            key = v2_key(record)
            if key is not None:
                self.informs.note(key, place)
            elif self.usm.is_wanted and wants_answer_v3(record.data):
                self.usm.ask(record.data, partial(self._recorded, record, place), is_recorded=True)

    def _recorded(self, record: Record, place: Place, answer: Answer | None) -> None:
        if answer is not None and answer.identity:
            self.informs.note(key_of(record.source, record.port, answer.identity), place)


def _asked(extra: list[tuple[int, int, bytes]]) -> list[tuple[int, int, bytes]]:
    """Return what tells the kernel to send from the address that was asked. The way there is routing's, except for
    link-local addresses, which mean nothing without their interface.
    """
    for level, kind, data in extra:
        if level == socket.IPPROTO_IP and kind == _IP_PKTINFO:
            return [(level, kind, bytes(_V4_INTERFACE_BYTES) + data[_V4_INTERFACE_BYTES:])]
        if level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
            is_local = data.startswith(b"\xfe\x80")
            return [(level, kind, data if is_local else data[:_V6_ADDRESS_BYTES] + bytes(4))]
    return []


def _send(to: To, reply: bytes) -> None:
    with contextlib.suppress(OSError):  # the socket is full, or the address gone: the sender repeats
        to.sock.sendmsg([reply], to.ancillary, 0, to.address)


class SnmpPort(UdpPort):
    """One UDP socket for SNMP."""

    def __init__(self, host: str, port: int, *, desk: InformDesk, journal: OwnJournal, addresses: Addresses) -> None:
        super().__init__(host, port, Protocol.SNMP_UDP, journal=journal, addresses=addresses)
        self._desk = desk
        if self._sock.family == socket.AF_INET6:
            self._sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        else:
            self._sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)

    def _readable(self) -> None:
        journal, turns, count = self._journal, self._turns, 0
        assert turns is not None
        now_ns = journal.clock.now_ns()
        turns.turn(now_ns)
        is_stalled = self in turns.stalled_ports
        shift_ns = now_ns - time.clock_gettime_ns(time.CLOCK_REALTIME)
        try:
            while count < DRAIN_MAX:
                data, extra, _, address = self._sock.recvmsg(65536, _ANCILLARY_BYTES)
                count += 1
                came_ns = min(max(stamp_of(extra) + shift_ns, turns.stalled_since_ns), now_ns) if is_stalled else now_ns
                to = To(self._sock, address, _asked(extra))
                self._desk.take(Datagram(data, self._addresses.packed(address[0]), address[1], to), came_ns)
        except BlockingIOError:
            turns.stalled_ports.discard(self)
        except OSError:
            self.errors += 1
        self.received += count
        journal.hand()
