"""The sockets that devices send to: UDP drained on readable, TCP cut into frames. Everything goes to the own journal.

Nothing is parsed here beyond framing, nothing is answered. When the journal cannot take more, sockets are simply not
read: TCP senders wait, and for UDP the kernel's buffer fills and then counts what it drops.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from dataclasses import dataclass
from typing import Any

from futago.intake.framing import Frame, SyslogFraming
from futago.intake.mmsg import BATCH, BatchReceiver
from futago.intake.model import Flag, Protocol
from futago.intake.own import OwnJournal
from futago.intake.turns import Turns
from futago.runtime.clock import S

RECEIVE_BUFFER_BYTES = 8 << 20
DRAIN_MAX = 512  # datagrams at once, so that other sockets get their turn
TCP_CONNECTIONS_MAX = 4096
ADDRESSES_MAX = 20_000
_SO_RCVBUFFORCE = 33
_SO_TIMESTAMPNS = 35
_SO_MEMINFO = 55
_TIMESPEC = struct.Struct("=qq")


@dataclass(slots=True)
class Counters:
    """What came in, since this receiver started."""

    syslog_udp: int = 0
    syslog_tcp: int = 0
    syslog_tls: int = 0
    syslog_relp: int = 0
    snmp_udp: int = 0
    udp_errors: int = 0
    kernel_drops: int = 0
    tcp_connections: int = 0
    tcp_open: int = 0
    tcp_refused: int = 0
    tcp_frames_cut: int = 0
    tcp_incomplete: int = 0
    tls_refused: int = 0  # a certificate of another name
    relp_connections: int = 0
    relp_acknowledged: int = 0
    relp_repeated: int = 0
    relp_faults: int = 0
    stalls: int = 0
    congested: int = 0
    informs: int = 0
    informs_answered: int = 0
    informs_repeated: int = 0
    informs_unanswered: int = 0  # too many wait: recorded, and left to be repeated
    snmp_reports: int = 0


class Addresses:
    """Textual addresses to the 16 bytes that are stored, remembered."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[str, bytes] = {}

    def packed(self, text: str) -> bytes:
        """Return 16 bytes; IPv4 is mapped into IPv6."""
        known = self._known.get(text)
        if known is None:
            if len(self._known) >= ADDRESSES_MAX:
                self._known.clear()
            known = self._known[text] = pack_address(text)
        return known


def pack_address(text: str) -> bytes:
    """Return 16 bytes for an IPv4 or IPv6 address."""
    if ":" not in text:
        return bytes(10) + b"\xff\xff" + socket.inet_pton(socket.AF_INET, text)
    return socket.inet_pton(socket.AF_INET6, text.partition("%")[0])


class UdpPort:
    """One UDP socket.

    Args:
        host, port: where to listen.
        protocol: what its datagrams are.
    """

    def __init__(self, host: str, port: int, protocol: Protocol, *, journal: OwnJournal, addresses: Addresses) -> None:
        self._journal = journal
        self._addresses = addresses
        self._protocol = protocol
        self.received = 0
        self.errors = 0
        self._sock = _bound(host, port, socket.SOCK_DGRAM)
        for option, value in ((_SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES), (socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)):
            with contextlib.suppress(PermissionError):
                self._sock.setsockopt(socket.SOL_SOCKET, option, value)
                break
        self._sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self.port = self._sock.getsockname()[1]
        self._batches = BatchReceiver(self._sock)
        self._turns: Turns | None = None

    @property
    def protocol(self) -> Protocol:
        return self._protocol

    def start(self, turns: Turns) -> None:
        """Begin to read."""
        self._turns = turns
        asyncio.get_running_loop().add_reader(self._sock.fileno(), self._readable)

    def pause(self) -> None:
        """Stop reading; the kernel keeps what fits into its buffer."""
        asyncio.get_running_loop().remove_reader(self._sock.fileno())

    def resume(self) -> None:
        """Read again."""
        asyncio.get_running_loop().add_reader(self._sock.fileno(), self._readable)

    def drain(self) -> None:
        """Take what waits, although nothing has told that something does."""
        self._readable()

    def kernel_drops(self) -> int:
        """Return how many datagrams the kernel dropped because its buffer was full."""
        info = self._sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 36)
        return int(struct.unpack_from("=I", info, 32)[0]) if len(info) >= 36 else 0

    def close(self) -> None:
        """Read what is still there, once, and close."""
        self.pause()
        if not self._journal.is_congested:
            self._readable()
        self._sock.close()

    def _readable(self) -> None:
        journal, turns = self._journal, self._turns
        assert turns is not None
        now_ns = journal.clock.now_ns()
        turns.turn(now_ns)
        if self in turns.stalled_ports:
            self._drain_stamped(turns, now_ns)
            return
        count = 0
        try:
            while count < DRAIN_MAX and (found := self._batches.receive()):
                count += len(found)
                journal.add_many(found, protocol=self._protocol, time_ns=now_ns)
                if len(found) < BATCH:
                    break
        except OSError:
            self.errors += 1
        self.received += count
        journal.hand()

    def _drain_stamped(self, turns: Turns, now_ns: int) -> None:
        """After the loop was stopped: what waits came at different times, which the kernel knows."""
        journal = self._journal
        shift_ns = now_ns - time.clock_gettime_ns(time.CLOCK_REALTIME)
        count = 0
        try:
            while count < DRAIN_MAX:
                data, extra, _, address = self._sock.recvmsg(65536, 64)
                count += 1
                came_ns = min(max(stamp_of(extra) + shift_ns, turns.stalled_since_ns), now_ns)
                journal.add(
                    data,
                    protocol=self._protocol,
                    source=self._addresses.packed(address[0]),
                    port=address[1],
                    time_ns=came_ns,
                )
        except BlockingIOError:
            turns.stalled_ports.discard(self)
        except OSError:
            self.errors += 1
        self.received += count
        journal.hand()


def stamp_of(extra: list[tuple[int, int, bytes]]) -> int:
    """Return when the kernel got a datagram, wall time in nanoseconds; far in the future if it does not say."""
    for level, kind, data in extra:
        if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS and len(data) >= _TIMESPEC.size:
            seconds, rest = _TIMESPEC.unpack_from(data)
            return int(seconds * S + rest)
    return 1 << 62  # no stamp: now


class TcpSyslog(asyncio.Protocol):
    """One TCP connection of a syslog sender; with TLS if `is_tls`.

    Args:
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
        is_tls: bool = False,
        names: frozenset[str] = frozenset(),
    ) -> None:
        self._journal = journal
        self._addresses = addresses
        self._counters = counters
        self._opened = opened
        self._turns = turns
        self._framing = SyslogFraming()
        self._protocol = Protocol.SYSLOG_TLS if is_tls else Protocol.SYSLOG_TCP
        self._names = names
        self._source = bytes(16)
        self._port = 0
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "pause_reading")
        self.transport = transport  # type: ignore[assignment]
        if len(self._opened) >= TCP_CONNECTIONS_MAX:
            self._counters.tcp_refused += 1
            transport.abort()  # type: ignore[attr-defined]
            return
        if self._names and not self._names & names_of(transport.get_extra_info("peercert")):
            self._counters.tls_refused += 1
            transport.abort()  # type: ignore[attr-defined]
            return
        self._counters.tcp_connections += 1
        self._opened.add(self)
        peer = transport.get_extra_info("peername") or ("0.0.0.0", 0)  # noqa: S104  a sender that is gone already
        self._source, self._port = self._addresses.packed(peer[0]), peer[1]
        self._turns.meet(self, self._now_ns())
        if self._journal.is_congested:
            self.pause()

    def _now_ns(self) -> int:
        now_ns = self._journal.clock.now_ns()
        self._turns.turn(now_ns)  # we may be the first to run after a stop
        return now_ns

    def data_received(self, data: bytes) -> None:
        now_ns = self._now_ns()
        for frame in self._framing.receive_data(data):
            self._add(frame, now_ns)
        self._journal.hand()

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

    def pause(self) -> None:
        """Do not read: the sender waits."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
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


def _bound(host: str, port: int, kind: socket.SocketKind) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if kind == socket.SOCK_STREAM:  # for UDP it would let a second receiver take our datagrams
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    return sock


def tcp_socket(host: str, port: int) -> socket.socket:
    """Return a bound TCP socket that does not listen yet. Raises OSError."""
    return _bound(host, port, socket.SOCK_STREAM)
