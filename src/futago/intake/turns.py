"""Whether the receiver's loop turns, and which sockets may still hold messages that came long ago.

A loop that was stopped (a frozen machine) or does not read (a full disk) finds messages in the kernel that came at any time
since. For datagrams the kernel says when each came. For a connection it does not: its bytes are one stream. So a frame says
how long it may have waited at most, until the connection has been read to its end.

The same holds of a network that was dead: what was written into a connection meanwhile waits in the sender's kernel, which
tries again ever more rarely, so it comes up to as long after the end of the cut as the cut lasted (RFC 6298, 5.5). And of
the path of one sender alone, which only the kernel's questions to it show (silences.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from futago.intake import silences
from futago.intake.model import waited_flags
from futago.intake.silences import REPEAT_NS_MAX, SETTLE_NS, Connection, Silences
from futago.runtime.clock import S

if TYPE_CHECKING:
    from futago.intake.listen import Counters, UdpPort

STALL_NS = 1 * S  # a loop that did not turn for so long was stopped


class Turns:
    """Watches the loop: when it last turned, and whether it was stopped or read nothing meanwhile.

    Args:
        counters: counts stops.
        ports: the datagram sockets.
        opened: gives the connections there are.
        unheard_ns: tells for how long nothing was heard of one.
    """

    __slots__ = (
        "_cut_since_ns",
        "_held",
        "_opened",
        "_ports",
        "_read_since_ns",
        "_repeated_by_ns",
        "_silences",
        "at_ns",
        "counters",
        "stalled_ports",
        "stalled_since_ns",
    )

    def __init__(
        self,
        counters: Counters,
        ports: Sequence[UdpPort] = (),
        opened: Callable[[], Iterable[Connection]] = tuple,
        *,
        unheard_ns: Callable[[Connection], int | None] = silences.unheard_ns,
    ) -> None:
        self.counters = counters
        self.at_ns = 0
        self.stalled_since_ns = 0
        self.stalled_ports: set[UdpPort] = set()
        self._ports = ports
        self._opened = opened
        self._silences = Silences(opened, unheard_ns)
        self._held: dict[Connection, int] = {}  # since when each was not read to its end
        self._read_since_ns: int | None = 0  # None: nothing is read
        self._cut_since_ns: int | None = None  # nothing reaches us
        self._repeated_by_ns = 0  # until then what was sent during a cut may come

    def turn(self, now_ns: int) -> None:
        """Note that the loop turns. To be called about ten times a second and before each reading."""
        if self.at_ns and now_ns - self.at_ns > STALL_NS:
            self.counters.stalls += 1
            self._note_held(self.at_ns)
            if self._read_since_ns is not None:
                self._read_since_ns = now_ns
        self.at_ns = now_ns

    def hold(self, now_ns: int) -> None:
        """Note that nothing is read from now on."""
        self._read_since_ns = None
        self._note_held(now_ns)

    def flow(self, now_ns: int) -> None:
        """Note that everything is read again."""
        self._read_since_ns = now_ns

    def reach(self, now_ns: int, *, is_cut: bool) -> None:
        """Note whether senders reach us at all, as far as is known. To be called in each turn."""
        if is_cut and self._cut_since_ns is None:
            self._cut_since_ns = now_ns
            self._note_connections(now_ns)
        elif not is_cut and self._cut_since_ns is not None:
            length_ns, self._cut_since_ns = now_ns - self._cut_since_ns, None
            self._repeated_by_ns = now_ns + min(length_ns, REPEAT_NS_MAX) + SETTLE_NS

    def _note_held(self, since_ns: int) -> None:
        self._note_connections(since_ns)
        self.stalled_ports.update(self._ports)

    def _note_connections(self, since_ns: int) -> None:
        if not self._held and not self.stalled_ports:
            self.stalled_since_ns = since_ns
        for one in self._opened():
            self._held.setdefault(one, since_ns)

    def meet(self, connection: Connection, now_ns: int) -> None:
        """Note a new connection: while nothing was accepted, it may have stood in the kernel's queue."""
        if self._is_settling(now_ns):
            self._held[connection] = self.stalled_since_ns
        self._silences.meet(connection, now_ns)

    def forget(self, connection: Connection) -> None:
        """Note that a connection has ended."""
        self._held.pop(connection, None)
        self._silences.forget(connection)

    def settle(self, now_ns: int) -> None:
        """Find the connections that are silent, and those that have been read to their ends again. To be called in each
        turn.
        """
        self._silences.look(now_ns)
        if self._held and not self._is_settling(now_ns):
            for one in [c for c in self._held if not silences.waiting_bytes(c)]:
                del self._held[one]

    def _is_settling(self, now_ns: int) -> bool:
        """Is nothing read, does nothing come, or has a sender that waited perhaps not gone on yet?"""
        if self._read_since_ns is None or self._cut_since_ns is not None:
            return True
        return now_ns - self._read_since_ns < SETTLE_NS or now_ns < self._repeated_by_ns

    def flags(self, connection: Connection, now_ns: int) -> int:
        """Return what the record of a frame says of how long it may have waited to be read."""
        since = [at for at in (self._held.get(connection), self._silences.since_ns(connection)) if at is not None]
        return waited_flags(now_ns - min(since)) if since else 0

    @property
    def open_since_ns(self) -> int | None:
        """Since when messages may be waiting here; None if all sockets were read to their ends since."""
        return self.stalled_since_ns if self.stalled_ports or self._held else None

    @property
    def unheard_since_ns(self) -> int | None:
        """Since when messages of single senders may be on their way; None: all can reach us."""
        return self._silences.oldest_ns
