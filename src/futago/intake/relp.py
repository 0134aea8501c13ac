"""RELP, the server's side: frames in, answers out, and which frames are repetitions. Pure protocol, no I/O.

A frame is `TXNR SP COMMAND SP LENGTH [SP DATA] LF`. A client keeps what was not acknowledged and, when its connection
broke, sends that again at the beginning of the next one, in the same order. We have recorded some of it already, so the
last frames of a connection that broke are remembered by sender: those that were not acknowledged, and those whose
acknowledgement may not have arrived. What a new connection begins with is compared with them, and what is there already
is acknowledged by its record instead of being recorded again. Source: the RELP specification that comes with librelp
(doc/relp.html) and librelp's relpsess.c.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from hashlib import blake2b
from typing import NamedTuple

from futago.intake.model import DATA_BYTES_MAX, Position
from futago.runtime.faults import RemoteProtocolFault

FRAME_BYTES_MAX = 1 << 20  # a longer one ends the connection
_NUMBER_DIGITS_MAX = 9
_COMMAND_CHARS_MAX = 32
_HEAD_BYTES_MAX = 2 * _NUMBER_DIGITS_MAX + _COMMAND_CHARS_MAX + 3
REPEATED_MAX = 512  # frames of one connection that are remembered; librelp's window is 128
UNDERWAY_NS = 2_000_000_000  # an acknowledgement may be lost with its connection for so long
CONNECTIONS_MAX = 2000  # broken connections that are remembered
OFFERS = b"relp_version=0\nrelp_software=futago\ncommands=syslog"


class RelpFrame(NamedTuple):
    """One frame; of `data` only the first DATA_BYTES_MAX if `is_cut`."""

    number: int
    command: bytes
    data: bytes
    is_cut: bool = False


class RelpFraming:
    """Cuts one connection's bytes into frames."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = b""

    def receive_data(self, data: bytes) -> list[RelpFrame]:
        """Take what came and return the frames that it completes.

        Raises:
            RemoteProtocolFault: not RELP; frames before that are lost, so the caller closes and the sender repeats.
        """
        buffer = self._buffer + data if self._buffer else data
        frames: list[RelpFrame] = []
        at = 0
        while at < len(buffer):
            if buffer[at] == 0x0A:  # some clients end a frame twice
                at += 1
                continue
            found = self._frame(buffer, at)
            if found is None:
                break
            frame, at = found
            frames.append(frame)
        self._buffer = buffer[at:]
        return frames

    @staticmethod
    def _frame(buffer: bytes, at: int) -> tuple[RelpFrame, int] | None:
        head = buffer[at : at + _HEAD_BYTES_MAX + 1]
        number, _, rest = head.partition(b" ")
        command, _, rest = rest.partition(b" ")
        end = next((i for i, byte in enumerate(rest) if byte in b" \n"), -1)
        if end < 0:
            is_possible = len(head) <= _HEAD_BYTES_MAX and (number.isdigit() or not number)
            if not is_possible:
                raise RemoteProtocolFault("not a RELP frame")
            return None
        length = rest[:end]
        if not (number.isdigit() and command.isalpha() and length.isdigit()) or len(length) > _NUMBER_DIGITS_MAX:
            raise RemoteProtocolFault("not a RELP frame")
        size = int(length)
        if size > FRAME_BYTES_MAX or len(number) > _NUMBER_DIGITS_MAX:
            raise RemoteProtocolFault(f"a RELP frame of {size} bytes")
        start = at + len(number) + len(command) + end + 2
        if buffer[start] == 0x20:
            start += 1
        if len(buffer) <= start + size:
            return None
        if buffer[start + size] != 0x0A:
            raise RemoteProtocolFault("a RELP frame that does not end where it says")
        data = buffer[start : start + min(size, DATA_BYTES_MAX)]
        return RelpFrame(int(number), command, data, size > DATA_BYTES_MAX), start + size + 1


def response(number: int, text: bytes = b"200 OK") -> bytes:
    """Return the answer to a frame."""
    return b"%d rsp %d %b\n" % (number, len(text), text) if text else b"%d rsp 0\n" % number


def opened(number: int) -> bytes:
    """Return the answer to `open`."""
    return response(number, b"200 OK\n" + OFFERS)


CLOSING = b"0 serverclose 0\n"


def identity(data: bytes) -> bytes:
    """Return what stands for a message's content."""
    return blake2b(data, digest_size=12).digest()


class Sent(NamedTuple):
    """A frame that was recorded, and where."""

    identity: bytes
    position: Position


class Memory:
    """The last frames of connections that broke, by sender's address."""

    def __init__(self) -> None:
        self._broken: OrderedDict[tuple[bytes, int], list[Sent]] = OrderedDict()
        self._number = 0

    def broke(self, source: bytes, frames: list[Sent]) -> None:
        """Remember what a connection ended with; in the order of its frames."""
        if not frames:
            return
        self._number += 1
        self._broken[source, self._number] = frames
        while len(self._broken) > CONNECTIONS_MAX:
            self._broken.popitem(last=False)

    def begins_with(self, source: bytes, first: bytes) -> list[Sent]:
        """Return, and forget, the remembered frames from the one with the identity `first` on; empty if a new connection
        does not begin with a repetition.
        """
        for key in [key for key in self._broken if key[0] == source]:
            frames = self._broken[key]
            at = next((i for i, sent in enumerate(frames) if sent.identity == first), -1)
            if at >= 0:
                del self._broken[key]
                return frames[at:]
        return []


class Repetitions:
    """What one connection may still repeat, and what its successor may. `place` is called for each message, in order.

    Args:
        memory: shared by all connections.
        source: the sender.
    """

    def __init__(self, memory: Memory, source: bytes) -> None:
        self._memory = memory
        self._source = source
        self._expected: deque[Sent] | None = None  # None: nothing came yet
        self._unacknowledged: deque[Sent] = deque()
        self._acknowledged: deque[tuple[int, Sent]] = deque(maxlen=REPEATED_MAX)

    def place(self, data: bytes) -> tuple[bytes, Position | None]:
        """Return a message's identity, and where its record is if it is a repetition."""
        this = identity(data)
        if self._expected is None:
            self._expected = deque(self._memory.begins_with(self._source, this))
        if self._expected:
            if self._expected[0].identity == this:
                return this, self._expected.popleft().position
            self._expected.clear()
        return this, None

    def recorded(self, sent: Sent) -> None:
        """Note where a message's record is."""
        self._unacknowledged.append(sent)

    def acknowledged(self, count: int, now_ns: int) -> None:
        """Note that so many more messages were acknowledged."""
        for _ in range(count):
            self._acknowledged.append((now_ns, self._unacknowledged.popleft()))

    def broke(self, now_ns: int, *, is_unheard: bool = False) -> None:
        """The connection ended without a goodbye; `is_unheard`: acknowledgements are known not to have arrived."""
        since_ns = 0 if is_unheard else now_ns - UNDERWAY_NS
        doubtful = [sent for at_ns, sent in self._acknowledged if at_ns >= since_ns]
        self._memory.broke(self._source, [*doubtful, *self._unacknowledged, *(self._expected or ())])
