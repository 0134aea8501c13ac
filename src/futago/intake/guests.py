"""Who may be connected: how many senders, how many connections of one, and how long a handshake may take.

A connection counts from the moment it is accepted, before any TLS, so that one who opens many and says nothing is
bounded like everybody. When all places are taken, the handshake that has lasted longest makes room; senders that are in
are never ended for the sake of new ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from typing import Any
from typing import Protocol as Shape

from futago.intake.options import Connections
from futago.runtime.clock import S

TEND_NS = 1 * S
STOPPED_NS = 5 * S  # not tended for so long: we were stopped, and what was sent meanwhile has not been read yet
BACKLOG = 1024
ACCEPTED_MAX = 64  # at once, so that other sockets get their turn
AGAIN_S = 1.0
UNFINISHED_BYTES_MAX = 64 << 20  # of all syslog connections together; beyond it, those that hold the most are ended


class Refusals(Shape):
    """What is counted."""

    tcp_refused: int
    tls_failed: int


class Tended(Shape):
    """A connection whose silence and half frames are looked after.

    Attributes:
        unfinished_bytes: what it holds of a frame that has not ended.
    """

    unfinished_bytes: int

    def tend(self, now_ns: int, limits: Connections) -> None:
        """End it if it has been silent, or in the middle of a frame, for too long."""

    def forgive(self, now_ns: int) -> None:
        """Count its time anew: it could not go on meanwhile."""

    def give_up(self) -> None:
        """End it."""


class Guests:
    """Counts connections of all ports that senders connect to.

    Args:
        counters: counts who is not let in.
        limits: gives what the options say now.
    """

    def __init__(self, counters: Refusals, limits: Callable[[], Connections] = Connections) -> None:
        self._counters = counters
        self._limits = limits
        self._of: Counter[bytes] = Counter()
        self._entering: set[asyncio.Task[None]] = set()
        self._shaking: dict[asyncio.Task[None], None] = {}  # those of them with a handshake, the oldest first
        self._tended_ns = 0
        self.count = 0
        self.unfinished_bytes = 0
        self.last_refusal = ""

    @property
    def limits(self) -> Connections:
        return self._limits()

    @property
    def shaking(self) -> int:
        """How many are in the middle of a handshake."""
        return len(self._shaking)

    def admit(self, source: bytes, said: str) -> bool:
        """Count a connection of `source`, which is called `said`; return False if there is no place for it."""
        limits = self._limits()
        if self._of[source] >= limits.per_sender:
            self._refuse(f"{said} holds {self._of[source]:,} already")
            return False
        if self.count >= limits.max and self._shaking:
            oldest = next(iter(self._shaking))  # it counts until it has ended, in a moment: one more for that long
            del self._shaking[oldest]
            oldest.cancel()
        elif self.count >= limits.max:
            self._refuse(f"{self.count:,} are open")
            return False
        self.count += 1
        self._of[source] += 1
        return True

    def leave(self, source: bytes) -> None:
        """Count no more one that `admit` has let in."""
        self.count -= 1
        self._of[source] -= 1
        if not self._of[source]:
            del self._of[source]

    def begin(self, entering: Coroutine[Any, Any, None], *, is_handshake: bool, ended: Callable[[], bool]) -> None:
        """Let one enter. `ended`: called when that is over, or was cancelled before it began; tells whether it is in."""

        def over(task: asyncio.Task[None]) -> None:
            self._entering.discard(task)
            self._shaking.pop(task, None)
            self._counters.tls_failed += not ended() and is_handshake

        task = asyncio.get_running_loop().create_task(entering)
        self._entering.add(task)
        if is_handshake:
            self._shaking[task] = None
        task.add_done_callback(over)

    def note_unfinished(self, more_bytes: int, connections: Iterable[Tended]) -> None:
        """Keep count of what unfinished frames hold, and keep it bounded."""
        self.unfinished_bytes += more_bytes
        while more_bytes > 0 and self.unfinished_bytes > UNFINISHED_BYTES_MAX:
            max(connections, key=lambda one: one.unfinished_bytes).give_up()

    def tend(self, now_ns: int, connections: Iterable[Tended]) -> None:
        """Look after connections. To be called often."""
        passed_ns = now_ns - self._tended_ns
        if passed_ns < TEND_NS:
            return
        is_after_stop = bool(self._tended_ns) and passed_ns > STOPPED_NS
        self._tended_ns = now_ns
        limits = self._limits()
        for one in tuple(connections):
            if is_after_stop:
                one.forgive(now_ns)
            else:
                one.tend(now_ns, limits)

    def close(self) -> None:
        """End the handshakes."""
        for task in tuple(self._entering):
            task.cancel()

    def _refuse(self, why: str) -> None:
        self._counters.tcp_refused += 1
        self.last_refusal = why


class Door:
    """A listening port: accepts connections, asks whether there is a place, lets TLS be agreed on, and gives each its
    protocol. (Servers of the loop make the handshake before they tell of a connection, so nothing could bound it.)

    Args:
        sock: bound.
        make: makes a connection's protocol.
        packed: turns the text of an address into its bytes.
        context: of TLS; None: without.
    """

    def __init__(
        self,
        sock: socket.socket,
        guests: Guests,
        make: Callable[[], asyncio.BaseProtocol],
        *,
        packed: Callable[[str], bytes],
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._sock, self._guests, self._make, self._packed, self._context = sock, guests, make, packed, context
        self._again: asyncio.TimerHandle | None = None

    def open(self) -> None:
        """Begin to listen. Raises OSError."""
        self._sock.listen(BACKLOG)
        self._listen()

    def close(self) -> None:
        """Listen no more; what is connected stays."""
        if self._again is not None:
            self._again.cancel()
        asyncio.get_running_loop().remove_reader(self._sock.fileno())
        self._sock.close()

    def _listen(self) -> None:
        asyncio.get_running_loop().add_reader(self._sock.fileno(), self._accept)

    def _accept(self) -> None:
        for _ in range(ACCEPTED_MAX):
            try:
                sock, address = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:  # no descriptor or no memory is left: those who wait stay in the kernel's queue for a while
                loop = asyncio.get_running_loop()
                loop.remove_reader(self._sock.fileno())
                self._again = loop.call_later(AGAIN_S, self._listen)
                return
            self._receive(sock, address[0])

    def _receive(self, sock: socket.socket, said: str) -> None:
        source = self._packed(said)
        if not self._guests.admit(source, said):
            sock.close()
            return
        sock.setblocking(False)
        guest = Guest(self._make, lambda: self._guests.leave(source))

        def ended() -> bool:
            if not guest.has_entered:
                sock.close()
                guest.leave()
            return guest.has_entered

        self._guests.begin(self._enter(sock, guest), is_handshake=self._context is not None, ended=ended)

    async def _enter(self, sock: socket.socket, guest: Guest) -> None:
        handshake_s = float(self._guests.limits.handshake_s) if self._context is not None else None
        with contextlib.suppress(OSError, EOFError):  # ssl.SSLError is an OSError
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: guest, sock, ssl=self._context, ssl_handshake_timeout=handshake_s
            )


class Guest(asyncio.Protocol):
    """One connection that was let in: everything goes to the protocol inside, and its end is counted.

    Args:
        make: makes the protocol inside, once a handshake is over.
        left: called once, at the end.
    """

    def __init__(self, make: Callable[[], asyncio.BaseProtocol], left: Callable[[], None]) -> None:
        self._make, self._left = make, left
        self._inside: asyncio.Protocol | None = None
        self._is_counted = True

    @property
    def has_entered(self) -> bool:
        """Was its handshake completed?"""
        return self._inside is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._inside = self._make()  # type: ignore[assignment]
        assert self._inside is not None
        self._inside.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        assert self._inside is not None
        self._inside.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inside.eof_received() if self._inside is not None else None

    def pause_writing(self) -> None:
        if self._inside is not None:
            self._inside.pause_writing()

    def resume_writing(self) -> None:
        if self._inside is not None:
            self._inside.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._inside is not None:
            self._inside.connection_lost(exc)
        self.leave()

    def leave(self) -> None:
        """It has ended, or never got in."""
        if self._is_counted:
            self._is_counted = False
            self._left()
