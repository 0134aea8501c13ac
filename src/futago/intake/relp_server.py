"""RELP connections: messages into the journal, acknowledged when they are where they must be (both disks)."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable

from futago.intake import relp
from futago.intake.listen import TCP_CONNECTIONS_MAX, Addresses, Counters, names_of
from futago.intake.model import Flag, Position, Protocol, Record
from futago.intake.own import OwnJournal
from futago.intake.relp import Memory, RelpFrame, RelpFraming, Repetitions, Sent
from futago.runtime.faults import RemoteProtocolFault

UNACKNOWLEDGED_MAX = 2048  # frames of one connection; a client that sends more waits
SILENCE_MS = 1000  # nothing came for so long, although something of ours waits to be confirmed
_TCP_INFO = struct.Struct("=24xI24xII")  # tcpi_unacked, tcpi_last_data_recv, tcpi_last_ack_recv
REMEMBERED_NS = 120 * 1_000_000_000  # records of the tail that may be repeated after a restart


class RelpDesk:
    """What all RELP connections share.

    Args:
        durable: returns our sequence up to which everything may be acknowledged.
    """

    def __init__(
        self, *, journal: OwnJournal, addresses: Addresses, counters: Counters, durable: Callable[[], int]
    ) -> None:
        self.journal = journal
        self.addresses = addresses
        self.counters = counters
        self.memory = Memory()
        self.opened: set[RelpConnection] = set()
        self._durable = durable

    def release(self) -> None:
        """Acknowledge what has become safe."""
        if self.opened:
            durable = self._durable()
            for connection in tuple(self.opened):
                connection.acknowledge(durable)

    def note(self, records: list[Record], *, incarnation: str) -> None:
        """Take the last records of the own journal, after a restart: their senders' connections broke."""
        last: dict[tuple[bytes, int], list[Sent]] = {}
        for record in records:
            if record.protocol == Protocol.SYSLOG_RELP and record.time_ns > records[-1].time_ns - REMEMBERED_NS:
                sent = Sent(relp.identity(record.data), Position(incarnation, record.sequence))
                last.setdefault((record.source, record.port), []).append(sent)
        for (source, _), frames in last.items():
            self.memory.broke(source, frames)


class RelpConnection(asyncio.Protocol):
    """One connection of a RELP client. `names`: as for TcpSyslog."""

    def __init__(self, desk: RelpDesk, names: frozenset[str] = frozenset()) -> None:
        self._desk = desk
        self._names = names
        self._closing_number = 0
        self._framing = RelpFraming()
        self._waiting: deque[tuple[int, int]] = deque()  # our sequence, the client's number
        self._source, self._port = bytes(16), 0
        self._repetitions: Repetitions | None = None
        self._is_closing = False
        self._is_held = False
        self._is_congested = False
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        desk = self._desk
        if len(desk.opened) >= TCP_CONNECTIONS_MAX:
            desk.counters.tcp_refused += 1
            transport.abort()  # type: ignore[attr-defined]
            return
        if self._names and not self._names & names_of(transport.get_extra_info("peercert")):
            desk.counters.tls_refused += 1
            transport.abort()  # type: ignore[attr-defined]
            return
        peer = transport.get_extra_info("peername") or ("0.0.0.0", 0)  # noqa: S104  a sender that is gone already
        self._source, self._port = desk.addresses.packed(peer[0]), peer[1]
        for other in [one for one in desk.opened if one.is_dead_end_of(self._source)]:
            other.supersede()
        self._repetitions = Repetitions(desk.memory, self._source)
        desk.counters.relp_connections += 1
        desk.opened.add(self)
        if desk.journal.is_congested:
            self.pause()

    def data_received(self, data: bytes) -> None:
        try:
            for frame in self._framing.receive_data(data):
                self._take(frame)
        except RemoteProtocolFault:
            self._desk.counters.relp_faults += 1
            self._desk.journal.hand()
            if self.transport is not None:
                self.transport.close()
            return
        self._desk.journal.hand()
        if len(self._waiting) >= UNACKNOWLEDGED_MAX:
            self._is_held = True
            self._flow()

    def connection_lost(self, exc: Exception | None) -> None:
        self._desk.opened.discard(self)
        self._break(is_unheard=False)

    def is_dead_end_of(self, source: bytes) -> bool:
        """Is this a connection of `source` whose acknowledgements do not arrive: one that the sender has given up?"""
        if source != self._source or self.transport is None:
            return False
        try:
            info = self.transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 64)
        except (OSError, AttributeError):
            return False
        unconfirmed, last_data_ms, last_confirmed_ms = _TCP_INFO.unpack_from(info)
        return bool(unconfirmed) and min(last_data_ms, last_confirmed_ms) > SILENCE_MS

    def supersede(self) -> None:
        """The sender has begun anew elsewhere."""
        self._desk.opened.discard(self)
        self._break(is_unheard=True)
        if self.transport is not None:
            self.transport.abort()

    def _break(self, *, is_unheard: bool) -> None:
        if self._repetitions is not None and not self._is_closing:
            self._repetitions.broke(self._desk.journal.clock.now_ns(), is_unheard=is_unheard)
        self._repetitions = None

    def pause(self) -> None:
        """Do not read: the sender waits."""
        self._is_congested = True
        self._flow()

    def resume(self) -> None:
        """Read again."""
        self._is_congested = False
        self._flow()

    def acknowledge(self, durable: int) -> None:
        """Tell the client what is safe, in the order in which it sent."""
        if not self._waiting or self.transport is None or self.transport.is_closing() or self._repetitions is None:
            return
        said: list[bytes] = []
        while self._waiting and self._waiting[0][0] <= durable:
            said.append(relp.response(self._waiting.popleft()[1]))
        if said:
            self._desk.counters.relp_acknowledged += len(said)
            self._repetitions.acknowledged(len(said), self._desk.journal.clock.now_ns())
            self.transport.write(b"".join(said))
        if self._is_held and len(self._waiting) < UNACKNOWLEDGED_MAX // 2:
            self._is_held = False
            self._flow()
        if self._is_closing and not self._waiting:
            self._say_goodbye()

    def _take(self, frame: RelpFrame) -> None:
        assert self.transport is not None
        if frame.command == b"syslog":
            self._message(frame)
        elif frame.command == b"open":
            self.transport.write(relp.opened(frame.number))
        elif frame.command == b"close":
            self._is_closing = True
            self._closing_number = frame.number
            if not self._waiting:
                self._say_goodbye()
        else:
            self.transport.write(relp.response(frame.number, b"500 command not supported"))

    def _say_goodbye(self) -> None:
        assert self.transport is not None
        self.transport.write(relp.response(self._closing_number, b"") + relp.CLOSING)
        self.transport.close()

    def _message(self, frame: RelpFrame) -> None:
        desk, journal, repetitions = self._desk, self._desk.journal, self._repetitions
        assert repetitions is not None
        this, position = repetitions.place(frame.data)
        if position is None:
            desk.counters.syslog_relp += 1
            journal.add(
                frame.data,
                protocol=Protocol.SYSLOG_RELP,
                source=self._source,
                port=self._port,
                time_ns=journal.clock.now_ns(),
                flags=int(Flag.CUT) if frame.is_cut else 0,
            )
            position = Position(journal.incarnation.id, journal.sequence)
        else:
            desk.counters.relp_repeated += 1
        repetitions.recorded(Sent(this, position))
        # A record of an earlier life is on the other disk before any of this life is.
        is_of_now = position.incarnation == journal.incarnation.id
        self._waiting.append((position.sequence if is_of_now else 1, frame.number))

    def _flow(self) -> None:
        if self.transport is None or self.transport.is_closing():
            return
        if self._is_congested or self._is_held:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()
