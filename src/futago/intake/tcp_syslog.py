"""Syslog over TCP and TLS: a connection's bytes become frames, and those records of the own journal.

Nothing is parsed here beyond framing, nothing is answered. When the journal cannot take more, connections are simply not
read, and their senders wait. Who sends a part of a frame and stops is ended in time (`tend`).
"""

from __future__ import annotations

import asyncio
from typing import Any

from futago.intake.framing import Frame, SyslogFraming
from futago.intake.guests import Guests
from futago.intake.listen import Addresses, Counters
from futago.intake.model import Flag, Protocol
from futago.intake.options import Connections
from futago.intake.own import OwnJournal
from futago.intake.turns import Turns
from futago.runtime.clock import S


class TcpSyslog(asyncio.Protocol):
    """One TCP connection of a syslog sender; with TLS if `is_tls`.

    Args:
        opened: the connections there are; it adds and removes itself.
        guests: keeps count of what unfinished frames hold.
        names: the names of which one must stand in the sender's certificate; empty: any.
    """

    def __init__(
        self,
        *,
        journal: OwnJournal,
        turns: Turns,
        addresses: Addresses,
        counters: Counters,
        opened: set[TcpSyslog],
        guests: Guests,
        is_tls: bool = False,
        names: frozenset[str] = frozenset(),
    ) -> None:
        self._journal = journal
        self._addresses = addresses
        self._counters = counters
        self._opened = opened
        self._guests = guests
        self._turns = turns
        self._framing = SyslogFraming()
        self._protocol = Protocol.SYSLOG_TLS if is_tls else Protocol.SYSLOG_TCP
        self._names = names
        self._source = bytes(16)
        self._port = 0
        self._heard_ns = 0
        self._unfinished_since_ns = 0  # 0: no frame is unfinished
        self.unfinished_bytes = 0
        self.transport: asyncio.Transport | None = None

    @property
    def source(self) -> bytes:
        """The sender's address, 16 bytes."""
        return self._source

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "pause_reading")
        self.transport = transport  # type: ignore[assignment]
        if self._names and not self._names & names_of(transport.get_extra_info("peercert")):
            self._counters.tls_refused += 1
            transport.abort()  # type: ignore[attr-defined]
            return
        self._counters.tcp_connections += 1
        self._opened.add(self)
        peer = transport.get_extra_info("peername") or ("0.0.0.0", 0)  # noqa: S104  a sender that is gone already
        self._source, self._port = self._addresses.packed(peer[0]), peer[1]
        self._heard_ns = self._now_ns()
        self._turns.meet(self, self._heard_ns)
        if self._journal.is_congested:
            self.pause()

    def _now_ns(self) -> int:
        now_ns = self._journal.clock.now_ns()
        self._turns.turn(now_ns)  # we may be the first to run after a stop
        return now_ns

    def data_received(self, data: bytes) -> None:
        self._heard_ns = now_ns = self._now_ns()
        frames = self._framing.receive_data(data)
        for frame in frames:
            self._add(frame, now_ns)
        self._journal.hand()
        self._note_unfinished(is_new=bool(frames))

    def eof_received(self) -> bool:
        frame = self._framing.receive_end()
        if frame is not None:
            self._add(frame, self._now_ns())
            self._journal.hand()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._opened.discard(self)
        self._turns.forget(self)
        if self._framing.pending_bytes:
            self._counters.tcp_incomplete += 1
        self._hold_nothing()

    def tend(self, now_ns: int, limits: Connections) -> None:
        """End it if it has been silent, or in the middle of a frame, for longer than `limits` allow."""
        if self._journal.is_congested or self.transport is None or self.transport.is_closing():
            return
        if self._unfinished_since_ns and now_ns - self._unfinished_since_ns > limits.unfinished_s * S:
            self._counters.tcp_timed_out += 1
            self.give_up()
        elif limits.idle_s and now_ns - self._heard_ns > limits.idle_s * S:
            self._counters.tcp_idle += 1
            self.transport.close()

    def forgive(self, now_ns: int) -> None:
        """Count its time anew: it could not go on meanwhile."""
        self._heard_ns = now_ns
        if self._unfinished_since_ns:
            self._unfinished_since_ns = now_ns

    def give_up(self) -> None:
        """End a connection that does not get on. What there is of a line is kept, flagged as cut."""
        frame = self._framing.receive_end()
        if frame is not None:
            self._add(Frame(frame.data, True), self._now_ns())
            self._journal.hand()
        else:
            self._counters.tcp_incomplete += 1
        self._opened.discard(self)
        self._hold_nothing()
        if self.transport is not None:
            self.transport.abort()

    def _note_unfinished(self, *, is_new: bool) -> None:
        """Keep count of a frame that has begun; `is_new`: others ended since this one could have begun."""
        if not self._framing.is_unfinished:
            self._unfinished_since_ns = 0
        elif is_new or not self._unfinished_since_ns:
            self._unfinished_since_ns = self._heard_ns
        more = self._framing.pending_bytes - self.unfinished_bytes
        if more:
            self.unfinished_bytes += more
            self._guests.note_unfinished(more, self._opened)

    def _hold_nothing(self) -> None:
        self._framing = SyslogFraming()
        self._note_unfinished(is_new=False)

    def pause(self) -> None:
        """Do not read: the sender waits."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
        self.forgive(self._journal.clock.now_ns())
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    def _add(self, frame: Frame, now_ns: int) -> None:
        if self._protocol is Protocol.SYSLOG_TLS:
            self._counters.syslog_tls += 1
        else:
            self._counters.syslog_tcp += 1
        flags = self._turns.flags(self, now_ns)
        if frame.is_cut:
            self._counters.tcp_frames_cut += 1
            flags |= Flag.CUT
        self._journal.add(
            frame.data,
            protocol=self._protocol,
            source=self._source,
            port=self._port,
            time_ns=now_ns,
            flags=flags,
        )


def names_of(certificate: dict[str, Any] | None) -> set[str]:
    """Return the common name and the DNS names in a certificate, as the ssl module gives it."""
    if not certificate:
        return set()
    names = {value for part in certificate.get("subject", ()) for name, value in part if name == "commonName"}
    return names | {value for kind, value in certificate.get("subjectAltName", ()) if kind == "DNS"}
