"""The sockets that devices send to: UDP drained on readable, and how all of them are bound. Everything goes to the own
journal.

Nothing is parsed here, nothing is answered. When the journal cannot take more, sockets are simply not read: for UDP the
kernel's buffer fills and then counts what it drops.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from dataclasses import dataclass

from futago.intake.mmsg import BATCH, BatchReceiver
from futago.intake.model import Protocol
from futago.intake.own import OwnJournal
from futago.intake.turns import Turns
from futago.runtime.clock import S

RECEIVE_BUFFER_BYTES = 32 << 20  # some 50,000 datagrams of 200 bytes: five seconds of a flood
DRAIN_MAX = 512  # datagrams at once, so that other sockets get their turn
ADDRESSES_MAX = 20_000
KEEPALIVE_IDLE_S, KEEPALIVE_EVERY_S, KEEPALIVE_COUNT = 2, 3, 127  # 127 is the most there is
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
    tcp_timed_out: int = 0  # in the middle of a frame for too long
    tcp_idle: int = 0  # silent for longer than the options allow
    tls_refused: int = 0  # a certificate of another name
    tls_failed: int = 0  # handshakes that came to nothing
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
    """Return a bound TCP socket that does not listen yet. Its connections end when their senders are gone without a word
    (a power cut): the kernel asks after 2 s of silence, so that a dead path is seen (silences.py), and gives up after 6.4
    minutes without an answer. Raises OSError.
    """
    sock = _bound(host, port, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # what is accepted inherits these
    for option, value in (
        (socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S),
        (socket.TCP_KEEPINTVL, KEEPALIVE_EVERY_S),
        (socket.TCP_KEEPCNT, KEEPALIVE_COUNT),
    ):
        sock.setsockopt(socket.IPPROTO_TCP, option, value)
    return sock
