"""Syslog frames on a TCP stream (RFC 6587): octet counting and lines, also mixed on one connection. Pure
protocol, no I/O.

A frame that begins with digits, a space and `<` is counted; anything else goes to the next LF. The `<` matters:
many senders write lines that begin with a date. Longer frames than DATA_BYTES_MAX are cut: their beginning is
kept and flagged, the rest is skipped, and the stream goes on. No input raises, and never more than one frame
and a head is held.
"""

from __future__ import annotations

from typing import NamedTuple

from futago.intake.model import DATA_BYTES_MAX

_COUNT_DIGITS_MAX = 7  # 9,999,999 bytes: a longer count is not a count but text
_DIGITS = b"0123456789"


class Frame(NamedTuple):
    """One frame; `is_cut` if it was longer than the bound."""

    data: bytes
    is_cut: bool = False


class SyslogFraming:
    """Cuts one connection's bytes into frames.

    Args:
        frame_bytes_max: longer frames are cut to this.
    """

    __slots__ = ("_buffer", "_is_line_skipped", "_max", "_skip")

    def __init__(self, *, frame_bytes_max: int = DATA_BYTES_MAX) -> None:
        self._max = frame_bytes_max
        self._buffer = b""
        self._skip = 0  # bytes of a counted frame still to be passed over
        self._is_line_skipped = False  # passing over the rest of a line that was too long

    @property
    def is_unfinished(self) -> bool:
        """Has a frame begun that has not ended, or is the rest of a long one being passed over?"""
        return bool(self._buffer) or bool(self._skip) or self._is_line_skipped

    @property
    def pending_bytes(self) -> int:
        """Bytes of an unfinished frame."""
        return len(self._buffer)

    def receive_data(self, data: bytes) -> list[Frame]:
        """Take what came and return the frames it completes, without their framing; empty lines are passed over."""
        buffer = self._buffer + data if self._buffer else data
        frames: list[Frame] = []
        start = 0
        while start < len(buffer):
            passed = self._pass_over(buffer, start)
            if passed != start:
                start = passed
                continue
            end = self._frame(buffer, start, frames)
            if end == start:
                break
            start = end
        self._buffer = buffer[start:]
        return frames

    def receive_end(self) -> Frame | None:
        """Take the orderly end of the stream: an unfinished line is a frame, an unfinished counted frame is not."""
        buffer, self._buffer = self._buffer, b""
        if not buffer or self._count(buffer, 0) is not None:
            return None
        return Frame(buffer)

    def _pass_over(self, buffer: bytes, start: int) -> int:
        if self._skip:
            passed = min(self._skip, len(buffer) - start)
            self._skip -= passed
            return start + passed
        if self._is_line_skipped:
            end = buffer.find(b"\n", start)
            if end < 0:
                return len(buffer)
            self._is_line_skipped = False
            return end + 1
        return start

    def _frame(self, buffer: bytes, start: int, frames: list[Frame]) -> int:
        """Append the frame at `start`, if it is complete; return where the next begins."""
        if buffer[start] in _DIGITS:
            counted = self._count(buffer, start)
            if counted is not None:
                return self._counted(buffer, start, counted, frames)
            if self._may_be_count(buffer, start):
                return start
        end = buffer.find(b"\n", start)
        if end < 0:
            if len(buffer) - start <= self._max:
                return start
            frames.append(Frame(buffer[start : start + self._max], True))
            self._is_line_skipped = True
            return len(buffer)
        if end > start:
            line = buffer[start:end]
            frames.append(Frame(line) if len(line) <= self._max else Frame(line[: self._max], True))
        return end + 1

    def _counted(self, buffer: bytes, start: int, counted: tuple[int, int], frames: list[Frame]) -> int:
        size, begin = counted
        kept = min(size, self._max)
        if len(buffer) - begin < kept:
            return start
        frames.append(Frame(buffer[begin : begin + kept], kept < size))
        self._skip = size - kept
        return begin + kept

    @staticmethod
    def _count(buffer: bytes, start: int) -> tuple[int, int] | None:
        """Return (size, where the message begins) if a counted frame begins at `start` and is known to be one."""
        space = buffer.find(b" ", start, start + _COUNT_DIGITS_MAX + 1)
        if space <= start or buffer[space + 1 : space + 2] != b"<":
            return None
        digits = buffer[start:space]
        if not digits.isdigit() or digits[:1] == b"0":
            return None
        return int(digits), space + 1

    @staticmethod
    def _may_be_count(buffer: bytes, start: int) -> bool:
        """Return whether what is there so far could still become the head of a counted frame."""
        head = buffer[start : start + _COUNT_DIGITS_MAX + 1]
        if head[:1] == b"0" or len(buffer) - start > len(head):
            return False
        return head.isdigit() or (head.endswith(b" ") and head[:-1].isdigit())
