"""A register in one cell of somebody else's store that can compare and set: what is written there, and what a member
makes of what it finds. Pure.

The store (etcd, an object store) gives every content of the cell a *mark* that is never used twice; a write names the
mark over which it may be stored. From that follows what the port promises: whoever has seen the mark move knows that no
write that named an earlier one can arrive any more.

A record carries the seat that was drawn when the register was seated: a cell that was emptied, or seated by others, is
not ours. Its serial grows with every write: a cell whose serial went back was restored from a copy.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import msgspec

from futago.register.ballot import may_store
from futago.register.model import Value
from futago.register.port import LOST, OLD_ROSTER, WENT_BACK
from futago.runtime.unreadable import UNREADABLE

STRANGE = "holds something that no register wrote"


class Record(msgspec.Struct, frozen=True):
    """The content of the cell. `nonce` is drawn for every write, so that no two contents are alike."""

    pair_id: str
    seat: str
    serial: int
    writer: str
    nonce: str
    value: Value


@dataclass(frozen=True, slots=True)
class Found:
    """What a read of the cell found. `record` None: the cell is empty, or holds what is not ours to read."""

    mark: str
    record: Record | None
    is_strange: bool = False


class Verdict(Enum):
    """What a put does with what it found."""

    STORE = "store"  # write our value over it
    TOUCH = "touch"  # write down anew what is held: the put is refused, and earlier ones become void
    REFUSE = "refuse"  # do not write: this register is not ours


@dataclass(frozen=True, slots=True)
class Seat:
    """Under what a member uses the cell: drawn at the seating, kept in the settings."""

    pair_id: str
    id: str
    version: int


def fault_of(found: Found, seat: Seat, *, serial_seen: int) -> str:
    """Return why this member must not use what it found; empty if it may."""
    record = found.record
    if found.is_strange:
        return STRANGE
    if record is None:
        return f"{LOST}: it is empty; seat it anew (futago vote set)"
    wrongs = (
        (record.pair_id != seat.pair_id, "belongs to another pair"),
        (record.value.roster > seat.version, _newer(record)),
        (record.seat != seat.id, "was seated anew by somebody else"),
        (record.serial < serial_seen, f"{WENT_BACK}: it was restored from an old copy; seat it anew (futago vote set)"),
    )
    return next((why for is_wrong, why in wrongs if is_wrong), "")


def _newer(record: Record) -> str:
    return f"{OLD_ROSTER}: a newer third vote was seated (version {record.value.roster})"


def judge(found: Found, value: Value, seat: Seat, *, serial_seen: int) -> tuple[Verdict, str]:
    """Return what a put of `value` does, and why it is refused."""
    why = fault_of(found, seat, serial_seen=serial_seen)
    if why:
        return Verdict.REFUSE, why
    assert found.record is not None
    held = found.record.value
    return (Verdict.STORE if held == value or may_store(held, value) else Verdict.TOUCH), ""


def judge_seating(found: Found, value: Value, seat: Seat) -> tuple[Verdict, str]:
    """Return what the seating does: it takes an empty cell, and one of our pair with a lower version and no newer view."""
    record = found.record
    if found.is_strange:
        return Verdict.REFUSE, STRANGE
    if record is None:
        return Verdict.STORE, ""
    if record.pair_id != seat.pair_id:
        return Verdict.REFUSE, "belongs to another pair"
    if record.seat == seat.id and record.value == value:
        return Verdict.STORE, ""
    if record.value.roster > seat.version:
        return Verdict.REFUSE, _newer(record)
    return (Verdict.STORE, "") if record.value.epoch <= value.epoch else (Verdict.TOUCH, "")


def encode(record: Record) -> bytes:
    """Return what is written into the cell."""
    return msgspec.json.encode(record)


def decode(mark: str, body: bytes | None) -> Found:
    """Return what was found in the cell; `body` None: it is empty."""
    if body is None:
        return Found(mark, None)
    try:
        return Found(mark, msgspec.json.decode(body, type=Record))
    except UNREADABLE:
        return Found(mark, None, is_strange=True)
