"""INFORMs: what their senders are answered, and when. Pure.

An INFORM is answered after both members have it on their disks (alone: after this one has), and its sender repeats it
until then. So that a repetition is not a second message, each one that was taken is remembered by what identifies it
(sender's address and port, request, content), also those that the other member has taken: their records pass through
here, too.
"""

from __future__ import annotations

from collections import OrderedDict
from hashlib import blake2b
from typing import Generic, NamedTuple, TypeVar

from futago.intake import snmp
from futago.intake.ber import INTEGER, SEQUENCE, STRING, expect, integer
from futago.intake.model import Position, Record
from futago.intake.snmp import INFORM, VERSION_2C, VERSION_3, Opened
from futago.runtime.faults import Corrupt

REMEMBERED_MAX = 50_000
WAITING_MAX = 10_000  # beyond it INFORMs are taken and not answered: their senders repeat them
WAITING_BYTES_MAX = 16 << 20  # of their answers, likewise

Key = bytes
To = TypeVar("To")


class Place(NamedTuple):
    """Where the record of an INFORM is: `is_own` in our journal, else in the copy of the other's."""

    is_own: bool
    position: Position


class Waiting(NamedTuple, Generic[To]):
    """An answer that waits until our record `sequence` is on both disks. `to` is whatever the socket needs."""

    sequence: int
    reply: bytes
    to: To


def answered_inform(data: bytes) -> tuple[Opened, bytes] | None:
    """Return the INFORM in a v2c datagram and the answer to it; None if it is something else, or cannot be read."""
    try:
        opened = snmp.open_plain(data)
        if opened.version != VERSION_2C or opened.tag != INFORM:
            return None
        return opened, snmp.response(opened)
    except Corrupt:
        return None


def wants_answer_v3(data: bytes) -> bool:
    """Return whether a datagram is a v3 message whose sender wants an answer: an INFORM, or the question for our engine
    id that comes before it; some devices say so of traps, too. What security says of it is not looked at here.
    """
    try:
        at, end = _head_v3(data)
        _, at = expect(data, at, end, INTEGER)
        _, at = expect(data, at, end, INTEGER)
        start, at = expect(data, at, end, STRING)
    except Corrupt:
        return False
    return at - start == 1 and bool(data[start] & 4)


def engine_named(data: bytes) -> bytes:
    """Return the engine id that a v3 message names; empty if none, or if it cannot be read."""
    try:
        _, at = _head_v3(data)
        start, stop = expect(data, at, len(data), STRING)
        start, stop = expect(data, start, stop, SEQUENCE)
        start, stop = expect(data, start, stop, STRING)
    except Corrupt:
        return b""
    return data[start:stop]


def _head_v3(data: bytes) -> tuple[int, int]:
    """Return the bounds of a v3 message's header. Raises Corrupt: of another version."""
    at, end = expect(data, 0, len(data), SEQUENCE)
    start, at = expect(data, at, end, INTEGER)
    if integer(data, start, at) != VERSION_3:
        raise Corrupt("SNMP: not version 3")
    return expect(data, at, end, SEQUENCE)


def key_of(source: bytes, port: int, identity: bytes) -> Key:
    """Return what a repetition has in common with the first. `identity`: of v2c the datagram, of v3 what is protected."""
    return blake2b(source + port.to_bytes(2, "big") + identity, digest_size=16).digest()


class Informs(Generic[To]):
    """The INFORMs that were taken, and the answers that wait."""

    def __init__(self) -> None:
        self._known: OrderedDict[Key, Place] = OrderedDict()
        self._waiting: dict[Key, Waiting[To]] = {}
        self.waiting_bytes = 0

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def place(self, key: Key) -> Place | None:
        """Return where the record of this INFORM is, if it was taken before."""
        return self._known.get(key)

    def note(self, key: Key, place: Place) -> None:
        """Remember that an INFORM was taken; the first place stays."""
        if key not in self._known:
            if len(self._known) >= REMEMBERED_MAX:
                self._known.popitem(last=False)
            self._known[key] = place

    def wait(self, key: Key, sequence: int, reply: bytes, to: To) -> bool:
        """Let an answer wait for our record, in place of one to an earlier repetition; return whether there was room."""
        before = self._waiting.get(key)
        more = len(reply) - (len(before.reply) if before is not None else 0)
        if (before is None and len(self._waiting) >= WAITING_MAX) or self.waiting_bytes + more > WAITING_BYTES_MAX:
            return False
        self._waiting[key] = Waiting(sequence, reply, to)
        self.waiting_bytes += more
        return True

    def due(self, durable: int) -> list[Waiting[To]]:
        """Return the answers whose records are durable, and forget them."""
        due = [key for key, one in self._waiting.items() if one.sequence <= durable]
        found = [self._waiting.pop(key) for key in due]
        self.waiting_bytes -= sum(len(one.reply) for one in found)
        return found


def v2_key(record: Record) -> Key | None:
    """Return the key of a journal's record if it is a v2c INFORM."""
    if answered_inform(record.data) is None:
        return None
    return key_of(record.source, record.port, record.data)
