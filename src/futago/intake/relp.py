"""RELP, the server's side: frames in, answers out, and which frames are repetitions. Pure protocol, no I/O.

A frame is `TXNR SP COMMAND SP LENGTH [SP DATA] LF`. A client keeps what was not acknowledged and, when its connection
broke, sends that again at the beginning of the next one, in the same order. We have recorded some of it already, so the
last frames of a connection that broke are remembered by sender: those that were not acknowledged, and those whose
acknowledgement may not have arrived. What a new connection begins with is compared with them, and what is there already
is acknowledged by its record instead of being recorded again. Source: the RELP specification that comes with librelp
(doc/relp.html) and librelp's relpsess.c.
"""

from __future__ import annotations

from collections import deque
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
FRAMES_MAX = 100_000  # remembered frames of all of them, some 25 MB ...
SOURCE_FRAMES_MAX = 20_000  # ... of which one sender may have so many
REMEMBERED_NS = 24 * 3600 * 1_000_000_000  # a client that comes back later has begun anew
OFFERS = b"relp_version=0\nrelp_software=futago\ncommands=syslog"


class RelpFrame(NamedTuple):
    """One frame; of `data` only the first DATA_BYTES_MAX if `is_cut`."""

    number: int
    command: bytes
    data: bytes
    is_cut: bool = False


class RelpFraming:
    """Cuts one connection's bytes into frames. Of an unfinished frame never more than DATA_BYTES_MAX and a head is held:
    what a cut one has beyond that is passed over as it comes.
    """

    __slots__ = ("_buffer", "_cut", "_needed", "_skip")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._needed = 0  # bytes without which the first frame in the buffer is not whole
        self._cut: RelpFrame | None = None  # one whose rest is being passed over
        self._skip = 0  # bytes of that rest, the LF at its end included

    @property
    def pending_bytes(self) -> int:
        """Bytes that an unfinished frame holds."""
        return len(self._buffer) + (len(self._cut.data) if self._cut is not None else 0)

    @property
    def is_unfinished(self) -> bool:
        """Has a frame begun that has not ended?"""
        return bool(self._buffer) or self._cut is not None

    def receive_data(self, data: bytes) -> list[RelpFrame]:
        """Take what came and return the frames that it completes.

        Raises:
            RemoteProtocolFault: not RELP; frames before that are lost, so the caller closes and the sender repeats.
        """
        frames: list[RelpFrame] = []
        if self._cut is not None:
            data = self._passed_over(data, frames)
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < self._needed:
                return frames  # looking at it again with each byte that comes would cost the square of its length
            data = bytes(self._buffer)
            self._buffer.clear()
        at = 0
        while at < len(data):
            if data[at] == 0x0A:  # some clients end a frame twice
                at += 1
                continue
            frame, end = self._frame(data, at)
            if end == at:
                self._buffer += data[at:]
                break
            if frame is not None:
                frames.append(frame)
            at = end
        return frames

    def _passed_over(self, data: bytes, frames: list[RelpFrame]) -> bytes:
        """Pass over the rest of a frame that was too long; return what comes behind it."""
        assert self._cut is not None
        if len(data) < self._skip:
            self._skip -= len(data)
            return b""
        if data[self._skip - 1] != 0x0A:
            raise RemoteProtocolFault("a RELP frame that does not end where it says")
        frames.append(self._cut)
        self._cut = None
        return data[self._skip :]

    def _frame(self, buffer: bytes, at: int) -> tuple[RelpFrame | None, int]:
        """Return the frame at `at`, and where the next begins; `at` itself if it is not whole."""
        self._needed = 0
        head = buffer[at : at + _HEAD_BYTES_MAX + 1]
        number, _, rest = head.partition(b" ")
        command, _, rest = rest.partition(b" ")
        end = next((i for i, byte in enumerate(rest) if byte in b" \n"), -1)
        if end < 0:
            is_possible = len(head) <= _HEAD_BYTES_MAX and (number.isdigit() or not number)
            if not is_possible:
                raise RemoteProtocolFault("not a RELP frame")
            return None, at
        length = rest[:end]
        if not (number.isdigit() and command.isalpha() and length.isdigit()) or len(length) > _NUMBER_DIGITS_MAX:
            raise RemoteProtocolFault("not a RELP frame")
        size = int(length)
        if size > FRAME_BYTES_MAX or len(number) > _NUMBER_DIGITS_MAX:
            raise RemoteProtocolFault(f"a RELP frame of {size} bytes")
        start = at + len(number) + len(command) + end + 2
        if buffer[start] == 0x20:
            start += 1
        return self._whole(buffer, at, start, size, RelpFrame(int(number), command, b"", size > DATA_BYTES_MAX))

    def _whole(self, buffer: bytes, at: int, start: int, size: int, frame: RelpFrame) -> tuple[RelpFrame | None, int]:
        end = start + size
        if len(buffer) > end:
            if buffer[end] != 0x0A:
                raise RemoteProtocolFault("a RELP frame that does not end where it says")
            return frame._replace(data=buffer[start : min(end, start + DATA_BYTES_MAX)]), end + 1
        if frame.is_cut and len(buffer) - start >= DATA_BYTES_MAX:
            self._cut = frame._replace(data=buffer[start : start + DATA_BYTES_MAX])
            self._skip = end + 1 - len(buffer)
            return None, len(buffer)
        self._needed = start + DATA_BYTES_MAX - at if frame.is_cut else end + 1 - at
        return None, at


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


class _Broken(NamedTuple):
    at_ns: int
    frames: list[Sent]


class Memory:
    """The last frames of connections that broke, by sender's address. Bounded in connections, frames and age; a sender
    that breaks thousands of connections makes its own be forgotten, not those of others.
    """

    def __init__(self) -> None:
        self._broken: dict[bytes, deque[_Broken]] = {}  # senders in the order in which they broke last
        self.connections = 0
        self.frames = 0

    def broke(self, source: bytes, frames: list[Sent], at_ns: int) -> None:
        """Remember what a connection ended with; in the order of its frames."""
        if not frames:
            return
        own = self._broken.pop(source, None) or deque()
        self._broken[source] = own
        own.append(_Broken(at_ns, frames))
        self.connections += 1
        self.frames += len(frames)
        while len(own) > 1 and self._frames_of(source) > SOURCE_FRAMES_MAX:
            self._forget_oldest_of(source)
        while self.connections > CONNECTIONS_MAX:
            self._forget_oldest_of(max(self._broken, key=lambda one: len(self._broken[one])))
        while self.frames > FRAMES_MAX:
            self._forget_oldest_of(max(self._broken, key=self._frames_of))

    def _frames_of(self, source: bytes) -> int:
        return sum(len(one.frames) for one in self._broken[source])

    def forget_older(self, now_ns: int) -> None:
        """Forget what has become too old."""
        for source in list(self._broken):
            while source in self._broken and self._broken[source][0].at_ns < now_ns - REMEMBERED_NS:
                self._forget_oldest_of(source)

    def _forget_oldest_of(self, source: bytes) -> None:
        own = self._broken[source]
        self._gone(own.popleft())
        if not own:
            del self._broken[source]

    def _gone(self, one: _Broken) -> None:
        self.connections -= 1
        self.frames -= len(one.frames)

    def begins_with(self, source: bytes, first: bytes) -> list[Sent]:
        """Return, and forget, the remembered frames from the one with the identity `first` on; empty if a new connection
        does not begin with a repetition.
        """
        own = self._broken.get(source, ())
        for one in own:
            at = next((i for i, sent in enumerate(one.frames) if sent.identity == first), -1)
            if at >= 0:
                assert isinstance(own, deque)
                own.remove(one)
                self._gone(one)
                if not own:
                    del self._broken[source]
                return one.frames[at:]
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
        self._memory.broke(self._source, [*doubtful, *self._unacknowledged, *(self._expected or ())], now_ns)
