"""Custom traps: what the API takes by HTTP, recorded here and acknowledged when both disks have it.

The web program checks who sends and hands the trap over as one text with its account and key inside (`Trap`). A key that
was taken before is not recorded again: it is remembered with the place of its record, also those in the copy of the
other's journal and, after a restart, those in the end of the own. Light: the receiver loads it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from hashlib import blake2b
from typing import NamedTuple

import msgspec

from futago.intake.informs import Place
from futago.intake.listen import Addresses
from futago.intake.model import DATA_BYTES_MAX, Position, Protocol, Record
from futago.intake.own import OwnJournal
from futago.runtime.unreadable import UNREADABLE

REMEMBERED_MAX = 50_000
WAITING_MAX = 2_000
ACKNOWLEDGED_S_MAX = 8.0


class Trap(msgspec.Struct, frozen=True):
    """A custom trap as it stands in a journal, in JSON. `key`: drawn by the client, or for it."""

    account: str
    key: str
    message: str
    host: str = ""
    fields: dict[str, str] = {}

    @property
    def text(self) -> str:
        """Return the line that patterns see."""
        return " ".join([self.message, *(f"{name}={value}" for name, value in self.fields.items())])


class Taken(msgspec.Struct, frozen=True):
    """What became of a trap: one of the outcomes below."""

    outcome: str


RECORDED, REPEATED, CONFLICT, BUSY, UNKNOWN, INVALID = (
    *("recorded", "repeated", "conflict", "busy", "unknown", "invalid"),
)

_decode = msgspec.json.Decoder(Trap).decode


def read(data: bytes) -> Trap | None:
    """Return the trap in a record; None if it is none, or holds NUL, which no database takes."""
    try:
        trap = _decode(data)
    except UNREADABLE:
        return None
    return None if any("\0" in text for text in (trap.text, trap.host, trap.account)) else trap


class _Known(NamedTuple):
    place: Place
    fingerprint: bytes


def _key(trap: Trap) -> bytes:
    return blake2b(f"{trap.account}\0{trap.key}".encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _fingerprint(data: bytes) -> bytes:
    return blake2b(data, digest_size=16).digest()


class CustomTrapDesk:
    """Takes custom traps into the journal.

    Args:
        journal: the own journal.
        has_copy: whether the copy of the other's journal has a position durably.
        durable: returns our sequence up to which everything is where it must be before it is acknowledged.
    """

    def __init__(
        self,
        *,
        journal: OwnJournal,
        addresses: Addresses,
        has_copy: Callable[[Position], bool],
        durable: Callable[[], int],
    ) -> None:
        self._journal = journal
        self._addresses = addresses
        self._has_copy = has_copy
        self._durable = durable
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self.recorded = 0
        self.repeated = 0

    async def take(self, data: bytes, source: str) -> Taken:
        """Record a trap, or find its record, and wait until it is safe.

        Args:
            data: a Trap in JSON, the same for the same trap.
            source: address of the client.
        """
        trap = read(data)
        if trap is None or len(data) > DATA_BYTES_MAX:
            return Taken(INVALID)
        key, fingerprint = _key(trap), _fingerprint(data)
        known = self._known.get(key)
        if known is not None and known.fingerprint != fingerprint:
            return Taken(CONFLICT)
        if len(self._waiting) >= WAITING_MAX or (known is None and self._journal.is_congested):
            return Taken(BUSY)
        if known is not None and not known.place.is_own:
            return Taken(REPEATED if self._has_copy(known.place.position) else BUSY)
        position = known.place.position if known is not None else self._record(key, data, source)
        is_of_now = position.incarnation == self._journal.incarnation.id
        # A record of an earlier life is on the other disk before any of this life is.
        is_safe = await self._safe(position.sequence if is_of_now else 1)
        if not is_safe:
            return Taken(UNKNOWN)
        if known is not None:
            self.repeated += 1
        return Taken(RECORDED if known is None else REPEATED)

    def _record(self, key: bytes, data: bytes, source: str) -> Position:
        journal = self._journal
        self.recorded += 1
        journal.add(
            data,
            protocol=Protocol.CUSTOM_TRAP,
            source=self._addresses.packed(source),
            port=0,
            time_ns=journal.clock.now_ns(),
        )
        position = Position(journal.incarnation.id, journal.sequence)
        journal.hand()
        self._remember(key, _Known(Place(True, position), _fingerprint(data)))
        return position

    async def _safe(self, sequence: int) -> bool:
        if self._durable() >= sequence:
            return True
        safe: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((sequence, safe))
        try:
            async with asyncio.timeout(ACKNOWLEDGED_S_MAX):
                await safe
        except TimeoutError:
            return False
        return True

    def release(self) -> None:
        """Acknowledge what has become safe."""
        if not self._waiting:
            return
        durable = self._durable()
        kept: deque[tuple[int, asyncio.Future[None]]] = deque()
        for sequence, safe in self._waiting:
            if safe.done():  # its client has gone, or was told that nothing is known
                continue
            if sequence <= durable:
                safe.set_result(None)
            else:
                kept.append((sequence, safe))
        self._waiting = kept

    def note(self, records: list[Record], *, incarnation: str, is_own: bool) -> None:
        """Remember the traps among records of a journal."""
        for record in records:
            if record.protocol == Protocol.CUSTOM_TRAP and (trap := read(record.data)) is not None:
                place = Place(is_own, Position(incarnation, record.sequence))
                self._remember(_key(trap), _Known(place, _fingerprint(record.data)))

    def _remember(self, key: bytes, known: _Known) -> None:
        if key not in self._known:
            while len(self._known) >= REMEMBERED_MAX:
                self._known.popitem(last=False)
            self._known[key] = known
