"""RELP connections: messages into the journal, acknowledged when they are where they must be (both disks)."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable

from futago.intake import relp
from futago.intake.listen import Addresses, Counters
from futago.intake.model import Flag, Position, Protocol, Record
from futago.intake.options import Connections
from futago.intake.own import OwnJournal
from futago.intake.relp import Memory, RelpFrame, RelpFraming, Repetitions, Sent
from futago.intake.tcp_syslog import names_of
from futago.intake.turns import Turns
from futago.runtime.clock import S
from futago.runtime.faults import RemoteProtocolFault

UNACKNOWLEDGED_MAX = 2048  # frames of one connection; a client that sends more waits
SILENCE_MS = 1000  # nothing came for so long, although something of ours waits to be confirmed
_TCP_INFO = struct.Struct("=24xI24xII")  # tcpi_unacked, tcpi_last_data_recv, tcpi_last_ack_recv
REMEMBERED_NS = 120 * S  # records of the tail that may be repeated after a restart
UNFINISHED_NS = 60 * S  # a frame that has not ended by then never will
UNREAD_NS = 60 * S  # a client that does not take our answers for so long has gone
UNFINISHED_BYTES_MAX = 32 << 20  # of all connections together; beyond it, those that hold the most are closed
TEND_NS = 1 * S


class RelpDesk:
    """What all RELP connections share.

    Args:
        turns: knows what may have waited to be read.
        durable: returns our sequence up to which everything may be acknowledged.
    """

    def __init__(
        self, *, journal: OwnJournal, turns: Turns, addresses: Addresses, counters: Counters, durable: Callable[[], int]
    ) -> None:
        self.journal = journal
        self.turns = turns
        self.addresses = addresses
        self.counters = counters
        self.memory = Memory()
        self.opened: set[RelpConnection] = set()
        self.unfinished_bytes = 0
        self._durable = durable
        self._tended_ns = 0

    def release(self) -> None:
        """Acknowledge what has become safe."""
        if self.opened:
            durable = self._durable()
            for connection in tuple(self.opened):
                connection.acknowledge(durable)

    def release_one(self, connection: RelpConnection) -> None:
        """Acknowledge on one connection what is safe."""
        connection.acknowledge(self._durable())

    def forget(self, now_ns: int) -> None:
        """Forget broken connections that are too old. To be called often."""
        if now_ns - self._tended_ns < TEND_NS:
            return
        self._tended_ns = now_ns
        self.memory.forget_older(now_ns)

    def note_unfinished(self, more_bytes: int) -> None:
        """Keep count of what unfinished frames hold, and keep it bounded."""
        self.unfinished_bytes += more_bytes
        while more_bytes > 0 and self.unfinished_bytes > UNFINISHED_BYTES_MAX:
            max(self.opened, key=lambda one: one.unfinished_bytes).give_up()

    def note(self, records: list[Record], *, incarnation: str) -> None:
        """Take the last records of the own journal, after a restart: their senders' connections broke."""
        last: dict[tuple[bytes, int], list[Sent]] = {}
        for record in records:
            if record.protocol == Protocol.SYSLOG_RELP and record.time_ns > records[-1].time_ns - REMEMBERED_NS:
                sent = Sent(relp.identity(record.data), Position(incarnation, record.sequence))
                last.setdefault((record.source, record.port), []).append(sent)
        for (source, _), frames in last.items():
            self.memory.broke(source, frames, records[-1].time_ns)


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
        self._is_unread = False
        self._unfinished_since_ns = 0  # 0: no frame is unfinished
        self._unread_since_ns = 0  # 0: our answers are taken
        self._heard_ns = 0
        self.unfinished_bytes = 0
        self.transport: asyncio.Transport | None = None

    @property
    def source(self) -> bytes:
        """The client's address, 16 bytes."""
        return self._source

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        desk = self._desk
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
        self._heard_ns = desk.journal.clock.now_ns()
        desk.turns.meet(self, self._heard_ns)
        if desk.journal.is_congested:
            self.pause()

    def data_received(self, data: bytes) -> None:
        if self._repetitions is None:
            return  # what comes after the end
        self._heard_ns = self._desk.journal.clock.now_ns()
        self._desk.turns.turn(self._heard_ns)
        try:
            frames = self._framing.receive_data(data)
            for frame in frames:
                self._take(frame)
        except RemoteProtocolFault:
            self._desk.journal.hand()
            self.give_up()
            return
        self._desk.journal.hand()
        self._note_unfinished(is_new=bool(frames))
        if len(self._waiting) >= UNACKNOWLEDGED_MAX:
            self._is_held = True
            self._flow()

    def connection_lost(self, exc: Exception | None) -> None:
        self._desk.opened.discard(self)
        self._desk.turns.forget(self)
        self._hold_nothing()
        self._break(is_unheard=False)

    def pause_writing(self) -> None:
        """The client does not take our answers: say no more, and take no more from it."""
        self._is_unread = True
        self._unread_since_ns = self._desk.journal.clock.now_ns()
        self._flow()

    def resume_writing(self) -> None:
        """The client has taken them."""
        self._is_unread = False
        self._unread_since_ns = 0
        self._flow()
        self._desk.release_one(self)

    def tend(self, now_ns: int, limits: Connections) -> None:
        """End the connection if its client has stopped in the middle of a frame, takes no answers, or says nothing for
        longer than `limits` allow.
        """
        is_unread = self._unread_since_ns and now_ns - self._unread_since_ns > UNREAD_NS
        is_unfinished = self._unfinished_since_ns and now_ns - self._unfinished_since_ns > UNFINISHED_NS
        if is_unread or (is_unfinished and not self._is_silenced):
            self.give_up()
            return
        is_idle = bool(limits.idle_s) and now_ns - self._heard_ns > limits.idle_s * S
        is_open = self.transport is not None and not self.transport.is_closing()
        if is_idle and is_open and not self._waiting and not self._is_silenced:
            assert self.transport is not None
            self._desk.counters.tcp_idle += 1
            self.transport.write(relp.CLOSING)
            self.transport.close()

    def forgive(self, now_ns: int) -> None:
        """Count its time anew: it could not go on meanwhile."""
        self._heard_ns = now_ns
        if self._unfinished_since_ns:
            self._unfinished_since_ns = now_ns
        if self._unread_since_ns:
            self._unread_since_ns = now_ns

    def give_up(self) -> None:
        """End a connection whose client does not keep to the protocol."""
        self._desk.counters.relp_faults += 1
        self._desk.opened.discard(self)
        self._hold_nothing()
        self._break(is_unheard=self._is_unread)
        if self.transport is not None:
            self.transport.abort()

    def _note_unfinished(self, *, is_new: bool) -> None:
        """Keep count of a frame that has begun; `is_new`: others ended since this one could have begun."""
        if not self._framing.is_unfinished:
            self._unfinished_since_ns = 0
        elif is_new or not self._unfinished_since_ns:
            self._unfinished_since_ns = self._desk.journal.clock.now_ns()
        more = self._framing.pending_bytes - self.unfinished_bytes
        self.unfinished_bytes += more
        self._desk.note_unfinished(more)

    def _hold_nothing(self) -> None:
        self._framing = RelpFraming()
        self._note_unfinished(is_new=False)

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
        self._hold_nothing()
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
        now_ns = self._desk.journal.clock.now_ns()
        self._heard_ns = now_ns
        if self._unfinished_since_ns:
            self._unfinished_since_ns = now_ns  # it could not go on meanwhile
        self._flow()

    def acknowledge(self, durable: int) -> None:
        """Tell the client what is safe, in the order in which it sent."""
        if not self._waiting or self.transport is None or self.transport.is_closing() or self._repetitions is None:
            return
        if self._is_unread:
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
        if self._is_closing:
            return  # it has said goodbye: what comes behind that is acknowledged by nobody
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
            now_ns = journal.clock.now_ns()
            journal.add(
                frame.data,
                protocol=Protocol.SYSLOG_RELP,
                source=self._source,
                port=self._port,
                time_ns=now_ns,
                flags=desk.turns.flags(self, now_ns) | (Flag.CUT if frame.is_cut else 0),
            )
            position = Position(journal.incarnation.id, journal.sequence)
        else:
            desk.counters.relp_repeated += 1
        repetitions.recorded(Sent(this, position))
        # A record of an earlier life is on the other disk before any of this life is.
        is_of_now = position.incarnation == journal.incarnation.id
        self._waiting.append((position.sequence if is_of_now else 1, frame.number))

    @property
    def _is_silenced(self) -> bool:
        """Do we not read at present?"""
        return self._is_congested or self._is_held or self._is_unread

    def _flow(self) -> None:
        if self.transport is None or self.transport.is_closing():
            return
        if self._is_silenced:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()
