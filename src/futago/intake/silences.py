"""Connections whose senders cannot be reached just now, each for itself: a path that is dead while others are not.

The kernel asks every connection on which nothing comes whether the other end is there (keepalive, `listen.tcp_socket`), so
one of which nothing was heard for SILENT_NS has no path, or no sender. What was written into it meanwhile waits in the
sender's kernel, which tries again at intervals that double (RFC 6298, 5.5): it comes up to as long after the end of the
silence as that lasted. So what a connection brings until then may be as old as the beginning of the silence.

A line that comes more than the merge's window (10 s) late was tried in vain for at least (10 s - t) / 2, where t is the
sender's first retransmission timeout: 4.25 s with t up to 1.5 s. SILENT_NS and LOOK_NS together are less. The rule is pure; `unheard_ns` asks the kernel.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import termios
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Protocol as Shape

from futago.runtime.clock import MS, S

SILENT_NS = 3 * S
LOOK_NS = 1 * S
SETTLE_NS = 1 * S  # after so long a sender whose window was shut has gone on
REPEAT_NS_MAX = 120 * S  # so seldom does a kernel send again at least what nobody confirmed (Linux: TCP_RTO_MAX)
_INFO_BYTES = 60
_LAST_HEARD = struct.Struct("=II")  # of struct tcp_info: tcpi_last_data_recv, tcpi_last_ack_recv, both in ms
_LAST_HEARD_AT = 52


class Connection(Hashable, Shape):
    """A connection that messages come over. `source`: its sender's address, 16 bytes."""

    @property
    def transport(self) -> asyncio.Transport | None: ...

    @property
    def source(self) -> bytes: ...


@dataclass(slots=True)
class _Silence:
    """`late_until_ns`: until then what was sent during the silence may come; None: it lasts."""

    since_ns: int
    late_until_ns: int | None = None


class Silences:
    """Knows which connections are silent, or were a moment ago.

    Args:
        opened: gives the connections there are.
        unheard_ns: tells for how long nothing was heard of one; None: nobody knows.
    """

    __slots__ = ("_looked_ns", "_of", "_opened", "_unheard_ns")

    def __init__(
        self,
        opened: Callable[[], Iterable[Connection]],
        unheard_ns: Callable[[Connection], int | None],
    ) -> None:
        self._opened = opened
        self._unheard_ns = unheard_ns
        self._of: dict[Connection, _Silence] = {}
        self._looked_ns = 0

    def look(self, now_ns: int) -> None:
        """Find out who is silent. To be called about ten times a second; looks once in LOOK_NS."""
        if now_ns - self._looked_ns < LOOK_NS:
            return
        self._looked_ns = now_ns
        for one in self._opened():
            unheard_ns = self._unheard_ns(one)
            if unheard_ns is not None:
                self._note(one, unheard_ns, now_ns)

    def _note(self, one: Connection, unheard_ns: int, now_ns: int) -> None:
        known = self._of.get(one)
        if unheard_ns >= SILENT_NS:
            if known is None:
                self._of[one] = _Silence(now_ns - unheard_ns)
            else:  # again, before all had come: its sender's intervals go on growing since the first time
                known.late_until_ns = None
        elif known is not None and known.late_until_ns is None:
            known.late_until_ns = _late_until(known.since_ns, now_ns)
        elif known is not None and now_ns > (known.late_until_ns or 0) and not waiting_bytes(one):
            del self._of[one]

    def meet(self, connection: Connection, now_ns: int) -> None:
        """Note a new connection: its sender may have opened it in place of one that has no path."""
        since = [known.since_ns for one, known in self._of.items() if one.source == connection.source]
        if since:
            self._of[connection] = _Silence(min(since), _late_until(min(since), now_ns))

    def forget(self, connection: Connection) -> None:
        """Note that a connection has ended."""
        self._of.pop(connection, None)

    def since_ns(self, connection: Connection) -> int | None:
        """Return since when what it brings may have been on its way; None: it comes at once."""
        known = self._of.get(connection)
        return None if known is None else known.since_ns

    @property
    def oldest_ns(self) -> int | None:
        """Since when anything may be on its way; None: nothing is."""
        return min((known.since_ns for known in self._of.values()), default=None)


def _late_until(since_ns: int, now_ns: int) -> int:
    return now_ns + min(now_ns - since_ns, REPEAT_NS_MAX) + SETTLE_NS


def unheard_ns(connection: Connection) -> int | None:
    """Return for how long the kernel has heard nothing of the other end; None if the connection has ended."""
    sock = _socket_of(connection)
    if sock is None:
        return None
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
    except OSError:
        return None
    return min(_LAST_HEARD.unpack_from(info, _LAST_HEARD_AT)) * MS if len(info) == _INFO_BYTES else None


def waiting_bytes(connection: Connection) -> int:
    """Return how much the kernel holds of a connection that was not read; 0 if it has ended."""
    sock = _socket_of(connection)
    if sock is None:
        return 0
    try:
        (count,) = struct.unpack("=i", fcntl.ioctl(sock.fileno(), termios.FIONREAD, bytes(4)))
    except OSError:
        return 0
    return int(count)


def _socket_of(connection: Connection) -> socket.socket | None:
    if connection.transport is None:
        return None
    found: socket.socket | None = connection.transport.get_extra_info("socket")
    return found
