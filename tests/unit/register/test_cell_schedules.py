"""Two members put into one cell while its answers are lost and its writes come late: seeded schedules, every outcome held
against the history of the cell.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from dataclasses import dataclass, field

import pytest

from futago.register import cell as room
from futago.register.cell import CellRegister
from futago.register.compare import Record, Seat, decode, encode
from futago.register.memory import Memory
from futago.register.model import Value
from futago.runtime.clock import MS
from futago.runtime.faults import Refused, Unknown

SEAT = Seat("p", "s", 1)
PUTS = 12


@dataclass
class Store:
    """One cell with compare-and-set, and everything that was ever stored in it. Late writes wait in `late`."""

    chance: random.Random
    mark: int = 0
    content: bytes | None = None
    history: list[Record] = field(default_factory=list)
    late: list[tuple[str, bytes]] = field(default_factory=list)

    def apply(self, mark: str, content: bytes) -> bool:
        if mark != (str(self.mark) if self.content is not None else ""):
            return False
        self.mark += 1
        self.content = content
        record = decode("", content).record
        assert record is not None
        self.history.append(record)
        return True

    def deliver_some(self) -> None:
        while self.late and self.chance.random() < 0.5:
            self.apply(*self.late.pop(self.chance.randrange(len(self.late))))


class UnreliableCell:
    """A member's way to the store."""

    def __init__(self, store: Store) -> None:
        self._store, self._chance = store, store.chance

    async def get(self, *, deadline_s: float) -> tuple[str, bytes | None]:
        await self._wander()
        if self._chance.random() < 0.15:
            raise Unknown("lost")
        return ("" if self._store.content is None else str(self._store.mark)), self._store.content

    async def swap(self, mark: str, content: bytes, *, deadline_s: float) -> bool:
        await self._wander()
        fate = self._chance.random()
        if fate < 0.15:
            raise Refused("not reached")
        if fate < 0.35:
            self._store.late.append((mark, content))
            raise Unknown("on its way")
        is_stored = self._store.apply(mark, content)
        await self._wander()
        if fate < 0.55:
            raise Unknown("answer lost")
        return is_stored

    async def _wander(self) -> None:
        for _ in range(self._chance.randrange(4)):
            await asyncio.sleep(0)
        self._store.deliver_some()

    def parts(self) -> list[tuple[str, int | None, str]]:
        return []

    async def warm(self) -> None: ...

    def close(self) -> None: ...


@dataclass
class Member:
    """One member that puts higher and higher epochs, and what it was told."""

    name: str
    store: Store
    tried: list[Value] = field(default_factory=list)  # outcome unknown, and no later put has ended yet
    never: list[Value] = field(default_factory=list)  # surely not stored
    ends: list[tuple[int, list[Value]]] = field(default_factory=list)  # how long the history was, what became void

    async def work(self) -> None:
        register = CellRegister(
            UnreliableCell(self.store), kind="etcd", seat=SEAT, me=self.name, memory=Memory(), read_s=0.02, put_s=0.02
        )
        for number in range(PUTS):
            epoch = max(r.value.epoch for r in self.store.history) + self.store.chance.randrange(-1, 2)
            value = Value(epoch=max(epoch, 1), primary=self.name, insync=(self.name,), roster=1, floor=number)
            await self._put(register, value)

    async def _put(self, register: CellRegister, value: Value) -> None:
        begun = len(self.store.history)
        try:
            is_ours, held = await register.put(value)
        except Unknown:
            self.tried.append(value)
            return
        except Refused:
            self.never.append(value)
            return
        during = [r.value for r in self.store.history[max(0, begun - 1) :]]
        assert held in during, "it was told of a value that was not held meanwhile"
        assert is_ours == (held == value)
        self.ends.append((len(self.store.history), self.tried))
        self.tried = []


@pytest.mark.parametrize("seed", range(400))
async def test_no_schedule_makes_an_outcome_untrue(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(random.Random(seed))
    clock = itertools.count(1)  # each look at the clock takes a millisecond: time is up after a few tries
    monkeypatch.setattr(room, "now_at", lambda: next(clock) * MS)
    monkeypatch.setattr(room, "PAUSE_S", 0.0)
    first = Value(epoch=1, primary="m0", insync=("m0",), roster=1)
    assert store.apply("", encode(Record("p", "s", 1, "m0", "n", first)))
    members = [Member("m1", store), Member("m2", store)]
    await asyncio.gather(*(m.work() for m in members))
    while store.late:  # whatever was still on its way arrives
        store.apply(*store.late.pop())
    values = [r.value for r in store.history]
    for before, after in itertools.pairwise(values):
        assert after == before or after.epoch > before.epoch, "an epoch was stored twice, or an older one"
    assert len({r.nonce for r in store.history}) == len(store.history)
    for m in members:
        for value in m.never:
            assert value not in values, "refused, and stored nevertheless"
        for end, void in m.ends:
            assert not set(values[end:]) & set(void) - {values[end - 1]}, (
                "an earlier put arrived after a later one ended"
            )
