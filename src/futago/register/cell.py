"""A register in one cell of a store that can compare and set: reading it, and putting into it until the outcome is sure.

Lives here: the order of reading and writing, deadlines, outcomes. Must not live here: what counts as newer (compare.py),
and how a store is spoken to (etcd.py, objectstore.py). The idea: a chess clock move. Look at the board, move on exactly
that board; if the board has changed meanwhile, look again; if the messenger was lost, look whether the move was made.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from typing import Protocol

from futago.register import compare
from futago.register.compare import Found, Record, Seat, Verdict
from futago.register.memory import Memory
from futago.register.model import Ballot, Value
from futago.register.port import Health
from futago.runtime.clock import S, now_at
from futago.runtime.faults import Refused, Unknown, WorldFault

PAUSE_S = 0.05  # between two tries of one put
WARM_S = 2.0
HEALTH_AGE_MAX = 5 * S


class Cell(Protocol):
    """One cell of a store. A mark is never used twice; the mark of the empty cell is the empty string."""

    async def get(self, *, deadline_s: float) -> tuple[str, bytes | None]:
        """Return the mark and the content (None: empty), as of an instant after the call began.

        Raises:
            Refused, Unknown: no answer, or one that says nothing.
        """

    async def swap(self, mark: str, content: bytes, *, deadline_s: float) -> bool:
        """Store the content if the cell's mark is still `mark`; return whether it was.

        Raises:
            Refused: it was certainly not stored. Unknown: it may have been, or may yet be.
        """

    def parts(self) -> Sequence[tuple[str, int | None, str]]:
        """Return (name, when it last answered, what is wrong) of every endpoint."""

    async def warm(self) -> None:
        """Ask those endpoints that were not asked lately; raises nothing."""

    def close(self) -> None:
        """Drop the connections."""


class CellRegister:
    """The register in one cell.

    Args:
        kind: etcd or objectstore.
        seat: whose cell it is, and under which version.
        me: this member, noted in what it writes.
        read_s, put_s: the longest that a read and a put may take.
    """

    def __init__(
        self, cell: Cell, *, kind: str, seat: Seat, me: str, memory: Memory, read_s: float, put_s: float
    ) -> None:
        self._cell, self._seat, self._me, self._memory = cell, seat, me, memory
        self._read_s, self._put_s = read_s, put_s
        self._kind = kind
        self._key = f"{kind}/{seat.id}@{seat.version}"
        self._put_lock = asyncio.Lock()  # a put begins only when the last has ended
        self._is_retired = False
        self._error = ""

    @property
    def kind(self) -> str:
        return self._kind

    @property
    def version(self) -> int:
        return self._seat.version

    async def run(self) -> None:
        """Keep the endpoints warm that the reads, once a second, do not reach."""
        try:
            while True:
                await self._cell.warm()
                await asyncio.sleep(WARM_S)
        finally:
            self._cell.close()

    async def read(self) -> Value | None:
        """Return what is held. Raises Refused."""
        found = await self._look(now_at() + int(self._read_s * S))
        self._require_in_use()
        why = compare.fault_of(found, self._seat, serial_seen=self._serial_seen(found))
        self._error = why
        if why:
            raise Refused(why)
        assert found.record is not None
        return found.record.value

    async def peek(self) -> Found:
        """Return what lies in the cell, whoever it belongs to. Raises Refused."""
        return await self._look(now_at() + int(self._read_s * S))

    async def put(self, value: Value) -> tuple[bool, Value | None]:
        """Store `value` if it is newer. See port.Register."""
        return await self._put(value, is_seating=False)

    async def seat(self, value: Value) -> tuple[bool, Value | None]:
        """Store `value` into a cell that is empty or was seated before. See port.Register."""
        return await self._put(value, is_seating=True)

    def close(self) -> None:
        """Drop the connections."""
        self._cell.close()

    def _require_in_use(self) -> None:
        if self._is_retired:
            raise Refused("this third vote is being replaced")

    def retire(self) -> bool:
        """Answer nothing more; return False if a put is under way."""
        self._is_retired = True
        return not self._put_lock.locked()

    def health(self, now: int) -> list[Health]:
        """Return how each endpoint fares."""
        rows = []
        for name, ok_at, wrong in self._cell.parts():
            error = wrong or self._error or ("" if ok_at is not None and now - ok_at <= HEALTH_AGE_MAX else "silent")
            rows.append(Health(name, not error, error))
        return rows

    def heard_at(self) -> int:
        """Return when any endpoint last answered."""
        return max((ok_at or 0 for _, ok_at, _ in self._cell.parts()), default=0)

    # --- reading and writing ----------------------------------------------------------------------------------------

    async def _look(self, end_at: int) -> Found:
        """Read the cell; again after a failure, as long as there is time. Raises Refused."""
        while True:
            try:
                return compare.decode(*await self._cell.get(deadline_s=_left(end_at)))
            except WorldFault as e:
                if _left(end_at) <= PAUSE_S:
                    raise Refused(str(e)) from e
                await asyncio.sleep(PAUSE_S)

    async def _put(self, value: Value, *, is_seating: bool) -> tuple[bool, Value | None]:
        async with self._put_lock:
            self._require_in_use()
            return await self._until_sure(value, now_at() + int(self._put_s * S), is_seating=is_seating)

    async def _until_sure(self, value: Value, end_at: int, *, is_seating: bool) -> tuple[bool, Value | None]:
        sent = False  # the answer to a write of ours was lost: from now on nothing can be said to be surely not stored
        doubtful = ""  # the mark that the last such write named
        why = ""
        while _left(end_at) > 0:
            try:
                found = await self._look(end_at)
            except Refused as e:
                why = str(e)
                break
            if sent and found.mark != doubtful and self._is_ours(found.record, value):
                return True, value  # an earlier try had arrived; somebody else may have written it down anew since
            verdict, why = self._judge(found, value, is_seating=is_seating)
            if verdict is Verdict.REFUSE:
                if sent:
                    break
                raise Refused(why)
            record = self._record(found, value if verdict is Verdict.STORE else None)
            try:
                if await self._cell.swap(found.mark, compare.encode(record), deadline_s=_left(end_at)):
                    self._memory.note(self._key, _rank(record))
                    return verdict is Verdict.STORE, record.value
            except Unknown as e:
                why = str(e)
                if verdict is Verdict.STORE:
                    sent, doubtful = True, found.mark
            except Refused as e:
                why = str(e)
                await asyncio.sleep(min(PAUSE_S, max(0.0, _left(end_at))))
        if sent:
            raise Unknown(why or "no answer in time")
        raise Refused(why or "no answer in time")

    def _is_ours(self, held: Record | None, value: Value) -> bool:
        return held is not None and (held.seat, held.value) == (self._seat.id, value)

    def _judge(self, found: Found, value: Value, *, is_seating: bool) -> tuple[Verdict, str]:
        if is_seating:
            return compare.judge_seating(found, value, self._seat)
        return compare.judge(found, value, self._seat, serial_seen=self._serial_seen(found))

    def _record(self, found: Found, value: Value | None) -> Record:
        held = found.record
        if value is None:
            assert held is not None
            value = held.value
            seat = held.seat
        else:
            seat = self._seat.id
        return Record(
            pair_id=self._seat.pair_id,
            seat=seat,
            serial=1 if held is None else held.serial + 1,
            writer=self._me,
            nonce=secrets.token_hex(12),
            value=value,
        )

    def _serial_seen(self, found: Found) -> int:
        """Return the highest serial that this cell has shown, this one included: more than its own if it went back."""
        record = found.record
        seen = self._memory.highest(self._key).counter
        if record is None or record.seat != self._seat.id:
            return seen
        if self._memory.note(self._key, _rank(record)):
            return record.serial
        return max(seen, record.serial + 1)


def _rank(record: Record) -> Ballot:
    return Ballot(counter=record.serial)


def _left(end_at: int) -> float:
    return max(0.0, (end_at - now_at()) / S)
